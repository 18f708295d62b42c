//! What a deploy would do, without doing it.

use super::control::Wish;
use super::diff;
use super::view::{self, millis, notices};
use crate::driver::Picture;
use baton_core::analysis::notice;
use baton_core::fleet::Fleet;
use baton_core::name::{HostName, RolloutId, ServiceName};
use baton_core::problem::{Code, Problem};
use baton_core::release::Release;
use baton_core::rollout::command::{Accepted, Command, Deploy, apply, basis, objections, with_brought};
use baton_core::rollout::{Rollout, RolloutState};
use baton_core::strategy::{Placement, Strategy};
use baton_core::time::Moment;
use baton_proto::v1::{Notice, PlanView, PlannedWave};
use std::sync::Arc;

/// An id that no rollout gets.
const NOBODY: &str = "preview";

/// Shows what a deploy would do, by asking `core`, on a copy; and what would refuse it.
pub(super) fn preview(picture: &Picture, wish: Wish, now: Moment) -> (PlanView, Vec<Problem>) {
    let Wish { name, shape, release, missing } = wish;
    let fleet = with_brought(&picture.fleet, &name, &shape);
    let fleet = fleet.as_ref();
    let before = fleet.services.get(&name);
    let live = before.and_then(|service| service.committed).and_then(|id| fleet.releases.get(&id)).map(Arc::as_ref);
    let strategy = shape.strategy.clone();
    let total = shape.hosts.len();
    let mut view = PlanView {
        service: name.to_string(),
        from_version: live.map(|release| release.version.to_string()).unwrap_or_default(),
        to_version: release.version.to_string(),
        placement: placement(strategy.placement, Some(&release)).to_owned(),
        max_unavailable: count(strategy.max_unavailable.at_most(total)),
        changes: diff::diff(live.zip(before), (&release, &shape)),
        strategy: strategy.word().to_owned(),
        keep_old_ms: millis(strategy.keep_old),
        interrupts: strategy.interrupts(total) && live.is_some(),
        interrupted_ms: live.filter(|_| strategy.interrupts(total)).map_or(0, |live| {
            let health = &release.health;
            millis(strategy.drain_deadline + live.run.stop.timeout + health.start_timeout + health.healthy_for)
        }),
        together: strategy.first_part(total) >= 1.0,
        preview: strategy.preview().map_or_else(String::new, ToString::to_string),
        at_least_serving: count(total - strategy.max_unavailable.at_most(total)),
        basis: basis(fleet, &name).to_string(),
        live: before.map(|service| view::live(fleet, service)).unwrap_or_default(),
        warnings: reused(fleet, &release)
            .into_iter()
            .chain(locked_out(live, &release, &strategy))
            .map(|it| (&it).into())
            .collect(),
        would_notice: live.map(|_| foreseen(picture, &name, &strategy, total)).unwrap_or_default(),
        ..PlanView::default()
    };
    let Ok(id) = RolloutId::new(NOBODY) else { return (view, Vec::new()) };
    let hosts = shape.hosts.clone();
    let deploy = Deploy::new(id, name, shape, release, NOBODY.to_owned());
    let problems =
        missing.into_iter().chain(objections(&picture.fleet, &deploy, now)).chain(picture.trouble.clone()).collect();
    let mut after: Fleet = fleet.clone();
    match apply(&mut after, Command::Deploy(Box::new(deploy)), now) {
        Ok(Accepted::AlreadyLive) => view.already_live = true,
        Ok(Accepted::Rollout(id)) => {
            view.warnings.extend(fleet.rollouts.get(&id).map(|under_way| (&attached(under_way, &view.to_version)).into()));
            let order = after.rollouts.get(&id).map_or(&hosts, |rollout: &Rollout| &rollout.hosts);
            view.waves = waves(order, &strategy);
        }
        Ok(_) | Err(_) => view.waves = waves(&hosts, &strategy),
    }
    (view, problems)
}

/// A rollout to the same release is under way: there will not be another one.
fn attached(under_way: &Rollout, version: &str) -> Problem {
    let Rollout { id, service, state, .. } = under_way;
    let (what, help) = match state {
        RolloutState::Paused => (
            format!(
                "rollout {id} brings {service} {version} already, and is paused: a deploy attaches to it and lets nothing go on"
            ),
            format!("baton why {service} says what it is paused for, baton resume {service} lets it go on"),
        ),
        _ => (
            format!("rollout {id} brings {service} {version} already: a deploy attaches to it"),
            format!("baton watch {service} follows it"),
        ),
    };
    Problem::new(Code(739), what).help(help)
}

/// Another artifact under a version that was released before: history and rollbacks name versions.
fn reused(fleet: &Fleet, release: &Release) -> Option<Problem> {
    let Release { service, version, artifact, .. } = release;
    let known = fleet.releases.values().filter(|known| known.service == *service && known.version == *version);
    let before: Vec<_> = known.map(|known| known.artifact.digest).collect();
    let other = before.last().filter(|_| !before.contains(&artifact.digest))?;
    Some(
        Problem::new(Code(730), format!("{service} {version} was released before, with another artifact"))
            .saw("artifact before", other.short())
            .saw("artifact now", artifact.digest.short())
            .help(format!("give it a version of its own; baton releases {service} shows those there are")),
    )
}

