//! The store's twin in memory: for tests and simulations. Nothing of it survives.

use super::certificate::{Certificate, Renewal};
use super::token::{Had, Redeemed, Redemption, Token, TokenId};
use super::{About, Changes, Dated, FORGOTTEN_MAX, Snapshot, Store, StoreError, Thaw, WallTime, Which};
use crate::audit::chain::{Entry, Head, Record};
use baton_core::fleet::past::Forgotten;
use baton_core::name::{Digest, Epoch, ReleaseId, RolloutId};
use baton_core::reboot::Reboot;
use baton_core::rollout::Rollout;
use baton_core::upgrade::Upgrade;
use baton_proto::identity::Identity;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A store that keeps its promises as long as the process lives.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    snapshot: Snapshot,
    forgotten: BTreeMap<ReleaseId, Forgotten>,
    /// When rollouts were over.
    ended: BTreeMap<RolloutId, WallTime>,
    upgrade: Option<Upgrade>,
    reboot: Option<Reboot>,
    tokens: Vec<Token>,
    certificates: Vec<Certificate>,
    /// Which names came with which tokens.
    came_with: BTreeSet<(String, TokenId)>,
    audit: Vec<Record>,
    /// Set by tests: every write fails with this.
    broken: Option<StoreError>,
}

impl MemoryStore {
    /// Makes every write fail from now on, as a full disk would; None heals it.
    pub fn fail_with(&self, error: Option<StoreError>) {
        self.state().broken = error;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writable(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.state();
        match &state.broken {
            Some(error) => Err(error.clone()),
            None => Ok(state),
        }
    }
}

#[tonic::async_trait]
impl Store for MemoryStore {
    async fn load(&self) -> Result<Snapshot, StoreError> {
        let state = self.state();
        let mut snapshot = state.snapshot.clone();
        snapshot
            .rollouts
            .retain(|id, rollout| rollout.state.is_active() || ended_last(&state.snapshot.rollouts, id, rollout));
        snapshot.revoked = state.certificates.iter().filter(|one| one.revoked).map(|one| one.serial.clone()).collect();
        Ok(snapshot)
    }

    async fn commit(&self, changes: &Changes) -> Result<(), StoreError> {
        let mut state = self.writable()?;
        let State { snapshot, forgotten, ended, .. } = &mut *state;
        if snapshot.epoch != changes.held {
            return Err(StoreError::Fenced { held: changes.held, found: snapshot.epoch });
        }
        let mut rollouts = snapshot.rollouts.clone();
        rollouts.extend(changes.rollouts.clone());
        let mut active = std::collections::BTreeSet::new();
        for rollout in rollouts.values().filter(|rollout| rollout.state.is_active()) {
            if !active.insert(&rollout.service) {
                return Err(StoreError::ActiveRollout(rollout.service.clone()));
            }
        }
        snapshot.rollouts = rollouts;
        for rollout in changes.rollouts.values() {
            match rollout.state.is_active() {
                true => drop(ended.remove(&rollout.id)),
                false => drop(ended.entry(rollout.id.clone()).or_insert(changes.at)),
            }
        }
        snapshot.epoch = changes.epoch;
        snapshot.moment = changes.moment;
        snapshot.sequence = changes.sequence;
        snapshot.hosts.extend(changes.hosts.clone());
        snapshot.services.extend(changes.services.clone());
        snapshot.releases.extend(changes.releases.clone());
        forgotten.retain(|id, _| !changes.releases.contains_key(id));
        forgotten.extend(changes.forgotten.clone());
        snapshot.releases.retain(|id, _| !changes.forgotten.contains_key(id));
        forgotten.retain(|_, it| !changes.gone_services.contains(&it.release.service));
        snapshot.hosts.retain(|name, _| !changes.gone_hosts.contains(name));
        snapshot.services.retain(|name, _| !changes.gone_services.contains(name));
        snapshot.releases.retain(|_, release| !changes.gone_services.contains(&release.service));
        if let Some(Thaw(freeze)) = &changes.freeze {
            snapshot.freeze.clone_from(freeze);
        }
        if changes.fence.is_some() {
            snapshot.fence.clone_from(&changes.fence);
        }
        Ok(())
    }

