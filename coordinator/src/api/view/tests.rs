//! Fleets as they may be, and the words people read of them.

use super::*;
use crate::samples;
use baton_core::fleet::orders::Kept;
use baton_core::fleet::report::{HostReport, InstanceReport, InstanceState, MemberReport, PoolReport, ReleaseState};
use baton_core::fleet::spec::{MemberState, Stamp};
use baton_core::fleet::{Heard, Host, InstanceKey, MemberKey};
use baton_core::name::Slot;
use baton_core::problem::{Code, Problem};
use baton_core::rollout::waiting::{Reason, Waiting};
use baton_core::rollout::{Direction, LeftOut, Rollout, RolloutState, Turned};
use baton_proto::v1::ServiceView;

/// `web1=1.0:ready:in web2=1.0:starting`: instances in slot 0 and what the balancer says of them.
fn picture(hosts: &str) -> Picture {
    let mut picture = Picture { at: Moment(100_000), ..Picture::default() };
    let mut members = BTreeMap::new();
    let mut names = Vec::new();
    for word in hosts.split_whitespace() {
        let (name, what) = word.split_once('=').unwrap();
        names.push(name);
        let mut report = HostReport::default();
        let parts: Vec<_> = what.split(':').collect();
        if let [version, state, rest @ ..] = &parts[..] {
            let release = samples::release("shop", version);
            let since = Duration::from_secs(9);
            let state = match *state {
                "ready" => InstanceState::Ready { since },
                "starting" => InstanceState::Starting { since, last: Some(Problem::new(Code(210), "connection refused")) },
                "failed" => InstanceState::Failed { problem: Problem::new(Code(201), "it exited with 1") },
                other => panic!("{other}"),
            };
            let key = InstanceKey { service: "shop".parse().unwrap(), slot: Slot(0) };
            let instance = InstanceReport { release: release.id(), incarnation: "i".into(), start: 0, state };
            report.instances.insert(key, instance);
            let routed = if rest == ["in"] { MemberState::Ready } else { MemberState::Out };
            members.insert(MemberKey { host: samples::host(name), slot: Slot(0) }, member(routed));
            picture.fleet.releases.insert(release.id(), release.into());
        }
        add(&mut picture, name, report);
    }
    let pool = PoolReport { balancer: "77".into(), members, ..PoolReport::default() };
    add(&mut picture, "lb1", HostReport { pools: [("shop".parse().unwrap(), pool)].into(), ..HostReport::default() });
    let mut service = samples::behind(samples::service(&names), &["lb1"], "shop");
    service.committed = Some(samples::release("shop", "1.0").id());
    picture.fleet.services.insert("shop".parse().unwrap(), service);
    picture
}

fn add(picture: &mut Picture, name: &str, report: HostReport) {
    let mut host = Host::new("127.0.0.2".parse().unwrap());
    host.connected = true;
    host.heard = Some(Heard { at: Moment(99_000), report });
    picture.fleet.hosts.insert(samples::host(name), host);
}

fn member(state: MemberState) -> MemberReport {
    MemberReport { in_flight: 2, cut: 1, requests: 10, errors: 3, ..MemberReport::quiet(state) }
}

fn shop(picture: &Picture) -> ServiceView {
    fleet(picture, &BTreeMap::new(), picture.at, None).services.remove(0)
}

fn steps(view: &ServiceView) -> Vec<String> {
    view.hosts.iter().map(|it| format!("{} {} {} {}", it.host, it.versions.join("+"), it.step, it.done)).collect()
}

fn roll(picture: &mut Picture, state: RolloutState) {
    let mut rollout = samples::rollout("r-1", "shop", state);
    rollout.from = Some(samples::release("shop", "1.0").id());
    rollout.to = samples::release("shop", "2.0").id();
    rollout.hosts = ["web2", "web1", "web3"].map(samples::host).into();
    rollout.started = Moment(40_000);
    picture.fleet.rollouts.insert(rollout.id.clone(), rollout);
}

#[test]
fn at_rest_every_host_serves_and_the_service_is_healthy() {
    let view = shop(&picture("web1=1.0:ready:in web2=1.0:ready:in"));
    assert_eq!(view.health, "healthy");
    assert_eq!(steps(&view), ["web1 1.0 serving true", "web2 1.0 serving true"]);
    let host = &view.hosts[0];
    assert_eq!((host.step_ms, host.in_flight, host.requests, host.errors, host.cut), (9_000, 2, 10, 3, 1));
    assert_eq!(view.committed_version, "1.0");
}