/// Another user beside the one before: what a service keeps belongs to whoever started last.
fn locked_out(live: Option<&Release>, release: &Release, strategy: &Strategy) -> Option<Problem> {
    let live = live.filter(|live| live.run.user != release.run.user && strategy.placement == Placement::SideBySide)?;
    let service = &release.service;
    let user = |release: &Release| release.run.user.clone().unwrap_or_else(|| "one that systemd makes up".to_owned());
    let what =
        format!("{service} {} runs as another user than {}, and both would run at once", release.version, live.version);
    Some(
        Problem::new(Code(749), what)
            .saw("user before", user(live))
            .saw("user now", user(release))
            .saw("belongs to one of them", format!("/var/lib/baton/{service}, which the application finds in $STATE_DIRECTORY"))
            .help(
                "where the application keeps something there, have this release take the place of the one before: one port in \
                 run.ports, or rollout.strategy = \"recreate\"",
            ),
    )
}

/// How soon regressions would be noticed while the first hosts, or the first share, have the new release.
fn foreseen(picture: &Picture, name: &ServiceName, strategy: &Strategy, total: usize) -> Vec<Notice> {
    let Some(usual) = picture.usual.get(name) else { return Vec::new() };
    let part = strategy.first_part(total);
    notices(|share| notice::foreseen(&strategy.guard, usual, part, share))
}

/// Cuts the order of hosts into waves: sizes are cumulative.
fn waves(order: &[HostName], strategy: &Strategy) -> Vec<PlannedWave> {
    let mut waves = Vec::new();
    let mut begun = 0;
    for (nth, wave) in strategy.waves.iter().filter(|wave| !wave.is_preview()).enumerate() {
        // Those whom a rule names come first, and no others.
        let only_rules = nth == 0 && !strategy.users.rules.is_empty();
        let share = wave.share.filter(|_| !only_rules);
        let until = wave.hosts.of(order.len()).max(begun);
        if until > begun || wave.share.is_some() {
            let hosts = order.iter().take(until).skip(begun).map(ToString::to_string).collect();
            waves.push(PlannedWave {
                hosts,
                share: share.map_or(0, |share| u16::from(share).into()),
                bake_ms: millis(wave.bake.unwrap_or(strategy.bake)),
                approve: wave.approve,
            });
        }
        begun = until;
    }
    waves
}

