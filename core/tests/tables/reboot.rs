//! Reboots: hosts as they are in, who is drained, told and brought back out.
//!
//! ```text
//! web1                 serves, in its first boot
//! web1 out             drained, and nothing leads to it
//! web1 out told        and told to leave its first boot, for good
//! web1 leaving         drained by word, and requests are open there
//! web1 away out        its agent is silent
//! web1 boot2 out       in another boot
//! web1 boot2 ill       in another boot, back, and not everything serves
//! web1 held            may not go now
//! web1 stuck out       says that it could not reboot
//! web1 refuses         does not allow it
//! ```

use super::text::{self, World, host};
use baton_core::fleet::Fleet;
use baton_core::fleet::orders::{Freeze, Leaving, Maintenance, Order};
use baton_core::fleet::spec::MemberState;
use baton_core::name::HostName;
use baton_core::problem::{Code, Problem};
use baton_core::reboot::look::{NOT_REBOOTED, Seen, chosen, look};
use baton_core::reboot::plan::{Next, plan};
use baton_core::reboot::{Phase, Reboot};
use baton_core::rollout::command::{Accepted, Command, apply};
use baton_core::rollout::interlock::{self, check};
use baton_core::rollout::{self, plan::Plan};
use baton_core::time::Moment;
use baton_core::upgrade::{Paused, State};
use std::collections::BTreeMap;
use std::time::Duration;

const NOW: Moment = Moment(10_000_000);

fn reboot(hosts: usize, at_once: usize) -> Reboot {
    Reboot {
        id: "b-1".parse().expect("an id"),
        order: (1..=hosts).map(|nth| format!("web{nth}").parse().expect("a name")).collect(),
        at_once,
        back_within: Duration::from_secs(300),
        by: "ana".into(),
        why: "a kernel".into(),
        begun: Moment(0),
        ended: None,
        state: State::Active,
        courses: BTreeMap::new(),
    }
}

fn seen(text: &str) -> BTreeMap<HostName, Seen> {
    let one = |line: &str| {
        let mut words = line.split_whitespace();
        let name: HostName = words.next().expect("a name").parse().expect("a name");
        let words: Vec<&str> = words.collect();
        let has = |word: &str| words.contains(&word);
        let so = |not: bool, why: &str| if not { Err(why.to_owned()) } else { Ok(()) };
        let out = has("out") || has("leaving");
        let seen = Seen {
            connected: !has("away"),
            boot: Some(if has("boot2") { "boot2" } else { "boot1" }.to_owned()),
            in_maintenance: out,
            told: has("told").then(|| "boot1".to_owned()),
            drained: so(!has("out"), "shop: draining on lb1: 3 open"),
            serves: so(out || has("ill"), "shop: not ready"),
            may_go: so(
                has("held") || has("away"),
                "rollout r-1 of shop is under way; baton why shop says what it waits for",
            ),
            allows: if has("refuses") { Err(Problem::new(Code(567), "no")) } else { Ok(()) },
            trouble: has("stuck").then(|| Problem::new(NOT_REBOOTED, "it could not be rebooted")),
        };
        (name, seen)
    };
    text.split(',').map(str::trim).filter(|line| !line.is_empty()).map(one).collect()
}

/// Plans, checks that planning again changes nothing, and gives what is next.
#[track_caller]
fn planned_at(reboot: &Reboot, text: &str, now: Moment) -> Next {
    let seen = seen(text);
    let next = plan(reboot, &seen, now);
    let again = plan(&next.reboot, &seen, now);
    assert_eq!(again, next, "planning twice changed something for {text}");
    next
}

#[track_caller]
fn told(next: &Next) -> String {
    let mut told: Vec<String> = next.drains.iter().map(|host| format!("drain {host}")).collect();
    told.extend(next.tells.iter().map(|(host, boot)| format!("tell {host} of {boot}")));
    told.extend(next.gives_up.iter().map(|host| format!("give up {host}")));
    told.extend(next.orders.iter().map(|(host, boot)| format!("reboot {host} from {boot}")));
    told.extend(next.returns.iter().map(|host| format!("undrain {host}")));
    told.join(", ")
}

