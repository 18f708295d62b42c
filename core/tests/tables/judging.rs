//! What is judged in which strategy: a strategy is a value, and each comes from a manifest here.

use super::text::{NOW, World, shop};
use baton_core::analysis::counts::Counts;
use baton_core::analysis::history::Summary;
use baton_core::analysis::judgement::{Judgement, Settings};
use baton_core::analysis::meters::{Traffic, Whose};
use baton_core::analysis::settings::{GateSettings, GuardSettings, NotEnough};
use baton_core::fleet::MemberKey;
use baton_core::fleet::report::InstanceState;
use baton_core::fleet::spec::Restart;
use baton_core::manifest;
use baton_core::name::HostName;
use baton_core::problem::{Code, Problem};
use baton_core::rollout::command::{Command, apply};
use baton_core::rollout::gate::answers_alone;
use baton_core::rollout::plan::plan;
use baton_core::rollout::{Rollout, RolloutState, interlock};
use baton_core::strategy::Strategy;
use baton_core::time::Moment;
use std::collections::BTreeMap;
use std::time::Duration;

const MANIFEST: &str = r#"service = "shop"
hosts   = ["web1", "web2"]

[artifact]
path = "shop-{version}.tar.zst"

[health]
tcp = true
"#;

const ONE_PORT: &str = "[run]\ncommand = \"bin/shop\"\nports = [8101]\n";
const TWO_PORTS: &str = "[run]\ncommand = \"bin/shop\"\nports = [8101, 8102]\n";
const LISTENS: &str = "[run]\ncommand = \"bin/shop\"\nports = [8101, 8102]\nlisten = [\"0.0.0.0:8100\"]\n";
const BALANCED: &str = "[balancer]\non = [\"lb1\"]\npool = \"shop\"\n";

const IN_PLACE: &str = "in-place v1->v2\n web1 a=v2:ready:in\n web2 a=v1:ready:in\n lb1";
const BESIDE: &str = "side-by-side v1->v2\n web1 a=v1:ready:out b=v2:ready:in\n web2 a=v1:ready:in b=v2:ready:out\n lb1";
const SWITCHED: &str = "side-by-side v1->v2\n web1 a=v1:ready:out b=v2:ready:in\n web2 a=v1:ready:out b=v2:ready:in\n lb1";
const BESIDE_NO_MORE: &str = "side-by-side v1->v2\n web1 b=v2:ready:in\n web2 b=v2:ready:in\n lb1";
const FIRST_HOST: &str = "side-by-side v1->v2\n web1 b=v2:ready:in\n web2 a=v1:ready:in\n lb1";
const REPLACED: &str = "in-place v1->v2\n web1 a=v2:ready:in\n web2 a=v2:ready:in\n lb1";
const HANDED_OVER: &str = "side-by-side v1->v2\n web1 b=v2:ready\n web2 a=v1:ready";

struct Case {
    name: &'static str,
    rollout: &'static str,
    run: &'static str,
    balanced: bool,
    /// In the middle of it, where both releases answer if they ever do.
    world: &'static str,
    /// Its first wave is done.
    done: &'static str,
    /// Whether both releases answer at the same time: then what load balancers count is compared.
    compares: bool,
}

/// Every strategy that a manifest has a word for, in each placement it may have.
const CASES: [Case; 7] = [
    Case {
        name: "rolling in place",
        rollout: "",
        run: ONE_PORT,
        balanced: true,
        world: IN_PLACE,
        done: REPLACED,
        compares: true,
    },
    Case {
        name: "rolling side by side",
        rollout: "",
        run: TWO_PORTS,
        balanced: true,
        world: BESIDE,
        done: BESIDE_NO_MORE,
        compares: true,
    },
    Case {
        name: "canary by hosts",
        rollout: "strategy = \"canary\"\nsteps = [\"1 host for 5m\", \"100%\"]",
        run: TWO_PORTS,
        balanced: true,
        world: BESIDE,
        done: FIRST_HOST,
        compares: true,
    },
    Case {
        name: "canary by share",
        rollout: "strategy = \"canary\"\nsteps = [\"5% for 5m\", \"100%\"]",
        run: TWO_PORTS,
        balanced: true,
        world: BESIDE,
        done: FIRST_HOST,
        compares: true,
    },
    Case {
        name: "blue-green",
        rollout: "strategy = \"blue-green\"\nbake = \"5m\"",
        run: TWO_PORTS,
        balanced: true,
        world: SWITCHED,
        done: SWITCHED,
        compares: false,
    },
    Case {
        name: "recreate",
        rollout: "strategy = \"recreate\"\nbake = \"5m\"",
        run: ONE_PORT,
        balanced: true,
        world: REPLACED,
        done: REPLACED,
        compares: false,
    },
    // Nobody counts there, unless the instances do: what is seen are instances that end, and memory.
    Case {
        name: "hand-over",
        rollout: "placement = \"handover\"",
        run: LISTENS,
        balanced: false,
        world: HANDED_OVER,
        done: HANDED_OVER,
        compares: false,
    },
];

