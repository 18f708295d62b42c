//! Which reports are news: those after which another plan could be made, and no others.

use super::text::{World, host, pool, release, shop};
use baton_core::fleet::hooks::{HookOutcome, HookReport};
use baton_core::fleet::news::is_news;
use baton_core::fleet::report::{HostReport, InstanceState, MemberReport, ReleaseState, SplitReport};
use baton_core::fleet::spec::MemberState;
use baton_core::fleet::split::{Share, Side, TrafficSplit};
use baton_core::fleet::{InstanceKey, MemberKey};
use baton_core::hook::{HookKey, Of, Point};
use baton_core::name::{Generation, Slot};
use baton_core::problem::{Code, Problem};
use std::time::Duration;

const FLEET: &str = "in-place max=1 v1->v2\n web1 a=v2:ready:in\n web2 a=v1:ready:out\n lb1";

/// Whether a report of `name` is news after one from which it differs by `now`.
fn news_of(name: &str, before: impl Fn(&mut HostReport), now: impl Fn(&mut HostReport)) -> bool {
    let mut world = World::parse(FLEET);
    let heard = world.fleet.hosts.get_mut(&host(name)).and_then(|host| host.heard.as_mut()).expect("it was heard");
    before(&mut heard.report);
    let mut report = heard.report.clone();
    assert!(!is_news(&world.fleet, &host(name), &report), "what is said twice is no news");
    now(&mut report);
    is_news(&world.fleet, &host(name), &report)
}

fn key() -> InstanceKey {
    InstanceKey { service: shop(), slot: Slot(0) }
}

fn problem() -> Problem {
    Problem::new(Code(210), "exited")
}

fn is(state: InstanceState) -> impl Fn(&mut HostReport) {
    move |report| report.instances.get_mut(&key()).expect("an instance").state = state.clone()
}

fn member(of: &'static str, change: impl Fn(&mut MemberReport)) -> impl Fn(&mut HostReport) {
    let key = MemberKey { host: host(of), slot: Slot(0) };
    move |report| change(report.pools.get_mut(&pool()).and_then(|pool| pool.members.get_mut(&key)).expect("a member"))
}

const fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

const fn ready(since: u64) -> InstanceState {
    InstanceState::Ready { since: ms(since) }
}

fn unready(since: u64) -> InstanceState {
    InstanceState::Unready { since: ms(since), problem: problem() }
}

#[test]
fn what_only_lasts_and_what_is_only_counted_is_no_news() {
    let nothing = |_: &mut HostReport| {};
    assert!(!news_of("web1", is(ready(5_000)), is(ready(9_000))));
    let starting = |since| InstanceState::Starting { since: ms(since), last: Some(problem()) };
    assert!(!news_of("web1", is(starting(1)), is(starting(2))));
    assert!(!news_of("web1", is(InstanceState::Stopping { since: ms(1) }), is(InstanceState::Stopping { since: ms(2) })));
    assert!(!news_of("web1", nothing, |report| {
        report.memory.insert(key(), 7);
    }));
    let fetching = |done| {
        move |report: &mut HostReport| {
            report.releases.insert(release("v2").id(), ReleaseState::Fetching { done, total: 9 });
        }
    };
    assert!(!news_of("web1", fetching(1), fetching(2)));
    let counted = |it: &mut MemberReport| {
        (it.requests, it.errors, it.cut) = (it.requests + 9, it.errors + 1, it.cut + 1);
    };
    assert!(!news_of("lb1", nothing, member("web1", counted)));
    assert!(!news_of("lb1", nothing, member("web1", |it| it.in_flight = 3)), "what is in has requests in flight");
    assert!(!news_of("lb1", nothing, member("web2", |it| it.out_for += ms(500))), "what is out stays out");
    let split = |stable| {
        move |report: &mut HostReport| {
            let split = TrafficSplit { share: Share::NONE, sticky: None, rules: Vec::new() };
            let said = SplitReport { split, on_disk: true, stable, trial: 1, ruled: 0 };
            report.pools.get_mut(&pool()).expect("a pool").split = Some(said);
        }
    };
    assert!(!news_of("lb1", split(1), split(2)));
    let runs = |since| hook(1, HookOutcome::Running { since: ms(since) });
    assert!(!news_of("web1", runs(1), runs(2)));
}