/// Plays what is seen, one line after the other, and compares what is asked for with what stands behind it.
#[track_caller]
fn plays(mut reboot: Reboot, lines: &[(&str, &str)]) -> Reboot {
    for (text, expect) in lines {
        let next = planned_at(&reboot, text, NOW);
        assert_eq!(told(&next), *expect, "for {text}: {:?}", next.stands);
        reboot = next.reboot;
    }
    reboot
}

#[test]
fn hosts_are_drained_rebooted_and_put_back_one_after_the_other() {
    let done = plays(
        reboot(2, 1),
        &[
            ("web1, web2", "drain web1"),
            ("web1 leaving, web2", ""),
            // Nobody is told before it is written down that the host stays out.
            ("web1 out, web2", "tell web1 of boot1"),
            ("web1 out told, web2", "reboot web1 from boot1"),
            ("web1 away out told, web2", "reboot web1 from boot1"),
            // An agent that is heard again before its first report: what it said last is from before.
            ("web1 out told, web2", "reboot web1 from boot1"),
            ("web1 boot2 out told, web2", "undrain web1"),
            ("web1 boot2 ill, web2", ""),
            ("web1 boot2, web2", "drain web2"),
            ("web1 boot2, web2 out told", "reboot web2 from boot1"),
            ("web1 boot2, web2 boot2 out told", "undrain web2"),
            ("web1 boot2, web2 boot2", ""),
        ],
    );
    assert_eq!((done.state, done.ended), (State::Succeeded, Some(NOW)));
}

#[test]
fn no_more_are_under_way_than_was_asked_for_and_none_begins_before_the_one_before_is_seen_to_be_out() {
    plays(
        reboot(4, 2),
        &[
            ("web1, web2, web3, web4", "drain web1"),
            ("web1, web2, web3, web4", "drain web1"),
            ("web1 leaving, web2, web3, web4", "drain web2"),
            ("web1 out, web2 out, web3, web4", "tell web1 of boot1, tell web2 of boot1"),
            ("web1 out told, web2 out told, web3, web4", "reboot web1 from boot1, reboot web2 from boot1"),
            ("web1 boot2 out told, web2 away out told, web3, web4", "reboot web2 from boot1, undrain web1"),
            ("web1 boot2 ill, web2 away out told, web3, web4", "reboot web2 from boot1"),
            ("web1 boot2, web2 away out told, web3, web4", "drain web3, reboot web2 from boot1"),
        ],
    );
}

#[test]
fn a_host_that_may_not_go_is_passed_over_and_taken_later() {
    let left = plays(
        reboot(3, 1),
        &[
            ("web1 held, web2 away, web3", "drain web3"),
            ("web1 held, web2 away, web3 out told", "reboot web3 from boot1"),
            ("web1 held, web2 away, web3 boot2 out told", "undrain web3"),
            ("web1 held, web2 away, web3 boot2", ""),
        ],
    );
    assert!(left.is_open());
    plays(left, &[("web1, web2 away, web3 boot2", "drain web1")]);
}

#[test]
fn a_host_that_people_drained_stays_drained() {
    let lines = [
        ("web1 out", "tell web1 of boot1"),
        ("web1 out told", "reboot web1 from boot1"),
        ("web1 boot2 out told", "give up web1"),
        ("web1 boot2 out", ""),
    ];
    assert_eq!(plays(reboot(1, 1), &lines).state, State::Succeeded);
}

#[test]
fn a_host_that_people_drained_and_brought_back_has_its_turn_like_the_others() {
    let lines = [
        ("web1 leaving", ""),
        // Taken by those who reboot from here on: as theirs it comes back.
        ("web1", "drain web1"),
        ("web1 out", "tell web1 of boot1"),
        ("web1 out told", "reboot web1 from boot1"),
        ("web1 boot2 out told", "undrain web1"),
    ];
    plays(reboot(1, 1), &lines);
    plays(reboot(1, 1), &[("web1 leaving", ""), ("web1 held", "")]);
}