impl Case {
    fn strategy(&self, more: &str) -> Strategy {
        let balanced = if self.balanced { BALANCED } else { "" };
        let text = format!("{MANIFEST}\n{}\n{balanced}\n[rollout]\n{}\n{more}", self.run, self.rollout);
        let parsed = manifest::parse("baton.toml", &text);
        parsed.unwrap_or_else(|found| panic!("{}: {}", self.name, found[0].render())).strategy
    }

    /// The fleet in a rollout of this strategy.
    fn world(&self, world: &str, more: &str) -> World {
        let (mut world, strategy) = (World::parse(world), self.strategy(more));
        world.fleet.services.get_mut(&shop()).expect("the service").strategy = strategy.clone();
        self.rollout(&mut world).strategy = strategy;
        world
    }

    fn rollout<'a>(&self, world: &'a mut World) -> &'a mut Rollout {
        world.fleet.rollouts.values_mut().next().expect(self.name)
    }
}

/// What becomes of the rollout: its state, and the codes of what speaks against the new release.
fn planned(world: &World) -> (RolloutState, Vec<u16>) {
    let next = plan(&world.fleet, NOW);
    assert_eq!(interlock::check(&world.fleet, &next), Ok(()));
    let rollout = next.rollouts.values().next().or(world.fleet.rollouts.values().next()).expect("a rollout");
    (rollout.state, rollout.evidence.iter().map(|evidence| evidence.problem.code.0).collect())
}

/// A look at a new release that fails half of its requests, beside an old one that fails none, or alone.
fn failing(beside: bool) -> Traffic {
    let slot = |whose, member: &str, errors| ((whose, member.parse::<MemberKey>().expect("a key")), Counts::new(40, errors));
    let old = beside.then(|| slot(Whose::Old, "web2/0", 0));
    Traffic { slots: old.into_iter().chain([slot(Whose::New, "web1/1", 20)]).collect(), ..Traffic::default() }
}

#[test]
fn every_strategy_is_guarded_unless_the_manifest_says_how_and_gated_where_it_asks() {
    let gate = "[gate]\nrule_out = \"+2%\"\n";
    let guard = "[guard]\nconfidence = \"95%\"\ntolerance = \"2x\"\nmemory = false\n";
    for case in &CASES {
        let plain = case.strategy("");
        assert_eq!((plain.guard, plain.gate), (GuardSettings::default(), None), "{}", case.name);
        let told = case.strategy(guard).guard;
        assert_eq!((told.alpha_ppm, told.ratio_percent, told.memory), (50_000, 200, false), "{}", case.name);
        if case.balanced {
            let asked = case.strategy(gate).gate;
            let max_wait = Duration::from_secs(1800);
            let expect = GateSettings { rule_out_ppm: 20_000, max_wait, on_not_enough_data: NotEnough::Pause };
            assert_eq!(asked, Some(expect), "{}", case.name);
        }
    }
}