    async fn upgrade(&self) -> Result<Option<Upgrade>, StoreError> {
        Ok(self.state().upgrade.clone())
    }

    async fn keep_upgrade(&self, held: Epoch, upgrade: &Upgrade) -> Result<(), StoreError> {
        let mut state = self.writable()?;
        if state.snapshot.epoch != held {
            return Err(StoreError::Fenced { held, found: state.snapshot.epoch });
        }
        state.upgrade = Some(upgrade.clone());
        Ok(())
    }

    async fn reboot(&self) -> Result<Option<Reboot>, StoreError> {
        Ok(self.state().reboot.clone())
    }

    async fn keep_reboot(&self, held: Epoch, reboot: &Reboot) -> Result<(), StoreError> {
        let mut state = self.writable()?;
        if state.snapshot.epoch != held {
            return Err(StoreError::Fenced { held, found: state.snapshot.epoch });
        }
        state.reboot = Some(reboot.clone());
        Ok(())
    }

    async fn history(&self, about: &About) -> Result<Vec<Dated>, StoreError> {
        let state = self.state();
        let fits = |rollout: &&Rollout| {
            about.service.as_ref().is_none_or(|service| *service == rollout.service)
                && about.rollout.as_ref().is_none_or(|id| *id == rollout.id)
        };
        let mut rollouts: Vec<Rollout> = state.snapshot.rollouts.values().filter(fits).cloned().collect();
        rollouts.sort_by_key(|rollout| {
            Reverse((rollout.state.is_active(), rollout.ended.unwrap_or_default(), rollout.id.clone()))
        });
        rollouts.truncate(about.limit as usize);
        let dated = |rollout: Rollout| Dated { ended: state.ended.get(&rollout.id).copied(), rollout };
        Ok(rollouts.into_iter().map(dated).collect())
    }

    async fn forgotten(&self, which: &Which) -> Result<Vec<Forgotten>, StoreError> {
        let fits = |(id, it): &(&ReleaseId, &Forgotten)| match which {
            Which::Ids(ids) => ids.contains(*id),
            Which::Called(service, version) => it.release.service == *service && it.release.version == *version,
            Which::Of(service) => service.as_ref().is_none_or(|service| *service == it.release.service),
        };
        let state = self.state();
        let mut found: Vec<(&ReleaseId, &Forgotten)> = state.forgotten.iter().filter(fits).collect();
        found.sort_by_key(|(id, it)| Reverse((it.at, id.to_string())));
        Ok(found.into_iter().take(FORGOTTEN_MAX).map(|(_, it)| it.clone()).collect())
    }

    async fn tokens(&self, now: WallTime) -> Result<Vec<Token>, StoreError> {
        let mut tokens = self.state().tokens.clone();
        tokens.retain(|token| token.worthless(now).is_none());
        tokens.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(tokens)
    }

    async fn keep_token(&self, token: &Token) -> Result<(), StoreError> {
        self.writable()?.tokens.push(token.clone());
        Ok(())
    }

    async fn redeem(&self, redemption: &Redemption) -> Result<Redeemed, StoreError> {
        let mut guard = self.writable()?;
        let state = &mut *guard;
        let Some(token) = state.tokens.iter_mut().find(|token| token.secret_hash == redemption.secret_hash) else {
            return Ok(Redeemed::Unknown);
        };
        if let Some(refused) = token.worthless(redemption.now) {
            return Ok(refused);
        }
        let identity = match token.identity_for(redemption) {
            Ok(identity) => identity,
            Err(refused) => return Ok(refused),
        };
        let text = identity.to_string();
        let mut before: Vec<_> = state.certificates.iter_mut().filter(|one| one.identity == text && !one.revoked).collect();
        let accepted = match &identity {
            Identity::Host(host) => state.snapshot.hosts.get(host).is_some_and(|record| record.accepted),
            Identity::Operator { .. } | Identity::Coordinator | Identity::Anonymous => false,
        };
        if let Some(refused) = token.keeps_out(redemption.replace, Had::by(!before.is_empty(), accepted)) {
            return Ok(refused);
        }
        if state.came_with.contains(&(text.clone(), token.id.clone())) {
            return Ok(Redeemed::Spent);
        }
        let revoked = before.iter().map(|certificate| certificate.serial.clone()).collect();
        before.iter_mut().for_each(|certificate| certificate.revoked = true);
        token.uses_left -= 1;
        state.came_with.insert((text.clone(), token.id.clone()));
        state.certificates.push(Certificate {
            serial: redemption.serial.clone(),
            identity: text,
            authority: redemption.authority.clone(),
            issued: redemption.now,
            expires: token
                .life
                .map_or(redemption.certificate_expires, |life| WallTime(redemption.now.0.saturating_add(life))),
            revoked: false,
            used: false,
        });
        let named = !token.names.is_empty();
        Ok(Redeemed::Granted { identity, revoked, services: token.services.clone(), life: token.life, named })
    }