#[test]
fn what_lasts_is_news_until_it_has_lasted_for_as_long_as_a_plan_waits() {
    assert!(news_of("web1", is(ready(1_000)), is(ready(2_999))));
    assert!(news_of("web1", is(ready(2_999)), is(ready(3_000))));
    assert!(news_of("web1", is(ready(3_000)), is(ready(10))), "it was not ready in between");
    assert!(!news_of("web1", is(ready(3_000)), is(ready(3_001))));
    assert!(news_of("web1", is(unready(59_999)), is(unready(60_000))));
    assert!(!news_of("web1", is(unready(60_000)), is(unready(60_001))));
    let open = |in_flight, out_for| member("web2", move |it| (it.in_flight, it.out_for) = (in_flight, ms(out_for)));
    assert!(news_of("lb1", open(1, 29_999), open(1, 30_000)), "its time is over");
    assert!(news_of("lb1", open(1, 10), open(0, 20)), "nothing is open any more");
    assert!(news_of("lb1", open(0, 10), open(1, 20)));
}

#[test]
fn everything_else_that_is_not_what_it_was_is_news() {
    let nothing = |_: &mut HostReport| {};
    let web: [(&str, &dyn Fn(&mut HostReport)); 14] = [
        ("the echo", &|it| it.observed.generation = Generation(99)),
        ("the boot", &|it| it.boot = "another".into()),
        ("a problem", &|it| it.problems.push(problem())),
        ("what its balancer can do", &|it| it.balancer = Some(Default::default())),
        ("an instance that is gone", &|it| it.instances.clear()),
        ("another release", &|it| it.instances.get_mut(&key()).expect("it").release = release("v1").id()),
        ("another start", &|it| it.instances.get_mut(&key()).expect("it").start += 1),
        ("another incarnation", &|it| it.instances.get_mut(&key()).expect("it").incarnation = "another".into()),
        ("an instance that failed", &is(InstanceState::Failed { problem: problem() })),
        ("an instance that is not ready", &is(unready(60_000))),
        ("an instance that stops", &is(InstanceState::Stopping { since: ms(0) })),
        ("a release that is gone", &|it| it.releases.clear()),
        ("a release it cannot have", &|it| {
            it.releases.insert(release("v2").id(), ReleaseState::Rejected { problem: problem() });
        }),
        ("a hook", &hook(1, HookOutcome::Running { since: ms(0) })),
    ];
    for (what, change) in web {
        assert!(news_of("web1", nothing, change), "{what}");
    }
    let balancer: [(&str, &dyn Fn(&mut HostReport)); 8] = [
        ("a member's state", &member("web1", |it| it.running = MemberState::Drain)),
        ("a member's state on disk", &member("web1", |it| it.on_disk = MemberState::Out)),
        ("a member's side", &member("web1", |it| it.side = Side::Trial)),
        ("a member's problem", &member("web1", |it| it.problem = Some(problem()))),
        ("a member that is gone", &|it| it.pools.get_mut(&pool()).expect("it").members.clear()),
        ("another process", &|it| it.pools.get_mut(&pool()).expect("it").balancer = "another".into()),
        ("a pool's problem", &|it| it.pools.get_mut(&pool()).expect("it").problem = Some(problem())),
        ("a split", &|it| it.pools.get_mut(&pool()).expect("it").split = Some(SplitReport::default())),
    ];
    for (what, change) in balancer {
        assert!(news_of("lb1", nothing, change), "{what}");
    }
    let ran = hook(1, HookOutcome::Succeeded { output: Vec::new() });
    assert!(news_of("web1", hook(1, HookOutcome::Running { since: ms(1) }), &ran), "a hook that ended");
    assert!(news_of("web1", &ran, hook(2, HookOutcome::Succeeded { output: Vec::new() })), "another attempt");
}

#[test]
fn whatever_a_host_says_that_was_not_there_is_news() {
    let mut world = World::parse(FLEET);
    let web1 = world.fleet.hosts.get_mut(&host("web1")).expect("a host");
    let report = web1.report().expect("it was heard").clone();
    web1.connected = false;
    assert!(is_news(&world.fleet, &host("web1"), &report), "it was silent");
    let web1 = world.fleet.hosts.get_mut(&host("web1")).expect("a host");
    (web1.connected, web1.heard) = (true, None);
    assert!(is_news(&world.fleet, &host("web1"), &report), "it was never heard");
}

fn hook(attempt: u32, state: HookOutcome) -> impl Fn(&mut HostReport) {
    let key = HookKey { service: shop(), point: Point::Migrate, of: Of::Release(release("v2").id()), host: None };
    move |report| drop(report.hooks.insert(key.clone(), HookReport { attempt, state: state.clone() }))
}
