//! How a rollout ended, from a view of it: the exit code, and the two words people read.

use crate::exit::Exit;
use crate::render::units::counted;
use baton_proto::v1::{LiveView, RolloutView, ServiceView};

/// What whoever waits wants of the rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// That it brings the new release.
    Forward,
    /// That it goes back.
    Back,
}

/// The words for a rollout's state on the wire.
pub mod state {
    pub const PENDING: &str = "pending";
    pub const RUNNING: &str = "running";
    pub const PAUSED: &str = "paused";
    pub const REVERTING: &str = "reverting";
    pub const SUCCEEDED: &str = "succeeded";
    pub const PARTIAL: &str = "partial";
    pub const REVERTED: &str = "reverted";
    pub const FAILED: &str = "failed";
}

/// The word for waiting for a person's word.
pub const APPROVAL: &str = "approval";

pub const HEALTHY: &str = "healthy";
/// A rollout's direction once it was turned round.
pub const BACK: &str = "back";
/// Who turned a rollout back when no person did.
pub const EVIDENCE: &str = "evidence";

/// How the waiting for a service's rollout ends; None while it goes on.
#[must_use]
pub fn outcome(service: &ServiceView, wish: Wish) -> Option<Exit> {
    let rollout = service.rollout.as_ref()?;
    match rollout.state.as_str() {
        state::SUCCEEDED => Some(Exit::Done),
        state::REVERTED if wish == Wish::Back => Some(Exit::Done),
        state::PARTIAL if caught_up(rollout) => Some(Exit::Done),
        // Back was the same release: it ended where it stood, which is what was asked for.
        state::PARTIAL if wish == Wish::Back && rollout.completes => Some(Exit::Done),
        state::PARTIAL if turned_by_a_person(rollout) => Some(Exit::Aborted),
        state::PARTIAL => Some(Exit::NeedsPerson),
        state::REVERTED if turned_by_a_person(rollout) => Some(Exit::Aborted),
        // Before the first release of a service nothing ran: then back is as it was, and healthy is not to be had.
        state::REVERTED if service.health == HEALTHY || rollout.from_version.is_empty() => Some(Exit::RolledBack),
        state::REVERTED | state::FAILED => Some(Exit::NeedsPerson),
        state::PAUSED => Some(Exit::Waiting),
        _ if asks_for_approval(service) => Some(Exit::Waiting),
        _ => None,
    }
}

/// Whether the rollout waits for nothing but a person's word.
#[must_use]
pub fn asks_for_approval(service: &ServiceView) -> bool {
    service.waiting.iter().any(|waiting| waiting.host.is_empty() && waiting.reason == APPROVAL)
}

/// Whether the rollout is under way, paused or not.
#[must_use]
pub fn is_active(rollout: &RolloutView) -> bool {
    [state::PENDING, state::RUNNING, state::PAUSED, state::REVERTING].contains(&rollout.state.as_str())
}

fn turned_by_a_person(rollout: &RolloutView) -> bool {
    !rollout.turned_by.is_empty() && rollout.turned_by != EVIDENCE
}

/// Whether a hook has to be run again, or vouched for, before anything goes on.
fn hook_failed(service: &ServiceView) -> bool {
    service.rollout.iter().flat_map(|rollout| &rollout.hooks).any(|hook| hook.problem.is_some())
}

/// The two words: what became of the rollout, and how the service is.
#[must_use]
pub fn sentence(service: &ServiceView, exit: Exit) -> String {
    format!("{} · {}", became(service, exit), health(service))
}

