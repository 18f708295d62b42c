//! The authority, from the operator's side: who signs, who has moved to it, and the end of the one before.

use super::Api;
use crate::audit::call;
use crate::identity::authority::Authority;
use crate::identity::rotation::Authorities;
use crate::identity::wall_time;
use crate::store::certificate::Certificate;
use baton_core::problem::{Code, Problem};
use baton_proto::identity::{Identity, Role};
use baton_proto::problem::to_status;
use baton_proto::tls::Peer;
use baton_proto::v1::{AuthorityFacts, AuthorityView, BearerView, RetireAuthorityRequest};
use serde_json::json;
use std::sync::Arc;
use tonic::Status;

/// Names in a refusal.
const NAMED: usize = 20;

impl Api {
    pub(super) async fn authority_status(&self) -> Result<AuthorityView, Status> {
        let authorities = self.issuance.current();
        let certificates = self.store.certificates(wall_time()).await.map_err(|error| to_status(error.problem()))?;
        view(&authorities, &certificates).map_err(to_status)
    }

    pub(super) async fn rotate_authority(&self, why: String) -> Result<AuthorityView, Status> {
        call::about("authority");
        call::why(why);
        let before = self.issuance.current();
        let next = self.issuance.rotate().map_err(to_status)?;
        call::changed(believed(&before), believed(&next));
        tracing::info!(signer = next.signer.fingerprint(), "another authority signs from now on");
        self.authority_status().await
    }

    /// Ends the authority before the signer, on disk first, then for new connections, then for those that are open.
    pub(super) async fn retire_authority(
        &self,
        caller: &Peer,
        request: RetireAuthorityRequest,
    ) -> Result<AuthorityView, Status> {
        call::about("authority");
        call::why(request.why);
        let before = self.issuance.current();
        if caller.serial.is_some() && caller.issuer != before.signer.facts().map_err(to_status)?.name_der {
            // It would end this very call before its answer.
            let problem =
                Problem::new(Code(1034), format!("{} itself has a certificate of the old authority", caller.identity));
            return Err(to_status(
                problem.help("`baton` renews it after this command: ask once more, or on the coordinator's machine"),
            ));
        }
        let left: Vec<_> = self.authority_status().await?.bearers.into_iter().filter(|bearer| !bearer.moved).collect();
        if !left.is_empty() && !request.force {
            return Err(to_status(self.not_moved(&left)));
        }
        let next = self.issuance.retire().map_err(to_status)?;
        // A task of its own: it goes on although whoever asked goes away.
        let (api, gone, stays) = (self.clone(), Arc::clone(&before), Arc::clone(&next));
        let cut_off = tokio::spawn(async move { api.cut_off_signed(&gone, &stays).await });
        if let Err(error) = cut_off.await {
            tracing::error!(%error, "the end of an authority broke off");
        }
        call::changed(believed(&before), believed(&next));
        tracing::info!(signer = next.signer.fingerprint(), left = left.len(), "the authority before was retired");
        let mut view = self.authority_status().await?;
        view.bearers.extend(left);
        Ok(view)
    }

    /// Refuses what a retired authority signed, and says so in the store.
    async fn cut_off_signed(&self, before: &Authorities, next: &Authorities) {
        for gone in before.believed().filter(|authority| !next.pins().contains(&authority.pin())) {
            match gone.facts() {
                Ok(facts) => self.revoked.retire(facts.name_der),
                Err(problem) => tracing::error!(%problem, "open connections of the retired authority stay"),
            }
        }
        match self.store.believe(&fingerprints(next)).await {
            Ok(serials) => self.revoked.extend(serials),
            // It has happened; the next start writes it into the store.
            Err(error) => {
                tracing::warn!(problem = %error.problem(), "certificates of the retired authority are listed still");
            }
        }
    }

    fn not_moved(&self, left: &[BearerView]) -> Problem {
        let what = match left.len() {
            1 => "one certificate of the old authority is needed still".to_owned(),
            many => format!("{many} hosts and operators have a certificate of the old authority and have not used another"),
        };
        let mut problem = Problem::new(Code(1034), what);
        let picture = self.access.picture();
        for bearer in left.iter().take(NAMED) {
            let seen = match bearer.identity.parse() {
                Ok(Identity::Host(name)) if picture.fleet.hosts.get(&name).is_some_and(|host| host.connected) => {
                    "it is connected and has not moved yet: an older agent moves when its certificate is renewed"
                }
                Ok(Identity::Host(_)) => "not connected: it moves by itself once it is",
                Ok(Identity::Operator { role: Role::Ci, .. }) => "a pipeline: log in again with a new token",
                _ => "moves with its next command",
            };
            problem = problem.saw(bearer.identity.clone(), seen);
        }
        if left.len() > NAMED {
            problem = problem.saw("others", format!("{}: baton authority status shows them", left.len() - NAMED));
        }
        problem.help("wait for them; `baton authority retire --force` leaves them behind, and they join or log in again")
    }
}