#[test]
fn the_first_that_does_not_come_back_pauses_all_and_is_told_nothing_more() {
    let told_web1 = plays(reboot(2, 1), &[("web1, web2", "drain web1"), ("web1 out told, web2", "reboot web1 from boot1")]);
    let late = NOW + Duration::from_secs(300);
    for (text, code) in [("web1 away out told, web2", 565), ("web1 out told, web2", 565), ("web1 stuck out told, web2", 568)]
    {
        let next = planned_at(&told_web1, text, late);
        let State::Paused(Paused::Failure { host, problem }) = &next.reboot.state else { panic!("{:?}", next.reboot) };
        assert_eq!((host.as_str(), problem.code.0, told(&next).as_str()), ("web1", code, ""), "{text}");
        // It came back after all: nothing follows before somebody says so.
        let back = planned_at(&next.reboot, "web1 boot2 out told, web2", late);
        assert_eq!(told(&back), "");
        let resumed = planned_at(&back.reboot.resumed(late), "web1 boot2 out told, web2", late);
        assert_eq!(told(&resumed), "undrain web1");
        // Told once more, where it is still in the boot it was to leave.
        let again = planned_at(&next.reboot.clone().resumed(late), "web1 out told, web2", late);
        assert_eq!(told(&again), "reboot web1 from boot1");
        // Given up: whoever wants it back may bring it back.
        let cancelled = Reboot { state: State::Aborted { by: "ana".into() }, ..next.reboot.clone() };
        assert_eq!(told(&planned_at(&cancelled, "web1 out told, web2", late)), "give up web1");
    }
    let back = plays(told_web1, &[("web1 boot2 out told, web2", "undrain web1"), ("web1 boot2 ill, web2", "")]);
    let next = planned_at(&back, "web1 boot2 ill, web2", late);
    assert!(matches!(&next.reboot.state, State::Paused(Paused::Failure { problem, .. }) if problem.code == Code(566)));
}

#[test]
fn a_host_that_does_not_allow_it_any_more_is_not_told_and_comes_back_in_when_it_is_cancelled() {
    let drained = plays(reboot(2, 1), &[("web1, web2", "drain web1"), ("web1 out refuses, web2", "")]);
    assert!(matches!(drained.state, State::Paused(Paused::Failure { .. })));
    let cancelled = Reboot { state: State::Aborted { by: "ana".into() }, ..drained };
    let ended = plays(cancelled, &[("web1 out, web2", "undrain web1"), ("web1, web2", "")]);
    assert_eq!(ended.ended, Some(NOW));
}

#[test]
fn cancelled_nobody_else_begins_and_who_was_told_is_brought_back() {
    let two = plays(
        reboot(3, 2),
        &[("web1, web2, web3", "drain web1"), ("web1 out told, web2, web3", "drain web2, reboot web1 from boot1")],
    );
    let cancelled = Reboot { state: State::Aborted { by: "ana".into() }, ..two };
    let ended = plays(
        cancelled,
        &[
            ("web1 away out told, web2 leaving, web3", "reboot web1 from boot1, undrain web2"),
            ("web1 boot2 out told, web2, web3", "undrain web1"),
            ("web1 boot2, web2, web3", ""),
        ],
    );
    assert!(matches!(ended.state, State::Aborted { .. }) && !ended.is_open(), "{ended:?}");
    assert_eq!(ended.courses.values().map(|course| course.phase).collect::<Vec<_>>(), [Phase::Done, Phase::Untold]);
}

#[test]
fn paused_those_under_way_finish_and_nobody_else_begins() {
    let one = plays(reboot(2, 1), &[("web1, web2", "drain web1"), ("web1 out told, web2", "reboot web1 from boot1")]);
    let paused = Reboot { state: State::Paused(Paused::By("ana".into())), ..one };
    let rest = plays(
        paused,
        &[
            ("web1 out told, web2", "reboot web1 from boot1"),
            ("web1 boot2 out told, web2", "undrain web1"),
            ("web1 boot2, web2", ""),
        ],
    );
    plays(rest.resumed(NOW), &[("web1 boot2, web2", "drain web2")]);
}