#[test]
fn what_a_host_keeps_is_live_beside_the_committed_release() {
    let mut picture = picture("web1=2.0:ready:in web2=1.0:ready:in web3=1.0:ready:in");
    let kept = Kept { release: samples::release("shop", "2.0").id(), by: "ana".into() };
    picture.fleet.services.values_mut().for_each(|service| {
        service.orders.kept.insert(samples::host("web1"), kept.clone());
    });
    let view = shop(&picture);
    let live: Vec<_> = view.live.iter().map(|live| format!("{}: {}", live.version, live.hosts.join(" "))).collect();
    assert_eq!(live, ["1.0: web2 web3", "2.0: web1"]);
    assert!(view.hosts.iter().all(|host| host.done), "each has what it has at rest");
    let roles = |picture: &Picture| -> Vec<String> {
        let mut list = releases(&picture.fleet, None, &[]).releases;
        list.sort_by(|one, other| one.version.cmp(&other.version));
        list.into_iter().map(|release| format!("{} {}", release.version, release.role)).collect()
    };
    assert_eq!(roles(&picture), ["1.0 live", "2.0 live"]);
    picture.fleet.services.values_mut().for_each(|service| service.hosts.truncate(1));
    assert_eq!(roles(&picture), ["1.0 previous", "2.0 live"], "a rollback goes to the committed one");
}

#[test]
fn a_host_that_was_left_out_is_said_to_have_caught_up() {
    for (on_web2, caught_up) in [("2.0", true), ("1.0", false)] {
        let mut picture = picture(&format!("web1=2.0:ready:in web2={on_web2}:ready:in"));
        picture
            .fleet
            .services
            .values_mut()
            .for_each(|service| service.committed = Some(samples::release("shop", "2.0").id()));
        roll(&mut picture, RolloutState::Partial);
        let left_out = LeftOut { host: samples::host("web2"), by: "ana".into(), why: "disk".into() };
        picture.fleet.rollouts.values_mut().for_each(|rollout| rollout.left_out = vec![left_out.clone()]);
        let rollout = shop(&picture).rollout.unwrap();
        assert_eq!((rollout.left_out[0].caught_up, rollout.hosts_done), (caught_up, if caught_up { 3 } else { 2 }));
    }
}

#[test]
fn what_does_not_serve_says_why() {
    let view = shop(&picture("web1=1.0:ready:out web2=1.0:failed web3=none web4=1.0:starting"));
    let seen: Vec<_> = view.hosts.iter().map(|it| (it.step.as_str(), it.detail.as_str(), it.done)).collect();
    assert_eq!(
        seen,
        [
            ("ready", "no balancer routes to it", false),
            ("failed", "[B0201] it exited with 1", false),
            ("down", "nothing runs here", false),
            ("starting", "[B0210] connection refused", false),
        ]
    );
    assert_eq!(view.health, "down");
    assert_eq!(shop(&picture("web1=1.0:ready:in web2=1.0:failed")).health, "degraded");
}

#[test]
fn while_the_load_balancer_was_not_heard_nobody_knows_whether_it_serves() {
    let mut picture = picture("web1=1.0:ready:in web2=1.0:ready:in");
    let lb1 = picture.fleet.hosts.get_mut(&samples::host("lb1")).unwrap();
    (lb1.connected, lb1.heard) = (false, None);
    let view = shop(&picture);
    assert_eq!((view.health.as_str(), view.hosts[0].step.as_str()), ("unknown", "ready"));
    assert_eq!(view.hosts[0].detail, "whether it serves, lb1 has not said yet");
}

#[test]
fn a_load_balancer_that_cannot_be_looked_at_may_well_serve_and_one_that_does_not_run_does_not() {
    for (code, health, detail) in [
        (432, "unknown", "whether it serves, lb1 cannot say: [B0432] the file is somebody else's"),
        (402, "down", "no balancer routes to it"),
        (413, "down", "no balancer routes to it"),
    ] {
        let mut picture = picture("web1=1.0:ready:in web2=1.0:ready:in");
        let problem = Some(Problem::new(Code(code), "the file is somebody else's"));
        let lb1 = picture.fleet.hosts.get_mut(&samples::host("lb1")).unwrap();
        let report = &mut lb1.heard.as_mut().unwrap().report;
        report.pools.insert("shop".parse().unwrap(), PoolReport { problem, ..PoolReport::default() });
        let view = shop(&picture);
        assert_eq!((view.health.as_str(), view.hosts[0].step.as_str()), (health, "ready"));
        assert_eq!(view.hosts[0].detail, detail);
        // What one of two says for certain holds whatever the other could say.
        let out =
            ["web1", "web2"].map(|name| (MemberKey { host: samples::host(name), slot: Slot(0) }, member(MemberState::Out)));
        let pool = PoolReport { balancer: "77".into(), members: out.into(), ..PoolReport::default() };
        add(&mut picture, "lb2", HostReport { pools: [("shop".parse().unwrap(), pool)].into(), ..HostReport::default() });
        let service = picture.fleet.services.values_mut().next().unwrap();
        service.balancer.as_mut().unwrap().on.push(samples::host("lb2"));
        let view = shop(&picture);
        assert_eq!((view.health.as_str(), view.hosts[0].detail.as_str()), ("down", "no balancer routes to it"));
    }
}