fn became(service: &ServiceView, exit: Exit) -> String {
    let Some(rollout) = &service.rollout else { return without_rollout(service).to_owned() };
    let reverted = rollout.state == state::REVERTED;
    match exit {
        Exit::TimedOut => "not done in time, the rollout goes on".to_owned(),
        Exit::Interrupted => "interrupted, the rollout goes on".to_owned(),
        Exit::Waiting if asks_for_approval(service) => "ready, and waits for approval".to_owned(),
        Exit::Waiting => paused(rollout),
        _ if rollout.state == state::PARTIAL => partial(rollout),
        Exit::Aborted => format!("aborted by {}, rolled back", rollout.turned_by),
        _ if reverted => "rolled back".to_owned(),
        _ if rollout.state == state::SUCCEEDED => {
            format!("live on {} of {} hosts", rollout.hosts_done, rollout.hosts_total)
        }
        _ => rollout.state.clone(),
    }
}

/// Whether every host that was left out has the release by now.
#[must_use]
pub fn caught_up(rollout: &RolloutView) -> bool {
    !rollout.left_out.is_empty() && rollout.left_out.iter().all(|it| it.caught_up)
}

/// `live, but not on web3 (ana: disk)`; of a rollout that was ended where it stood, who ended it.
fn partial(rollout: &RolloutView) -> String {
    if caught_up(rollout) {
        let late: Vec<&str> = rollout.left_out.iter().map(|it| it.host.as_str()).collect();
        return format!("live on every host: {} caught up", late.join(", "));
    }
    let without = match rollout.turned_by.as_str() {
        "" => rollout.left_out.iter().map(|it| format!("{} ({}: {})", it.host, it.by, it.why)).collect::<Vec<_>>(),
        _ => rollout.left_out.iter().map(|it| it.host.clone()).collect(),
    };
    match (rollout.turned_by.as_str(), without.as_slice()) {
        ("", _) => format!("partial, not on {}", without.join(", ")),
        (by, []) => format!("ended by {by} where it stood, on every host"),
        (by, _) => format!("ended by {by} where it stood, not on {}", without.join(", ")),
    }
}

fn paused(rollout: &RolloutView) -> String {
    match (rollout.paused_by.as_str(), rollout.paused_why.as_str()) {
        ("", _) => "paused".to_owned(),
        (by, "") => format!("paused by {by}"),
        (by, why) => format!("paused by {by}: {why}"),
    }
}

/// `service healthy on 2.0.4`; while a rollout is somewhere in between, `service healthy, 2 of 4 hosts on 2.1.0`.
#[must_use]
pub fn health(service: &ServiceView) -> String {
    let health = if service.health.is_empty() { "unknown" } else { &service.health };
    let between = service.rollout.as_ref().filter(|it| is_active(it) && it.hosts_done > 0 && !it.from_version.is_empty());
    if let Some(RolloutView { hosts_done, hosts_total, direction, from_version, to_version, .. }) = between {
        let on = if direction == BACK { from_version } else { to_version };
        return format!("service {health}, {hosts_done} of {hosts_total} hosts on {on}");
    }
    match live(&service.live, &service.committed_version) {
        version if version.is_empty() => "nothing was live before".to_owned(),
        versions => format!("service {health} on {versions}"),
    }
}

/// `2.0.4`; `2.0.4 (2 hosts) and 2.1.0 (1 host)` where hosts keep another release than the committed one.
#[must_use]
pub fn live(live: &[LiveView], committed: &str) -> String {
    match live {
        [] => committed.to_owned(),
        [only] => only.version.clone(),
        several => {
            let versions =
                several.iter().map(|it| format!("{} ({})", it.version, counted(it.hosts.len() as u64, "host", "hosts")));
            versions.collect::<Vec<_>>().join(" and ")
        }
    }
}

/// Of a service without a rollout: where something is live all the same, a coordinator that was restored from an older copy learned
/// that from the hosts.
#[must_use]
pub fn without_rollout(service: &ServiceView) -> &'static str {
    if service.committed_version.is_empty() { "no rollout yet" } else { "live by a rollout that is not known here" }
}

