//! What a host decides by itself, with or without a coordinator: that a release does not run there, and the one before should.
//!
//! It never decides more than its spec allows: only the committed release has a fallback, and what a newer spec says of the
//! instance ends the matter.

use super::plan::Observed;
use crate::fleet::InstanceKey;
use crate::fleet::report::{InstanceState, ReleaseState};
use crate::fleet::spec::{HostSpec, InstanceSpec, Restart};
use crate::name::{ReleaseId, ServiceName};
use crate::problem::Problem;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How often in a row an instance must fail before its release is given up: with the backoff between, about half a minute.
pub const CRASH_LOOP: u32 = 5;

/// The instances whose release was given up. The host remembers it, durably, before anything follows from it.
pub type GivenUp = BTreeMap<InstanceKey, Verdict>;

/// That a release does not run in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// What was given up: another release, or another start of it, is another matter.
    pub release: ReleaseId,
    pub start: u32,
    pub now: Now,
    pub because: Because,
}

/// What runs since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Now {
    Fallback,
    /// The fallback did not run either, so it was not the release's fault. It is tried again, for ever.
    Release,
}

/// Why it was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Because {
    /// The last of its failures.
    CrashLoop(Problem),
    /// Somebody on this host said so.
    Person(String),
}

/// What the host holds of its releases now: verdicts that still stand, and those that what was seen leads to.
#[must_use]
pub fn judge(spec: &HostSpec, observed: &Observed, before: &GivenUp) -> GivenUp {
    let next = |(key, wanted): (&InstanceKey, &InstanceSpec)| {
        let held = before.get(key).filter(|verdict| stands(spec, wanted, verdict));
        let failures = observed.failures.get(key).map_or(0, |failures| failures.count);
        let loops = failures >= CRASH_LOOP;
        let verdict = match held {
            Some(verdict) if verdict.now == Now::Fallback && loops => Verdict { now: Now::Release, ..verdict.clone() },
            Some(verdict) => verdict.clone(),
            None if loops && wanted.restart == Restart::Always && can_fall_back(spec, wanted, observed) => {
                let because = Because::CrashLoop(last_problem(observed, key)?);
                Verdict { release: wanted.release, start: wanted.start, now: Now::Fallback, because }
            }
            None => return None,
        };
        Some((key.clone(), verdict))
    };
    spec.instances.iter().filter_map(next).collect()
}

/// Gives a service's release up because a person on the host says so. Empty: there is nothing to go back to.
#[must_use]
pub fn give_up(spec: &HostSpec, observed: &Observed, service: &ServiceName, by: &str) -> GivenUp {
    let instances =
        spec.instances.iter().filter(|(key, wanted)| key.service == *service && can_fall_back(spec, wanted, observed));
    let verdict = |wanted: &InstanceSpec| Verdict {
        release: wanted.release,
        start: wanted.start,
        now: Now::Fallback,
        because: Because::Person(by.to_owned()),
    };
    instances.map(|(key, wanted)| (key.clone(), verdict(wanted))).collect()
}

/// The spec as the host follows it: what was given up is replaced by what the spec allows instead.
#[must_use]
pub fn followed(spec: &HostSpec, given_up: &GivenUp) -> HostSpec {
    let mut followed = spec.clone();
    for (key, wanted) in &mut followed.instances {
        let verdict = given_up.get(key).filter(|verdict| verdict.now == Now::Fallback && stands(spec, wanted, verdict));
        if let Some(fallback) = verdict.and(wanted.fallback) {
            wanted.release = fallback;
        }
    }
    followed
}

/// A verdict is about one start of one release, and needs something else that may run.
fn stands(spec: &HostSpec, wanted: &InstanceSpec, verdict: &Verdict) -> bool {
    let allowed = wanted.fallback.is_some_and(|fallback| spec.releases.contains_key(&fallback));
    allowed && (wanted.release, wanted.start) == (verdict.release, verdict.start)
}

fn can_fall_back(spec: &HostSpec, wanted: &InstanceSpec, observed: &Observed) -> bool {
    let held = |release: &ReleaseId| observed.releases.get(release) == Some(&ReleaseState::Held);
    wanted.fallback.is_some_and(|fallback| spec.releases.contains_key(&fallback) && held(&fallback))
}