/// The placement in the manifest's words: side by side with a socket that both get is a hand-over.
pub(super) fn placement(placement: Placement, release: Option<&Release>) -> &'static str {
    match placement {
        Placement::InPlace => "in-place",
        Placement::SideBySide if release.is_some_and(|release| !release.run.listen.is_empty()) => "handover",
        Placement::SideBySide => "side-by-side",
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::missing;
    use crate::samples;
    use baton_core::analysis::counts::Counts;
    use baton_core::analysis::history::Summary;
    use baton_core::fleet::{Host, Service};
    use baton_core::strategy::{Amount, Wave};

    fn wish(hosts: &[&str]) -> Wish {
        let release = samples::release("shop", "2.1.0");
        Wish { name: "shop".parse().unwrap(), shape: samples::service(hosts), release, missing: None }
    }

    fn picture(hosts: &[&str]) -> Picture {
        let mut picture = Picture::default();
        for name in hosts {
            picture.fleet.hosts.insert(samples::host(name), Host::new("127.0.0.2".parse().unwrap()));
        }
        picture
    }

    #[test]
    fn a_plan_names_the_waves_and_changes_nothing() {
        let mut wish = wish(&["web1", "web2", "web3"]);
        wish.shape.strategy.waves = [Amount::Hosts(1), Amount::Percent(100)].map(Wave::of).to_vec();
        let (plan, problems) = preview(&picture(&["web1", "web2", "web3"]), wish, Moment(0));
        let waves: Vec<_> = plan.waves.iter().map(|wave| wave.hosts.join(" ")).collect();
        assert_eq!(waves, ["web1", "web2 web3"]);
        assert_eq!((plan.at_least_serving, plan.already_live), (2, false));
        assert!(problems.is_empty());
    }

    #[test]
    fn a_plan_warns_of_another_artifact_under_a_version_that_was_released_before() {
        let mut picture = picture(&["web1"]);
        let mut old = wish(&["web1"]).release;
        picture.fleet.releases.insert(old.id(), old.clone().into());
        let warned = |picture: &Picture| preview(picture, wish(&["web1"]), Moment(0)).0.warnings;
        assert!(warned(&picture).is_empty(), "the same again");
        picture.fleet.releases.clear();
        old.artifact.digest = baton_core::name::Digest::of(b"other bytes");
        picture.fleet.releases.insert(old.id(), old.into());
        let warnings = warned(&picture);
        assert_eq!(warnings.iter().map(|warning| warning.code).collect::<Vec<_>>(), [730]);
        assert_eq!(warnings[0].seen.len(), 2, "{warnings:?}");
    }

    #[test]
    fn a_plan_warns_of_another_user_beside_the_one_before() {
        let mut picture = picture(&["web1"]);
        let live = wish(&["web1"]).release;
        let service = Service { committed: Some(live.id()), ..wish(&["web1"]).shape };
        picture.fleet.services.insert(live.service.clone(), service);
        picture.fleet.releases.insert(live.id(), live.into());
        for (user, placement, warns) in [
            (Some("shopper"), Placement::SideBySide, true),
            (Some("shopper"), Placement::InPlace, false),
            (None, Placement::SideBySide, false),
        ] {
            let mut wish = wish(&["web1"]);
            (wish.release.run.user, wish.shape.strategy.placement) = (user.map(str::to_owned), placement);
            let codes: Vec<_> = preview(&picture, wish, Moment(0)).0.warnings.iter().map(|it| it.code).collect();
            assert_eq!(codes == [749], warns, "{user:?} {placement:?}: {codes:?}");
        }
    }

    #[test]
    fn a_plan_says_everything_that_would_refuse_it() {
        let mut wish = wish(&["web1", "ghost"]);
        wish.missing = Some(missing(wish.release.artifact.digest));
        let (_, problems) = preview(&picture(&["web1"]), wish, Moment(0));
        let codes: Vec<_> = problems.iter().map(|problem| problem.code.0).collect();
        assert_eq!(codes, [601, 703]);
    }

    #[test]
    fn a_plan_foresees_from_usual_traffic_what_would_be_noticed_and_how_soon() {
        let hosts = ["web1", "web2", "web3", "web4"];
        let mut picture = picture(&hosts);
        let (old, asked) = (samples::release("shop", "2.0.4"), wish(&hosts));
        let mut service = asked.shape.clone();
        service.committed = Some(old.id());
        picture.fleet.services.insert(asked.name.clone(), service);
        picture.fleet.releases.insert(old.id(), old.into());
        assert!(preview(&picture, wish(&hosts), Moment(0)).0.would_notice.is_empty(), "nothing was counted yet");
        // 200 requests a second for a minute.
        let usual = Summary { polls: 30, slots: 120, counts: Counts::new(12_000, 2), phi: 1.0 };
        picture.usual.insert(asked.name, usual);
        let (plan, _) = preview(&picture, wish(&hosts), Moment(0));
        let shares: Vec<_> = plan.would_notice.iter().map(|notice| notice.share.as_str()).collect();
        assert_eq!(shares, ["1 %", "5 %", "20 %"]);
        assert!(plan.would_notice[2].within_ms <= 10_000, "{plan:?}");
        assert!(plan.would_notice.is_sorted_by(|one, other| one.within_ms >= other.within_ms), "{plan:?}");
        let mut together = wish(&hosts);
        together.shape.strategy.lockstep = true;
        let (plan, _) = preview(&picture, together, Moment(0));
        let shares: Vec<_> = plan.would_notice.iter().map(|notice| notice.share.as_str()).collect();
        assert!(plan.together);
        assert_eq!(shares, ["5 %", "20 %"], "all at once: it is held against what was before");
    }

    #[test]
    fn what_is_live_already_needs_no_plan() {
        let mut picture = picture(&["web1"]);
        let wish = wish(&["web1"]);
        let mut service = wish.shape.clone();
        service.committed = Some(wish.release.id());
        picture.fleet.services.insert(wish.name.clone(), service);
        picture.fleet.releases.insert(wish.release.id(), wish.release.clone().into());
        let (plan, _) = preview(&picture, wish, Moment(0));
        assert!(plan.already_live && plan.waves.is_empty() && plan.changes.is_empty(), "{plan:?}");
    }

    #[test]
    fn a_plan_says_that_its_release_is_on_its_way_already_and_paused() {
        let mut picture = picture(&["web1"]);
        let begun = wish(&["web1"]);
        let deploy =
            Deploy::new(RolloutId::new("r-1").unwrap(), begun.name.clone(), begun.shape, begun.release, "kim".into());
        apply(&mut picture.fleet, Command::Deploy(Box::new(deploy)), Moment(0)).unwrap();
        let warned = |picture: &Picture| match preview(picture, wish(&["web1"]), Moment(0)).0.warnings.as_slice() {
            [warning] => (warning.code, warning.what.clone()),
            other => panic!("{other:?}"),
        };
        assert_eq!(warned(&picture), (739, "rollout r-1 brings shop 2.1.0 already: a deploy attaches to it".to_owned()));
        picture.fleet.rollouts.values_mut().for_each(|rollout| rollout.state = RolloutState::Paused);
        let (_, paused) = warned(&picture);
        assert!(paused.contains("and is paused: a deploy attaches to it and lets nothing go on"), "{paused}");
    }
}