#[test]
fn a_host_that_is_replaced_right_now_is_no_sickness_of_the_service() {
    let mut picture = picture("web1=1.0:ready:out web2=2.0:ready:in web3=1.0:ready:in");
    assert_eq!(shop(&picture).health, "degraded");
    roll(&mut picture, RolloutState::Running);
    let draining = Reason::Draining {
        balancer: samples::host("lb1"),
        in_flight: 7,
        oldest: None,
        out_for: Duration::from_secs(4),
        deadline: Duration::from_secs(30),
    };
    let waiting = vec![
        Waiting { host: Some(samples::host("web1")), reason: draining },
        Waiting { host: Some(samples::host("web3")), reason: Reason::Turn { wave: 0 } },
    ];
    picture.waiting.insert("shop".parse().unwrap(), waiting);
    let view = shop(&picture);
    assert_eq!(view.health, "healthy");
    // In the rollout's order.
    assert_eq!(steps(&view), ["web2 2.0 serving true", "web1 1.0 draining false", "web3 1.0 waiting false"]);
    // web3 waits for its turn, and serves.
    assert_eq!(view.hosts.iter().map(|host| host.serves).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(view.hosts[1].detail, "draining on lb1: 7 open after 4.0 s (limit 30.0 s)");
    assert_eq!((view.hosts[1].step_ms, view.hosts[2].detail.as_str()), (4_000, ""));
    let rollout = view.rollout.unwrap();
    assert_eq!((rollout.hosts_done, rollout.hosts_total, rollout.wave, rollout.waves), (1, 3, 1, 1));
    assert_eq!((rollout.state.as_str(), rollout.direction.as_str(), rollout.elapsed_ms), ("running", "forward", 60_000));
    assert_eq!((rollout.from_version.as_str(), rollout.to_version.as_str()), ("1.0", "2.0"));
    assert_eq!(view.waiting.len(), 2);
}

#[test]
fn a_rollback_after_a_rollout_was_ended_where_it_stood_says_what_it_comes_from() {
    let mut picture = picture("web1=2.0:ready:in web2=1.0:ready:in");
    roll(&mut picture, RolloutState::Running);
    let [one, two] = ["1.0", "2.0"].map(|version| samples::release("shop", version).id());
    let rollout = picture.fleet.rollouts.values_mut().next().unwrap();
    (rollout.from, rollout.to) = (Some(one), one);
    rollout.kept.insert(two);
    rollout.judgement.proof.polls = 1;
    (rollout.judgement.proof.old.requests, rollout.judgement.proof.other.requests) = (0, 40);
    let view = shop(&picture).rollout.unwrap();
    assert_eq!((view.from_version.as_str(), view.to_version.as_str()), ("2.0", "1.0"));
    let proof = view.proof.unwrap();
    assert_eq!((proof.old_requests, proof.other_requests), (40, 0), "those that the kept release answered");
    // A restart comes from where it goes.
    picture.fleet.rollouts.values_mut().for_each(|rollout| rollout.kept.clear());
    assert_eq!(shop(&picture).rollout.unwrap().from_version, "1.0");
}

#[test]
fn a_host_is_done_though_the_old_release_stays_warm_and_not_while_it_answers() {
    for (old, done) in [(MemberState::Out, 1), (MemberState::Ready, 0)] {
        let mut picture = picture("web1=2.0:ready:in");
        roll(&mut picture, RolloutState::Running);
        let release = samples::release("shop", "1.0");
        let key = InstanceKey { service: "shop".parse().unwrap(), slot: Slot(1) };
        let state = InstanceState::Ready { since: Duration::from_secs(60) };
        let warm = InstanceReport { release: release.id(), incarnation: "i".into(), start: 0, state };
        picture.fleet.releases.insert(release.id(), release.into());
        let report = |picture: &mut Picture, host: &str, change: &dyn Fn(&mut HostReport)| {
            let host = picture.fleet.hosts.get_mut(&samples::host(host)).unwrap();
            change(&mut host.heard.as_mut().unwrap().report);
        };
        report(&mut picture, "web1", &|report| drop(report.instances.insert(key.clone(), warm.clone())));
        report(&mut picture, "lb1", &|report| {
            let pool = report.pools.values_mut().next().unwrap();
            pool.members.insert(MemberKey { host: samples::host("web1"), slot: Slot(1) }, member(old));
        });
        let view = shop(&picture);
        assert_eq!((view.hosts[0].versions.len(), view.rollout.unwrap().hosts_done), (2, done), "{old:?}");
    }
}

#[test]
fn going_back_a_host_is_done_when_it_serves_the_old_release_again() {
    let mut picture = picture("web1=1.0:ready:in web2=2.0:ready:in web3=1.0:ready:in");
    roll(&mut picture, RolloutState::Reverting);
    let rollout = picture.fleet.rollouts.values_mut().next().unwrap();
    (rollout.direction, rollout.turned) = (Direction::Back, Some(Turned::Operator { by: "ana".into() }));
    let view = shop(&picture);
    assert_eq!(steps(&view), ["web2 2.0 serving false", "web1 1.0 serving true", "web3 1.0 serving true"]);
    let rollout = view.rollout.unwrap();
    assert_eq!((rollout.turned_by.as_str(), rollout.direction.as_str(), rollout.hosts_done), ("ana", "back", 2));
}

#[test]
fn nobody_heard_means_unknown_and_not_down() {
    let mut picture = picture("web1=1.0:ready:in");
    for host in picture.fleet.hosts.values_mut() {
        (host.heard, host.connected) = (None, false);
    }
    let view = shop(&picture);
    assert_eq!((view.health.as_str(), view.hosts[0].step.as_str()), ("unknown", "unknown"));
}

#[test]
fn what_a_silent_host_last_said_is_no_evidence_of_what_it_does() {
    let silent = |hosts: &str, names: &[&str], heard: u64| {
        let mut picture = picture(hosts);
        for name in names {
            let host = picture.fleet.hosts.get_mut(&samples::host(name)).unwrap();
            host.connected = false;
            host.heard.as_mut().unwrap().at = Moment(heard);
        }
        shop(&picture)
    };
    let (all, one_down) = ("web1=1.0:ready:in web2=1.0:ready:in", "web1=1.0:ready:in web2=1.0:failed web3=1.0:ready:in");
    let view = silent(all, &["web1"], 90_000);
    assert_eq!((view.health.as_str(), view.hosts[0].step.as_str()), ("unknown", "agent silent"));
    assert_eq!((view.hosts[0].detail.as_str(), view.hosts[0].serves), ("its agent has been silent for 10.0 s", false));
    assert_eq!(silent(all, &["web1", "web2"], 90_000).health, "unknown");
    assert_eq!(silent(one_down, &["web1"], 90_000).health, "degraded", "web2 is down, whatever web1 does");
    assert_eq!(silent(all, &["web1"], 95_000).health, "healthy", "an agent that is upgraded is away for less");
}

#[test]
fn a_host_that_obeyed_a_newer_coordinator_says_so() {
    let picture = picture("web1=1.0:ready:in");
    let ledger = Stamp { epoch: baton_core::name::Epoch(9), ..Stamp::default() };
    let hellos = [(samples::host("web1"), Hello { ledger, ..Hello::default() })].into();
    let view = fleet(&picture, &hellos, picture.at, None);
    let web1 = view.hosts.iter().find(|host| host.name == "web1").unwrap();
    assert_eq!(web1.problems[0].code, 1005);
    assert_eq!((web1.connected, web1.silent_ms), (true, 1_000));
}

#[test]
fn a_host_that_would_not_start_again_what_is_live_says_so_while_it_runs() {
    let mut picture = picture("web1=1.0:ready:in");
    let problem = Problem::new(Code(563), "this host's own settings do not allow what the release asks for");
    let told = |picture: &Picture| {
        let (name, host) = picture.fleet.hosts.iter().find(|(name, _)| name.as_str() == "web1").unwrap();
        host::view(&picture.fleet, name, host, None, picture.at).problems.len()
    };
    let mut reject = |version: &str| {
        let heard = picture.fleet.hosts.get_mut(&samples::host("web1")).unwrap().heard.as_mut().unwrap();
        let state = ReleaseState::Rejected { problem: problem.clone() };
        heard.report.releases.insert(samples::release("shop", version).id(), state);
        told(&picture)
    };
    assert_eq!(reject("2.0"), 0, "it is tried, and its rollout tells");
    assert_eq!(reject("1.0"), 1);
}

#[test]
fn one_service_is_shown_with_the_hosts_it_concerns() {
    let mut picture = picture("web1=1.0:ready:in");
    add(&mut picture, "db1", HostReport::default());
    picture.fleet.services.insert("blog".parse().unwrap(), samples::service(&["db1"]));
    let only = "shop".parse().unwrap();
    let view = fleet(&picture, &BTreeMap::new(), picture.at, Some(&only));
    assert_eq!(view.services.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["shop"]);
    assert_eq!(view.hosts.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["lb1", "web1"]);
}

#[test]
fn how_long_ago_a_rollout_ended_is_said_also_where_the_coordinator_was_down_since_or_its_clock_was_set_back() {
    let picture = picture("web1=1.0:ready:in");
    let mut rollout = samples::rollout("r-1", "shop", RolloutState::Succeeded);
    rollout.ended = Some(Moment(60_000));
    let ago = |ended: Option<i64>, at: i64| {
        let dated = Dated { rollout: rollout.clone(), ended: ended.map(WallTime) };
        record(&picture.fleet, &dated, Now { moment: picture.at, at: WallTime(at) }).ended_ago_ms
    };
    assert_eq!(ago(None, 5_000), 40_000, "an older version wrote down no date");
    assert_eq!(ago(Some(1_000), 5_000), 4_000_000, "the driver's clock stood meanwhile");
    assert_eq!(ago(Some(9_000), 5_000), 40_000, "the clock was set back");
}

#[test]
fn releases_are_listed_newest_first_whatever_they_are_called() {
    let mut picture = picture("web1=1.0:ready:in");
    let rollout = |id: &str, version: &str| {
        let to = samples::release("shop", version).id();
        Dated { rollout: Rollout { to, ..samples::rollout(id, "shop", RolloutState::Succeeded) }, ended: None }
    };
    // Newest first; 9.0 was gone back to last.
    let history = [rollout("r-4", "9.0"), rollout("r-3", "1.0"), rollout("r-2", "2.0"), rollout("r-1", "9.0")];
    for version in ["9.0", "2.0", "3.0"] {
        let release = samples::release("shop", version);
        picture.fleet.releases.insert(release.id(), release.into());
    }
    let queued = baton_core::fleet::orders::Queued {
        id: "r-5".parse().unwrap(),
        shape: Box::new(samples::service(&["web1"])),
        release: samples::release("shop", "3.0").id(),
        by: "ana".into(),
        since: Moment(0),
    };
    picture.fleet.services.values_mut().for_each(|service| service.orders.queue.push(queued.clone()));
    let list = releases(&picture.fleet, None, &history);
    let listed: Vec<_> = list.releases.iter().map(|it| (it.version.as_str(), it.role.as_str())).collect();
    assert_eq!(listed, [("3.0", ""), ("1.0", "live"), ("2.0", ""), ("9.0", "")]);
}

#[test]
fn a_host_that_obeyed_another_coordinator_is_said_and_not_while_it_is_still_learnt_what_hosts_were_told() {
    let mut picture = picture("web1=1.0:ready");
    let web1 = samples::host("web1");
    let ledger = Stamp { epoch: baton_core::name::Epoch(40), ..Stamp::default() };
    let hello = Hello { ledger, ..Hello::default() };
    let problems = |picture: &Picture| {
        let (fleet, host) = (&picture.fleet, &picture.fleet.hosts[&web1]);
        host::view(fleet, &web1, host, Some(&hello), picture.at).problems
    };
    let said = problems(&picture);
    assert!(said.len() == 1 && said[0].code == 1005 && said[0].help.contains("another coordinator"), "{said:?}");
    picture.fleet.hosts.get_mut(&web1).unwrap().accepted = false;
    assert_eq!(problems(&picture), [], "it is read once it is accepted");
    picture.fleet.hosts.get_mut(&web1).unwrap().accepted = true;
    picture.fleet.fence = Some(baton_core::fleet::fence::Fence { stands: true, ..Default::default() });
    assert_eq!(problems(&picture), []);
}