/// The command that goes back, or gives up a rollout of what is live already.
#[must_use]
pub fn way_back(service: &ServiceView) -> String {
    if service.rollout.as_ref().is_some_and(|rollout| is_active(rollout) && rollout.completes) {
        return format!("baton abort {}", service.name);
    }
    let forced = service.rollout.as_ref().is_some_and(|rollout| rollout.no_way_back);
    format!("baton rollback {}{}", service.name, if forced { " --force" } else { "" })
}

/// The next command.
#[must_use]
pub fn next(service: &ServiceView, exit: Exit) -> String {
    let (name, back) = (&service.name, way_back(service));
    let of = |is: fn(&RolloutView) -> bool| service.rollout.as_ref().is_some_and(is);
    let is_partial = service.rollout.as_ref().is_some_and(|rollout| rollout.state == state::PARTIAL && !caught_up(rollout));
    match exit {
        Exit::Aborted | Exit::NeedsPerson if is_partial && of(|rollout| rollout.completes) => format!("baton why {name}"),
        Exit::Aborted | Exit::NeedsPerson if is_partial => format!("baton retry {name}   or   {back}"),
        Exit::Waiting if asks_for_approval(service) => format!("baton promote {name}   or   {back}"),
        Exit::Waiting if hook_failed(service) => {
            format!("baton why {name}, then baton retry {name}   or   {back}")
        }
        Exit::Waiting if of(|rollout| rollout.promotable) => format!("baton promote {name}   or   {back}"),
        Exit::Waiting if of(|rollout| !rollout.evidence.is_empty()) => {
            format!("baton why {name}, then baton retry {name}   or   {back}")
        }
        Exit::Waiting => format!("baton resume {name}   or   {back}"),
        Exit::RolledBack | Exit::NeedsPerson => format!("baton why {name}"),
        Exit::TimedOut | Exit::Interrupted => format!("baton watch {name}"),
        _ => format!("baton status {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Wish, next, outcome, sentence};
    use crate::exit::Exit;
    use crate::render::example::{rollout, service};
    use baton_proto::v1::{LeftOutView, LiveView, RolloutView, ServiceView, WaitingView};

    fn view(state: &str, turned_by: &str, health: &str) -> ServiceView {
        ServiceView {
            health: health.to_owned(),
            rollout: Some(RolloutView { state: state.to_owned(), turned_by: turned_by.to_owned(), ..rollout() }),
            ..service()
        }
    }

    #[test]
    fn every_state_of_a_rollout_has_its_exit_code() {
        let table = [
            ("pending", "", "healthy", None),
            ("running", "", "degraded", None),
            ("reverting", "evidence", "healthy", None),
            ("paused", "", "healthy", Some(Exit::Waiting)),
            ("succeeded", "", "healthy", Some(Exit::Done)),
            ("reverted", "evidence", "healthy", Some(Exit::RolledBack)),
            ("reverted", "evidence", "degraded", Some(Exit::NeedsPerson)),
            ("reverted", "evidence", "unknown", Some(Exit::NeedsPerson)),
            ("reverted", "ana", "healthy", Some(Exit::Aborted)),
            ("reverted", "ana", "down", Some(Exit::Aborted)),
            ("failed", "evidence", "down", Some(Exit::NeedsPerson)),
            ("partial", "", "healthy", Some(Exit::NeedsPerson)),
            ("partial", "ana", "healthy", Some(Exit::Aborted)),
            ("a word of a later version", "", "healthy", None),
        ];
        for (state, turned_by, health, exit) in table {
            assert_eq!(outcome(&view(state, turned_by, health), Wish::Forward), exit, "{state} {turned_by} {health}");
        }
    }

    #[test]
    fn a_rollout_that_waits_for_a_persons_word_is_waiting() {
        let mut asks = view("running", "", "healthy");
        asks.waiting = vec![WaitingView { reason: "approval".to_owned(), ..WaitingView::default() }];
        assert_eq!(outcome(&asks, Wish::Forward), Some(Exit::Waiting));
        assert_eq!(sentence(&asks, Exit::Waiting), "ready, and waits for approval · service healthy, 1 of 3 hosts on 2.1.0");
        assert_eq!(next(&asks, Exit::Waiting), "baton promote shop   or   baton rollback shop");
        let mut anew = view("paused", "", "healthy");
        let rollout = anew.rollout.as_mut().unwrap();
        rollout.completes = true;
        assert!(next(&anew, Exit::Waiting).ends_with("or   baton abort shop"), "there is nothing to go back to");
    }

    #[test]
    fn going_back_is_done_for_whoever_asked_to_go_back() {
        for turned_by in ["ana", "evidence"] {
            assert_eq!(outcome(&view("reverted", turned_by, "healthy"), Wish::Back), Some(Exit::Done));
        }
        assert_eq!(outcome(&view("failed", "ana", "down"), Wish::Back), Some(Exit::NeedsPerson));
        let mut anew = view("partial", "ana", "healthy");
        assert_eq!(outcome(&anew, Wish::Back), Some(Exit::Aborted), "another one ended it before it was back");
        let rollout = anew.rollout.as_mut().unwrap();
        rollout.completes = true;
        assert_eq!(outcome(&anew, Wish::Back), Some(Exit::Done), "there was no other way back");
    }

    #[test]
    fn a_first_release_that_fails_leaves_nothing_and_is_rolled_back_all_the_same() {
        let mut first = view("reverted", "evidence", "down");
        first.committed_version.clear();
        first.rollout.as_mut().unwrap().from_version.clear();
        assert_eq!(outcome(&first, Wish::Forward), Some(Exit::RolledBack));
        assert_eq!(sentence(&first, Exit::RolledBack), "rolled back · nothing was live before");
    }

    #[test]
    fn hosts_that_keep_another_release_or_caught_up_are_said() {
        let mut ended = view("partial", "ana", "healthy");
        let left_out = LeftOutView { host: "web4".into(), ..LeftOutView::default() };
        ended.rollout.as_mut().unwrap().left_out = vec![left_out.clone()];
        let on = |version: &str, hosts: &[&str]| LiveView {
            version: version.into(),
            hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
        };
        ended.live = vec![on("2.1.0", &["web2", "web3"]), on("2.0.4", &["web4"])];
        assert_eq!(
            sentence(&ended, Exit::Aborted),
            "ended by ana where it stood, not on web4 · service healthy on 2.1.0 (2 hosts) and 2.0.4 (1 host)"
        );
        let mut late = view("partial", "", "healthy");
        late.rollout.as_mut().unwrap().left_out = vec![LeftOutView { caught_up: true, ..left_out }];
        assert_eq!(outcome(&late, Wish::Forward), Some(Exit::Done));
        assert_eq!(sentence(&late, Exit::Done), "live on every host: web4 caught up · service healthy on 2.0.4");
        assert_eq!(next(&late, Exit::Done), "baton status shop");
    }

    #[test]
    fn no_rollout_is_no_outcome() {
        assert_eq!(outcome(&ServiceView { rollout: None, ..service() }, Wish::Forward), None);
    }

    #[test]
    fn the_rollout_and_the_service_are_two_words() {
        let told = |state, turned_by, health, exit| sentence(&view(state, turned_by, health), exit);
        assert_eq!(told("reverted", "evidence", "healthy", Exit::RolledBack), "rolled back · service healthy on 2.0.4");
        assert_eq!(
            told("reverted", "ana", "healthy", Exit::Aborted),
            "aborted by ana, rolled back · service healthy on 2.0.4"
        );
        assert_eq!(told("failed", "", "degraded", Exit::NeedsPerson), "failed · service degraded on 2.0.4");
        assert_eq!(
            told("running", "", "healthy", Exit::Interrupted),
            "interrupted, the rollout goes on · service healthy, 1 of 3 hosts on 2.1.0"
        );
    }
}