#[test]
fn nobody_is_told_to_reboot_who_was_put_back_meanwhile_and_one_that_was_removed_is_passed() {
    let out = plays(reboot(2, 1), &[("web1, web2", "drain web1"), ("web1 out, web2", "tell web1 of boot1")]);
    plays(out.clone(), &[("web1, web2", "drain web1")]);
    let told = plays(out.clone(), &[("web1 out told, web2", "reboot web1 from boot1")]);
    plays(told, &[("web2", "drain web2")]);
    // Cancelled between the two: it is written down that it stays out, and nobody was told.
    let cancelled = Reboot { state: State::Aborted { by: "ana".into() }, ..out };
    plays(cancelled, &[("web1 out told, web2", "give up web1, undrain web1"), ("web1, web2", "")]);
}

const ALL_IN: &str = "in-place max=1\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n web3 a=v1:ready:in\n lb1";

/// What is seen of a host of a fleet.
fn look_at(fleet: &Fleet, name: &str) -> Seen {
    let name = host(name);
    look(fleet, std::slice::from_ref(&name), |_| Ok(()), text::NOW).remove(&name).expect("a host")
}

#[test]
fn a_host_may_go_while_enough_others_serve_whoever_is_down_and_no_rollout_needs_it() {
    let rolling = ALL_IN.replace("max=1", "max=1 v1->v2");
    let ill = ALL_IN.replace("web2 a=v1:ready", "web2 a=v1:unready");
    let silent = ALL_IN.replace("web2 a=v1:ready:in", "web2 a=v1:ready:in silent");
    let two_may = ill.replace("max=1", "max=2");
    for (text, name, why) in [
        (ALL_IN, "web1", ""),
        (&ill, "web1", "without are web2"),
        (&ill, "web2", ""),
        (&silent, "web1", "without are web2"),
        (&silent, "web2", "it is not connected"),
        (&two_may, "web1", ""),
        (&rolling, "web1", "rollout r-1 of shop is under way; baton why shop says what it waits for"),
        ("in-place max=1\n web1 a=v1:ready:in\n lb1", "web1", "too few hosts of shop would serve"),
    ] {
        let may_go = look_at(&World::parse(text).fleet, name).may_go;
        assert_eq!(may_go.is_ok(), why.is_empty(), "{name} of {text}: {may_go:?}");
        assert!(may_go.err().is_none_or(|said| said.contains(why)), "{name} of {text}");
    }
    let mut frozen = World::parse(ALL_IN).fleet;
    let order = Order { by: "ben".into(), why: "holidays".into(), since: text::NOW };
    frozen.freeze = Some(Freeze { order, until: None });
    assert_eq!(look_at(&frozen, "web1").may_go, Err("shop is frozen by ben: holidays".to_owned()));
}

#[test]
fn drained_and_serving_are_what_the_balancers_read_back() {
    let drained = |text: &str| {
        let mut fleet = World::parse(text).fleet;
        let order = Order { by: "ana".into(), why: "a kernel".into(), since: text::NOW };
        fleet.hosts.get_mut(&host("web1")).expect("a host").maintenance =
            Some(Maintenance { order, stop: false, reboot: None });
        look_at(&fleet, "web1")
    };
    let inside = drained(ALL_IN);
    assert_eq!((inside.drained.is_ok(), inside.serves.is_ok(), inside.in_maintenance), (false, false, true));
    let outside = drained(&ALL_IN.replace("web1 a=v1:ready:in", "web1 a=v1:ready:out"));
    assert_eq!((outside.drained, outside.serves.is_ok()), (Ok(()), false));
    let unread = drained(&ALL_IN.replace("web1 a=v1:ready:in", "web1 a=v1:ready:out").replace("lb1", "lb1 behind"));
    assert!(unread.drained.is_err(), "what the balancer was told is not what it said");
    let serves = look_at(&World::parse(ALL_IN).fleet, "web1");
    assert_eq!((serves.drained.is_ok(), serves.serves), (false, Ok(())));
    for text in ["web1 a=v1:starting:in", "web1 a=v1:ready:out", "web1 a=v1:unready:in"] {
        let seen = look_at(&World::parse(&ALL_IN.replace("web1 a=v1:ready:in", text)).fleet, "web1");
        assert!(seen.serves.is_err(), "{text}");
    }
}