fn last_problem(observed: &Observed, key: &InstanceKey) -> Option<Problem> {
    match &observed.instances.get(key)?.state {
        InstanceState::Failed { problem } => Some(problem.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::report::InstanceReport;
    use crate::host::plan::Failures;
    use crate::name::Digest;
    use crate::problem::Code;
    use crate::release::{Artifact, Health, Probe, Release, Run, Signal, Stop};
    use crate::time::Moment;
    use std::time::Duration;

    fn release(version: &str) -> Release {
        let stop = Stop { signal: Signal::Term, timeout: Duration::ZERO };
        let (interval, timeout, healthy_for, start_timeout) = Default::default();
        Release {
            service: "shop".parse().unwrap(),
            version: version.parse().unwrap(),
            artifact: Artifact { digest: Digest::of(version.as_bytes()), size: 1 },
            run: Run {
                command: vec!["shop".into()],
                user: None,
                env: BTreeMap::new(),
                secrets: BTreeMap::new(),
                stop,
                listen: Vec::new(),
            },
            hooks: Default::default(),
            health: Health { probe: Probe::Tcp, interval, timeout, healthy_for, start_timeout },
        }
    }

    fn key() -> InstanceKey {
        "shop/0".parse().unwrap()
    }

    /// A host that should run 2, and may run 1 instead; its instance failed so often.
    fn host(failures: u32, restart: Restart) -> (HostSpec, Observed) {
        let (one, two) = (release("1"), release("2"));
        let mut spec = HostSpec::default();
        let address = "127.0.0.1:1".parse().unwrap();
        let instance = InstanceSpec {
            release: two.id(),
            address,
            restart,
            start: 0,
            fallback: Some(one.id()),
            scrape: None,
            withdraw: None,
        };
        spec.instances.insert(key(), instance);
        let mut observed = Observed::default();
        observed.releases.extend([(one.id(), ReleaseState::Held), (two.id(), ReleaseState::Held)]);
        let state = InstanceState::Failed { problem: Problem::new(Code(206), "exited") };
        let report = InstanceReport { release: two.id(), incarnation: "1".into(), start: 0, state };
        observed.instances.insert(key(), report);
        observed.failures.insert(key(), Failures { count: failures, last: Moment(0) });
        spec.releases.extend([(one.id(), one.into()), (two.id(), two.into())]);
        (spec, observed)
    }

    fn runs(spec: &HostSpec, given_up: &GivenUp) -> ReleaseId {
        followed(spec, given_up).instances[&key()].release
    }

    #[test]
    fn a_committed_release_that_crash_loops_is_given_up_and_one_that_crashed_is_not() {
        let (spec, observed) = host(CRASH_LOOP - 1, Restart::Always);
        assert_eq!(judge(&spec, &observed, &GivenUp::new()), GivenUp::new());
        let (spec, observed) = host(CRASH_LOOP, Restart::Always);
        let given_up = judge(&spec, &observed, &GivenUp::new());
        assert_eq!(runs(&spec, &given_up), release("1").id());
        assert_eq!(given_up[&key()].because, Because::CrashLoop(Problem::new(Code(206), "exited")));
    }

    #[test]
    fn a_release_on_trial_is_the_coordinators_to_judge() {
        let (spec, observed) = host(CRASH_LOOP, Restart::Never);
        assert_eq!(judge(&spec, &observed, &GivenUp::new()), GivenUp::new());
    }

    #[test]
    fn where_neither_runs_the_release_is_tried_for_ever_and_hosts_do_not_flip() {
        let (spec, observed) = host(CRASH_LOOP, Restart::Always);
        let fell = judge(&spec, &observed, &GivenUp::new());
        let neither = judge(&spec, &observed, &fell);
        assert_eq!((neither[&key()].now, runs(&spec, &neither)), (Now::Release, release("2").id()));
        assert_eq!(judge(&spec, &observed, &neither), neither);
    }

    #[test]
    fn another_release_or_another_start_of_it_is_another_matter() {
        let (mut spec, observed) = host(CRASH_LOOP, Restart::Always);
        let fell = judge(&spec, &observed, &GivenUp::new());
        let calm = Observed { failures: BTreeMap::new(), ..observed };
        assert_eq!(judge(&spec, &calm, &fell), fell, "it stands while nothing new is said");
        spec.instances.get_mut(&key()).unwrap().start = 1;
        assert_eq!(runs(&spec, &fell), release("2").id());
        assert_eq!(judge(&spec, &calm, &fell), GivenUp::new());
    }

    #[test]
    fn nothing_is_given_up_for_what_is_not_there() {
        let (mut spec, observed) = host(CRASH_LOOP, Restart::Always);
        let shop = "shop".parse().unwrap();
        assert_eq!(give_up(&spec, &observed, &shop, "root").len(), 1);
        assert!(give_up(&spec, &observed, &"other".parse().unwrap(), "root").is_empty());
        let mut unheld = observed.clone();
        unheld.releases.remove(&release("1").id());
        assert!(give_up(&spec, &unheld, &shop, "root").is_empty() && judge(&spec, &unheld, &GivenUp::new()).is_empty());
        spec.instances.get_mut(&key()).unwrap().fallback = None;
        assert!(give_up(&spec, &observed, &shop, "root").is_empty() && judge(&spec, &observed, &GivenUp::new()).is_empty());
    }
}