/// The fingerprints of everybody who is believed, the signer's first.
#[must_use]
pub fn fingerprints(authorities: &Authorities) -> Vec<String> {
    authorities.believed().map(Authority::fingerprint).collect()
}

fn believed(authorities: &Authorities) -> serde_json::Value {
    json!({ "signs": authorities.signer.fingerprint(), "believed": fingerprints(authorities) })
}

fn view(authorities: &Authorities, certificates: &[Certificate]) -> Result<AuthorityView, Problem> {
    let signer = authorities.signer.fingerprint();
    let facts = authorities.believed().map(|authority| {
        let facts = authority.facts()?;
        let fingerprint = authority.fingerprint();
        Ok(AuthorityFacts {
            signs: fingerprint == signer,
            fingerprint,
            name: facts.name,
            from_seconds: facts.not_before,
            until_seconds: facts.not_after,
        })
    });
    Ok(AuthorityView { authorities: facts.collect::<Result<_, Problem>>()?, bearers: bearers(&signer, certificates) })
}

/// Everybody with a certificate that is accepted. Whoever has one that the signer did not sign has moved once another one,
/// which it did sign, was used: that it was issued says nothing, the answer may never have arrived.
fn bearers(signer: &str, certificates: &[Certificate]) -> Vec<BearerView> {
    let accepted: Vec<_> = certificates.iter().filter(|certificate| !certificate.revoked).collect();
    let of_one = accepted.chunk_by(|a, b| a.identity == b.identity);
    let bearer = |own: &[&Certificate]| {
        let used = own.iter().filter(|one| one.used).max_by_key(|one| (one.authority == signer, one.issued));
        let in_use = used.or(own.first())?;
        let needs_old = own.iter().any(|one| one.authority != signer);
        Some(BearerView {
            identity: in_use.identity.clone(),
            serial: in_use.serial.clone(),
            authority: in_use.authority.clone(),
            expires_seconds: in_use.expires.0,
            moved: !needs_old || (in_use.used && in_use.authority == signer),
        })
    };
    of_one.filter_map(bearer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::WallTime;

    fn certificate(identity: &str, authority: &str, issued: i64, used: bool) -> Certificate {
        Certificate {
            serial: format!("{authority}{issued}"),
            identity: identity.into(),
            authority: authority.into(),
            issued: WallTime(issued),
            expires: WallTime(issued + 100),
            revoked: false,
            used,
        }
    }

    /// The serial in use, and whether its bearer has moved to `new`.
    fn of(certificates: &[Certificate]) -> (String, bool) {
        let mut bearers = bearers("new", certificates);
        assert_eq!(bearers.len(), 1, "{bearers:?}");
        bearers.pop().map(|bearer| (bearer.serial, bearer.moved)).unwrap()
    }

    #[test]
    fn a_host_has_moved_once_it_used_a_certificate_of_the_new_authority_and_not_when_it_was_issued_one() {
        let (old, new) = (certificate("host/web1", "old", 1, true), certificate("host/web1", "new", 2, false));
        assert_eq!(of(std::slice::from_ref(&old)), ("old1".into(), false));
        assert_eq!(of(&[old.clone(), new.clone()]), ("old1".into(), false));
        assert_eq!(of(&[old.clone(), Certificate { used: true, ..new.clone() }]), ("new2".into(), true));
        let same_second = Certificate { issued: WallTime(1), used: true, ..new.clone() };
        assert_eq!(of(&[same_second, old.clone()]), ("new2".into(), true));
        // Of a store that noted no uses yet: the one it was before is in use as far as anybody knows.
        let unknown = Certificate { used: false, ..old };
        assert_eq!(of(&[unknown.clone(), new.clone()]), ("old1".into(), false));
        // Whoever joined since has nothing to move from.
        assert_eq!(of(std::slice::from_ref(&new)), ("new2".into(), true));
        assert_eq!(of(&[Certificate { revoked: true, ..unknown }, new]), ("new2".into(), true));
    }

    #[test]
    fn everybody_is_named_once() {
        let all = [
            certificate("admin/ana", "new", 3, true),
            certificate("host/web1", "old", 1, true),
            certificate("host/web1", "old", 2, true),
            certificate("host/web2", "new", 2, true),
        ];
        let named: Vec<_> = bearers("new", &all).into_iter().map(|it| (it.identity, it.serial, it.moved)).collect();
        let expected = [("admin/ana", "new3", true), ("host/web1", "old2", false), ("host/web2", "new2", true)];
        assert_eq!(named, expected.map(|(identity, serial, moved)| (identity.to_owned(), serial.to_owned(), moved)));
    }
}