#[test]
fn failures_of_the_new_release_take_it_back_in_every_strategy_beside_the_old_one_and_alone_by_what_that_did_before() {
    for case in &CASES {
        for known in [true, false] {
            let mut world = case.world(case.world, "");
            let under_way = case.rollout(&mut world).clone();
            let alone = answers_alone(&world.fleet, &under_way, NOW);
            assert_eq!(alone, !case.compares && case.balanced, "{}", case.name);
            let rollout = case.rollout(&mut world);
            let (requests, slots) = if known { (9_000, 300) } else { (0, 0) };
            let before = Summary { counts: Counts::new(requests, 0), slots, polls: slots, phi: 1.0 };
            rollout.judgement = Judgement::begin(&before, None);
            let guard = rollout.strategy.guard;
            let settings = Settings { guard: &guard, gate: None, on_trial: true, alone };
            (0..10).for_each(|look| rollout.judgement.look(settings, &failing(case.compares), Moment(look * 2000)));
            let compared = case.compares || alone && known;
            let expect = if compared { (RolloutState::Reverting, vec![901]) } else { (RolloutState::Running, vec![]) };
            assert_eq!(planned(&world), expect, "{} {known}", case.name);
        }
    }
}

#[test]
fn an_instance_of_the_new_release_that_ends_in_mid_rollout_is_evidence_at_once_in_every_strategy_and_not_started_again() {
    for case in &CASES {
        // It was ready, and answered: then it ended. What is on trial is not started again beneath what is judged.
        let mut world = case.world(case.world, "");
        let new = case.rollout(&mut world).to;
        assert_eq!(planned(&world), (RolloutState::Running, vec![]), "{}", case.name);
        let web = world.fleet.hosts.get_mut(&"web1".parse().expect("a name")).expect("a host");
        let issued = web.issued.instances.values().filter(|instance| instance.release == new);
        assert!(issued.clone().count() > 0 && issued.clone().all(|it| it.restart == Restart::Never), "{}", case.name);
        for (_, instance) in web.heard.as_mut().expect("a report").report.instances.iter_mut() {
            if instance.release == new {
                instance.state = InstanceState::Failed { problem: Problem::new(Code(206), "exited with 7") };
            }
        }
        assert_eq!(planned(&world), (RolloutState::Reverting, vec![206]), "{}", case.name);
    }
}

#[test]
fn the_gate_of_every_strategy_pauses_without_traffic_and_says_what_is_missing() {
    for case in CASES.iter().filter(|case| case.balanced) {
        let mut world = case.world(case.done, "[gate]\nrule_out = \"+1%\"\nmax_wait = \"1m\"\n");
        let rollout = case.rollout(&mut world);
        let since = Moment(NOW.0 - 400_000);
        (rollout.wave_done, rollout.progressed) = (Some(since), since);
        let next = plan(&world.fleet, NOW);
        let rollout = next.rollouts.values().next().expect(case.name);
        let why = rollout.pause.as_ref().map(|pause| pause.why.clone()).unwrap_or_default();
        assert_eq!(rollout.state, RolloutState::Paused, "{}: {:?}", case.name, world.tell(&next));
        assert!(
            why.contains("not enough data: has 0 of") && why.ends_with("; baton promote shop takes it so"),
            "{}: {why}",
            case.name
        );
        let paused = rollout.clone();
        world.fleet.rollouts.insert(paused.id.clone(), paused);
        let promote = Command::Promote { service: shop(), by: "ana".into() };
        apply(&mut world.fleet, promote, NOW).unwrap_or_else(|refused| panic!("{}: {refused}", case.name));
        let next = plan(&world.fleet, NOW);
        let rollout = next.rollouts.values().next().expect(case.name);
        assert!(
            rollout.pause.is_none() && !matches!(rollout.state, RolloutState::Paused),
            "{}: {:?}",
            case.name,
            rollout.pause
        );
    }
}