    async fn token_id(&self, secret_hash: &Digest) -> Result<Option<TokenId>, StoreError> {
        Ok(self.state().tokens.iter().find(|token| token.secret_hash == *secret_hash).map(|token| token.id.clone()))
    }

    async fn revoke_token(&self, id: &TokenId) -> Result<bool, StoreError> {
        let mut state = self.writable()?;
        let found = state.tokens.iter_mut().find(|token| token.id == *id && token.uses_left > 0);
        Ok(found.map(|token| token.uses_left = 0).is_some())
    }

    async fn renew(&self, renewal: &Renewal) -> Result<bool, StoreError> {
        let mut state = self.writable()?;
        if state.certificates.iter().any(|one| one.serial == renewal.shown && one.revoked) {
            return Ok(false);
        }
        state.certificates.push(renewal.next.clone());
        Ok(true)
    }

    async fn certificates(&self, now: WallTime) -> Result<Vec<Certificate>, StoreError> {
        let mut certificates = self.state().certificates.clone();
        certificates.retain(|one| one.expires > now);
        certificates.sort_by(|a, b| (&a.identity, a.issued, &a.serial).cmp(&(&b.identity, b.issued, &b.serial)));
        Ok(certificates)
    }

    async fn note_use(&self, used: &Certificate) -> Result<(), StoreError> {
        let mut state = self.writable()?;
        match state.certificates.iter_mut().find(|one| one.serial == used.serial) {
            Some(known) => known.used = true,
            None => state.certificates.push(Certificate { used: true, revoked: false, ..used.clone() }),
        }
        Ok(())
    }

    async fn believe(&self, authorities: &[String]) -> Result<Vec<String>, StoreError> {
        let mut state = self.writable()?;
        let mut revoked = Vec::new();
        for one in &mut state.certificates {
            if one.authority.is_empty() {
                one.authority = authorities.last().cloned().unwrap_or_default();
            }
            if !one.revoked && !authorities.contains(&one.authority) {
                one.revoked = true;
                revoked.push(one.serial.clone());
            }
        }
        Ok(revoked)
    }

    async fn append(&self, at: WallTime, entry: &Entry) -> Result<Head, StoreError> {
        let text = serde_json::to_string(entry).map_err(|error| StoreError::Unreadable(error.to_string()))?;
        let mut state = self.writable()?;
        let record = state.audit.last().map_or_else(Head::none, Record::head).next(at, text);
        state.audit.push(record.clone());
        Ok(record.head())
    }

    async fn audit(&self, after: u64, most: u32) -> Result<Vec<Record>, StoreError> {
        let state = self.state();
        Ok(state.audit.iter().filter(|record| record.number > after).take(most as usize).cloned().collect())
    }

    async fn audit_head(&self) -> Result<Head, StoreError> {
        Ok(self.state().audit.last().map_or_else(Head::none, Record::head))
    }

    async fn revoke(&self, whose: &str) -> Result<Vec<String>, StoreError> {
        let mut state = self.writable()?;
        let good =
            state.certificates.iter_mut().filter(|one| !one.revoked && (one.identity == whose || one.serial == whose));
        Ok(good
            .map(|one| {
                one.revoked = true;
                one.serial.clone()
            })
            .collect())
    }
}

fn ended_last(all: &BTreeMap<RolloutId, Rollout>, id: &RolloutId, rollout: &Rollout) -> bool {
    let others = all.iter().filter(|(_, other)| other.service == rollout.service && !other.state.is_active());
    others.max_by_key(|(id, other)| (other.ended, *id)).is_some_and(|(last, _)| last == id)
}