#[test]
fn who_is_meant_is_who_can_be_drained_and_everybody_is_everybody_but_load_balancers() {
    let mut fleet = World::parse(ALL_IN).fleet;
    let all = chosen(&fleet, &[], text::NOW).expect("they may");
    assert_eq!(all, ["web1", "web2", "web3"].map(host));
    let code = |fleet: &Fleet, name: &str| chosen(fleet, &[host(name)], text::NOW).map_err(|problem| problem.code.0);
    assert_eq!(code(&fleet, "web2"), Ok(vec![host("web2")]));
    assert_eq!((code(&fleet, "web9"), code(&fleet, "lb1")), (Err(703), Err(712)));
    assert_eq!(code(&World::parse("in-place max=1\n web1 a=v1:ready:in\n lb1").fleet, "web1"), Err(713));
    let order = Order { by: "ben".into(), why: "holidays".into(), since: text::NOW };
    fleet.freeze = Some(Freeze { order, until: None });
    assert_eq!(code(&fleet, "web2"), Err(711));
}

/// web1 is drained, and what is said of it is so: out, read back, in its first boot.
fn drained() -> Fleet {
    let mut fleet = World::parse(&ALL_IN.replace("web1 a=v1:ready:in", "web1 a=v1:ready:out")).fleet;
    let order = Order { by: "ana".into(), why: "a kernel".into(), since: text::NOW };
    let web1 = fleet.hosts.get_mut(&host("web1")).expect("a host");
    web1.maintenance = Some(Maintenance { order, stop: false, reboot: Some(Leaving::Ahead) });
    says(&mut fleet, "boot1");
    fleet
}

fn says(fleet: &mut Fleet, boot: &str) {
    let heard = fleet.hosts.get_mut(&host("web1")).and_then(|web1| web1.heard.as_mut());
    heard.expect("it was heard").report.boot = boot.to_owned();
}

fn tell(boot: &str) -> Command {
    Command::Reboot { host: host("web1"), boot: boot.into(), by: "ana".into() }
}

fn undrain() -> Command {
    Command::Undrain { host: host("web1"), by: "ben".into() }
}

#[track_caller]
fn asks(fleet: &mut Fleet, command: Command) -> Result<Accepted, u16> {
    let before = fleet.clone();
    let said = apply(fleet, command, text::NOW);
    assert!(said.is_ok() || *fleet == before, "what is refused changes nothing");
    said.map_err(|problem| {
        assert!(problem.help.is_some(), "{problem:?}");
        problem.code.0
    })
}

/// Where a plan would have web1 in the only balancer.
fn leads_to_web1(fleet: &Fleet) -> bool {
    let plan = rollout::plan::plan(fleet, text::NOW);
    assert_eq!(check(fleet, &plan), Ok(()), "the interlock agrees");
    let spec = plan.specs.get(&host("lb1")).unwrap_or(&fleet.hosts[&host("lb1")].issued);
    spec.pools[&text::pool()].members.iter().any(|(member, it)| member.host == host("web1") && it.state != MemberState::Out)
}

