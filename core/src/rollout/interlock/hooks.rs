//! What happens once: 11.

use super::{Check, Violation, violation};
use crate::fleet::hooks::{HookRun, HookSpec, HookState};
use crate::fleet::{InstanceKey, Service};
use crate::hook::{HookKey, Of, Point};
use crate::name::{HostName, ReleaseId, ServiceName};

impl Check<'_> {
    /// 11: no attempt of a hook is told twice, or to two hosts, or before it is written down; another one is a person's word; and
    /// no release starts before its migration is known to have happened.
    pub(super) fn once(&self, name: &ServiceName, service: &Service, violations: &mut Vec<Violation>) {
        let Some(before) = self.fleet.services.get(name) else { return };
        let mut fail = |what: String| violations.push(violation(11, name, what));
        for (host, key, told) in self.newly_told(name) {
            if let Err(why) = may_be_told(host, told, before.hooks.get(key), service.hooks.get(key)) {
                fail(format!("{host} would be told to run {key}, attempt {}, but {why}", told.attempt));
            }
        }
        for (key, known) in &before.hooks {
            let after = service.hooks.get(key);
            // Whether a release is forgotten with its hooks, and may be, is looked at where that is.
            let goes = |of: &Of| matches!(of, Of::Release(id) if !self.proposal.forgotten.contains_key(id));
            let forgotten = goes(&key.of) && after.is_none() && !self.proposal.gone.contains(name);
            let undone = after.is_some_and(|it| it.issued < known.issued || (known.state.is_good() && !it.state.is_good()));
            if forgotten || undone || after.is_some_and(|it| it.attempt != known.attempt) {
                fail(format!("what is known of {key} would be changed, and nobody asked"));
            }
        }
        for (host, release) in self.first_starts(name, service) {
            let key = HookKey { service: name.clone(), point: Point::Migrate, of: Of::Release(release), host: None };
            if !before.hooks.get(&key).is_some_and(|run| run.state.is_good())
                && !service.hooks.get(&key).is_some_and(|run| run.state.is_good())
            {
                fail(format!("{host} would start a release whose migration is not known to have happened"));
            }
        }
    }

    /// The attempts that hosts were not told of before.
    fn newly_told(&self, name: &ServiceName) -> Vec<(&HostName, &HookKey, &HookSpec)> {
        let mut told = Vec::new();
        for (host, spec) in &self.proposal.specs {
            let issued = self.fleet.hosts.get(host).map(|host| &host.issued.hooks);
            let known = |key: &HookKey, it: &HookSpec| {
                issued.and_then(|hooks| hooks.get(key)).is_some_and(|known| known.attempt == it.attempt)
            };
            let new = spec.hooks.iter().filter(|(key, it)| key.service == *name && !known(key, it));
            told.extend(new.map(|(key, it)| (host, key, it)));
        }
        told
    }

    /// Hosts that would start a release that has a migration, and was live nowhere before.
    fn first_starts(&self, name: &ServiceName, service: &Service) -> Vec<(&HostName, ReleaseId)> {
        let was_live = [service.committed, service.previous];
        let migrates = |release: &ReleaseId| {
            let document = self.fleet.releases.get(release);
            document.is_some_and(|release| release.hooks.0.contains_key(&Point::Migrate))
        };
        let mut starts = Vec::new();
        for (host, spec) in &self.proposal.specs {
            let issued = self.fleet.hosts.get(host).map(|host| &host.issued.instances);
            let had = |key: &InstanceKey| issued.and_then(|it| it.get(key)).map(|it| it.release);
            let mine = spec.instances.iter().filter(|(key, it)| key.service == *name && had(key) != Some(it.release));
            let first = mine.filter(|(_, it)| migrates(&it.release) && !was_live.contains(&Some(it.release)));
            starts.extend(first.map(|(_, it)| (host, it.release)));
        }
        starts
    }
}

fn may_be_told(
    host: &HostName,
    told: &HookSpec,
    known: Option<&HookRun>,
    after: Option<&HookRun>,
) -> Result<(), &'static str> {
    let after = after.ok_or("nothing is written down of it")?;
    if after.host != *host {
        return Err("another host is to run it");
    }
    if after.issued != told.attempt {
        return Err("it is not written down that it is told");
    }
    if known.is_some_and(|known| known.issued >= told.attempt) {
        return Err("it was told before");
    }
    if told.attempt > known.map_or(1, |known| known.attempt) {
        return Err("nobody asked for another attempt");
    }
    match known.map(|known| &known.state) {
        None | Some(HookState::Asked) => Ok(()),
        Some(_) => Err("it is known what became of it"),
    }
}