#[test]
fn where_proof_is_required_a_rollout_does_not_end_well_while_a_member_is_gone_from_the_counters_and_says_which() {
    let case = &CASES[0];
    let ends = |gone_at_last: bool| {
        let mut world = case.world(case.done, "[proof]\nmax_failed = 0\n");
        let rollout = case.rollout(&mut world);
        (rollout.wave_done, rollout.progressed) = (Some(NOW), NOW);
        let settings = Settings { guard: &GuardSettings::default(), gate: None, on_trial: true, alone: false };
        let lb: HostName = "lb1".parse().expect("a name");
        for (at, is_gone) in [(0, true), (3000, gone_at_last)] {
            let slot = ((Whose::New, "web1/0".parse().expect("a key")), Counts::new(9, 0));
            let gone = is_gone.then(|| (lb.clone(), BTreeMap::from([("web2/0".parse().expect("a key"), Moment(0))])));
            let unread = BTreeMap::from([(lb.clone(), None)]);
            let traffic = Traffic { slots: [slot].into(), unread, gone: gone.into_iter().collect(), ..Traffic::default() };
            rollout.judgement.look(settings, &traffic, Moment(at));
        }
        let next = plan(&world.fleet, NOW);
        let rollout = next.rollouts.into_values().next().expect(case.name);
        (rollout.state, rollout.pause.map(|pause| pause.why))
    };
    let why = "lb1 no longer says what web2/0 answered, for 3s, so nothing is proven; baton promote shop takes it so";
    assert_eq!(ends(true), (RolloutState::Paused, Some(why.to_owned())));
    assert_eq!(ends(false), (RolloutState::Succeeded, None), "it came back, and nothing was missed");
}

#[test]
fn what_fails_in_the_last_bake_of_a_release_that_was_compared_asks_a_person_once() {
    let case = &CASES[0];
    let mut world = case.world(case.done, "bake = \"5m\"\n");
    let rollout = case.rollout(&mut world);
    (rollout.wave_done, rollout.progressed) = (Some(NOW), NOW);
    let guard = rollout.strategy.guard;
    let settings = Settings { guard: &guard, gate: None, on_trial: true, alone: false };
    let slot = |whose, member: &str, errors| ((whose, member.parse::<MemberKey>().expect("a key")), Counts::new(60, errors));
    for look in 0..60 {
        let beside = (look < 30).then(|| slot(Whose::Old, "web2/0", 0));
        let slots = beside.into_iter().chain([slot(Whose::New, "web1/0", if look < 30 { 0 } else { 30 })]).collect();
        let traffic = Traffic { slots, ..Traffic::default() };
        rollout.judgement.look(Settings { alone: look >= 30, ..settings }, &traffic, Moment(look * 2000));
    }
    let next = plan(&world.fleet, NOW);
    assert_eq!(interlock::check(&world.fleet, &next), Ok(()));
    let paused = next.rollouts.into_values().next().expect("a rollout");
    let why = paused.pause.as_ref().map(|pause| pause.why.clone()).unwrap_or_default();
    assert!(paused.state == RolloutState::Paused && why.ends_with("an incident would look the same"), "{why}");
    world.fleet.rollouts.insert(paused.id.clone(), paused);
    apply(&mut world.fleet, Command::Resume { service: shop(), by: "ana".into() }, NOW).expect("it goes on");
    assert_eq!(planned(&world), (RolloutState::Running, vec![]));
}

/// By somebody who knows of it: else there would be no way on but back.
#[test]
fn what_failed_too_often_is_not_held_against_a_rollout_that_is_tried_again() {
    let case = &CASES[0];
    let mut world = case.world(case.done, "on_failure = \"pause\"\nbake = \"5m\"\n[proof]\nmax_failed = 1\n");
    let rollout = case.rollout(&mut world);
    (rollout.wave_done, rollout.progressed) = (Some(NOW), NOW);
    let fails = |world: &mut World, number: u64| {
        let rollout = world.fleet.rollouts.values_mut().next().expect("a rollout");
        rollout.judgement.proof.new += Counts::new(10 * number, number);
        let next = plan(&world.fleet, NOW);
        assert_eq!(interlock::check(&world.fleet, &next), Ok(()));
        world.fleet.rollouts.extend(next.rollouts);
        let rollout = world.fleet.rollouts.values().next().expect("a rollout");
        rollout.pause.as_ref().map(|pause| pause.why.clone())
    };
    assert_eq!(fails(&mut world, 1), None, "as many may");
    assert_eq!(fails(&mut world, 1).as_deref(), Some("2 requests failed, and the manifest allows 1 on web1"));
    let retry = Command::Retry { id: "r-2".parse().expect("an id"), service: shop(), host: None, by: "ana".into() };
    apply(&mut world.fleet, retry, NOW).expect("it is tried again");
    assert_eq!(fails(&mut world, 1), None);
    let why = "2 requests failed, after 2 before the retry, and the manifest allows 1 on web1";
    assert_eq!(fails(&mut world, 1).as_deref(), Some(why));
}