#[test]
fn a_host_that_was_told_to_reboot_stays_out_until_it_says_another_boot_whoever_asks_for_it() {
    // Whoever comes first has it.
    let mut first = drained();
    assert_eq!(asks(&mut first, undrain()), Ok(Accepted::Noted));
    assert_eq!(asks(&mut first, tell("boot1")), Err(747));
    assert!(leads_to_web1(&first));

    let mut told = drained();
    assert_eq!(asks(&mut told, tell("boot1")), Ok(Accepted::Noted));
    assert_eq!(asks(&mut told, tell("boot1")), Ok(Accepted::Unchanged));
    assert_eq!(asks(&mut told, undrain()), Err(746));
    let work = Command::Drain { host: host("web1"), stop: true, reboot: false, by: "ben".into(), why: "disk".into() };
    assert_eq!(asks(&mut told, work), Err(748), "who wants to work on it is told that it comes back after the reboot");
    for heard in ["boot1", ""] {
        says(&mut told, heard);
        assert_eq!((asks(&mut told, undrain()), leads_to_web1(&told)), (Err(746), false), "in {heard:?}");
    }
    let silent = told.hosts.get_mut(&host("web1")).map(|web1| (web1.connected, web1.heard.take()));
    assert_eq!((asks(&mut told, undrain()), leads_to_web1(&told)), (Err(746), false), "it was not heard since a start");
    let web1 = told.hosts.get_mut(&host("web1")).expect("a host");
    web1.heard = silent.expect("a host").1;

    let mut back = told.clone();
    says(&mut back, "boot2");
    assert_eq!((asks(&mut back, undrain()), leads_to_web1(&back)), (Ok(Accepted::Noted), true));
    let give_up = Command::GiveUpReboot { host: host("web1"), by: "ana".into() };
    assert_eq!(asks(&mut told, give_up), Ok(Accepted::Noted));
    assert_eq!((leads_to_web1(&told), asks(&mut told, undrain()), leads_to_web1(&told)), (false, Ok(Accepted::Noted), true));
}

#[test]
fn a_host_is_told_only_while_nothing_leads_to_it_by_two_opinions() {
    let refusals = [
        ("web1 a=v1:ready:in", "lb1", "boot1", 2),
        ("web1 a=v1:ready:out", "lb1 behind", "boot1", 2),
        ("web1 a=v1:ready:out", "lb1 silent", "boot1", 2),
        ("web1 a=v1:ready:out", "lb1", "boot0", 0),
        ("web1 a=v1:ready:out silent", "lb1", "boot1", 0),
    ];
    for (web1, lb1, boot, invariant) in refusals {
        let text = ALL_IN.replace("web1 a=v1:ready:in", web1).replace("lb1", lb1);
        let mut fleet = World::parse(&text).fleet;
        fleet.hosts.get_mut(&host("web1")).expect("a host").maintenance = drained().hosts[&host("web1")].maintenance.clone();
        says(&mut fleet, "boot1");
        let alone = interlock::reboot(&fleet, &host("web1")).map_err(|violation| violation.invariant);
        assert_eq!(alone, if invariant == 0 { Ok(()) } else { Err(invariant) }, "{text}");
        assert_eq!(asks(&mut fleet, tell(boot)), Err(747), "{text}");
    }
}

#[test]
fn the_interlock_refuses_to_lead_anything_to_a_host_that_was_told_to_reboot() {
    let mut fleet = drained();
    asks(&mut fleet, tell("boot1")).expect("it may");
    let mut plan = Plan::default();
    let mut spec = fleet.hosts[&host("lb1")].issued.clone();
    spec.generation = spec.generation.next();
    let pool = spec.pools.get_mut(&text::pool()).expect("its pool");
    pool.members
        .iter_mut()
        .filter(|(member, _)| member.host == host("web1"))
        .for_each(|(_, it)| it.state = MemberState::Ready);
    plan.specs.insert(host("lb1"), spec);
    let refused = |fleet: &Fleet| check(fleet, &plan).err().map(|all| all.iter().map(|it| it.invariant).collect::<Vec<_>>());
    assert_eq!(refused(&fleet), Some(vec![3]));
    says(&mut fleet, "boot2");
    assert_eq!(refused(&fleet), None);
}
