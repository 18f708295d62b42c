//! Whose requests a release on trial gets, wave by wave, and what balancers must be able to do for that.

use super::text::{NOW, World, host, pool, release, shop};
use baton_core::fleet::ability::{BalancerAbility, Feature, PoolServers, SplitAbility};
use baton_core::fleet::orders::Order;
use baton_core::fleet::report::PoolReport;
use baton_core::fleet::spec::PoolSpec;
use baton_core::fleet::split::Side;
use baton_core::name::{RolloutId, Slot};
use baton_core::problem::{Code, Problem};
use baton_core::rollout::command::{Deploy, objections};
use baton_core::rollout::plan::plan;
use baton_core::rollout::{Direction, RolloutState};
use baton_core::strategy::{Amount, Strategy, Wave};

/// Paused, so that nothing else happens meanwhile.
const HALF: &str = "in-place max=1 v1->v2 paused\n web1 a=v2:ready:in\n web2 a=v1:ready:in\n lb1";

fn able(world: &mut World, split: SplitAbility, driver: &str) {
    let lb1 = world.fleet.hosts.get_mut(&host("lb1")).expect("a balancer");
    let report = &mut lb1.heard.as_mut().expect("a report").report;
    report.balancer = Some(BalancerAbility { driver: driver.to_owned(), split, ..BalancerAbility::default() });
}

fn steps(strategy: &mut Strategy, shares: &[&str], rules: &[&str]) {
    let wave = |share: &&str| Wave { share: share.parse().ok(), ..Wave::of(Amount::Percent(100)) };
    strategy.waves = shares.iter().map(wave).collect();
    strategy.users.rules = rules.iter().map(|rule| rule.parse().expect("a rule")).collect();
}

/// The pool as planned (or as it was, when nothing about it changes), in one line.
fn planned(world: &World) -> String {
    let before = &world.fleet.hosts[&host("lb1")].issued;
    let plan = plan(&world.fleet, NOW);
    let pool: &PoolSpec = &plan.specs.get(&host("lb1")).unwrap_or(before).pools[&pool()];
    let trial: Vec<String> =
        pool.members.iter().filter(|(_, it)| it.side == Side::Trial).map(|(key, _)| key.to_string()).collect();
    format!("{} | {}", pool.split.as_ref().map_or("one side".to_owned(), ToString::to_string), trial.join(" "))
}

#[track_caller]
fn check(shares: &[&str], rules: &[&str], wave: usize, direction: Direction, expected: &str) {
    let mut world = World::parse(HALF);
    able(&mut world, SplitAbility::Everything, "builtin");
    let rollout = world.fleet.rollouts.values_mut().next().expect("a rollout");
    steps(&mut rollout.strategy, shares, rules);
    rollout.wave = wave;
    rollout.direction = direction;
    if direction == Direction::Back {
        rollout.state = RolloutState::Reverting;
    }
    assert_eq!(planned(&world), expected, "{shares:?} {rules:?} in wave {wave}");
}

#[test]
fn the_first_wave_with_rules_gets_their_requests_and_no_others() {
    check(&["5%", "100%"], &["header X-Beta = 1"], 0, Direction::Forward, "0%, header X-Beta = 1 | web1/0");
    check(&["5%", "100%"], &["header X-Beta = 1"], 1, Direction::Forward, "100%, header X-Beta = 1 | web1/0");
    check(&["5%", "50%", ""], &[], 0, Direction::Forward, "5% | web1/0");
}

#[test]
fn the_share_never_falls_on_the_way_and_grows_with_the_hosts() {
    check(&["5%", "75%", ""], &[], 2, Direction::Forward, "75% | web1/0");
    check(&["5%", "25%", ""], &[], 2, Direction::Forward, "50% | web1/0");
}

#[test]
fn going_back_is_one_switch_where_the_old_release_is_whole() {
    check(&["5%", "75%", ""], &["header X-Beta = 1"], 1, Direction::Back, "0% | web1/0");
}

#[test]
fn without_shares_and_rules_all_members_are_one_side() {
    check(&["", ""], &[], 0, Direction::Forward, "one side | ");
}

#[test]
fn a_balancer_that_cannot_divide_is_not_asked_to() {
    let mut world = World::parse(HALF);
    able(&mut world, SplitAbility::None, "haproxy");
    steps(&mut world.fleet.rollouts.values_mut().next().expect("a rollout").strategy, &["5%", "100%"], &[]);
    assert_eq!(planned(&world), "one side | ");
}

#[test]
fn a_wave_is_not_done_before_the_balancer_divides_as_it_was_told() {
    let mut world = World::parse("side-by-side max=1 v1->v2\n web1 a=v1:ready:out b=v2:ready:in\n web2 a=v1:ready:in\n lb1");
    let told = plan(&world.fleet, NOW);
    assert!(told.specs.contains_key(&host("web1")), "the old one is retired: {told:?}");
    let lb1 = world.fleet.hosts.get_mut(&host("lb1")).expect("a balancer");
    lb1.issued.pools.get_mut(&pool()).expect("a pool").split = Some(Default::default());
    let told = plan(&world.fleet, NOW);
    assert!(!told.specs.contains_key(&host("web1")), "{told:?}");
}

fn objected(world: &World, rules: &[&str]) -> Vec<u16> {
    objected_at(world, rules).iter().map(|problem| problem.code.0).collect()
}

fn objected_at(world: &World, rules: &[&str]) -> Vec<Problem> {
    let mut service = world.fleet.services[&shop()].clone();
    steps(&mut service.strategy, &["5%", "100%"], rules);
    let id = RolloutId::new("r-9").expect("an id");
    let deploy = Deploy::new(id, shop(), service, release("v3"), "ana".into());
    objections(&world.fleet, &deploy, NOW)
}

#[test]
fn what_a_balancer_cannot_do_is_refused_before_anything_changes() {
    let mut world = World::parse("in-place max=1\n web1 a=v1:ready:in\n lb1");
    let rules = ["header X-Beta = 1"];
    assert_eq!((objected(&world, &[]), objected(&world, &rules)), (vec![], vec![442]));
    able(&mut world, SplitAbility::None, "haproxy");
    assert_eq!((objected(&world, &[]), objected(&world, &rules)), (vec![], vec![442]));
    let prepared = [(pool(), [Feature::share(), Feature("header x-beta".to_owned())].into())];
    able(&mut world, SplitAbility::Prepared(prepared.into()), "haproxy");
    assert_eq!(objected(&world, &rules), Vec::<u16>::new());
    assert_eq!(objected(&world, &["cookie cohort = staff"]), [442]);
    able(&mut world, SplitAbility::None, "");
    assert_eq!(objected(&world, &[]), [443]);
}

#[test]
fn a_pool_that_a_balancer_says_it_does_not_have_is_refused_before_anything_changes() {
    let mut world = World::parse("in-place max=1\n web1 a=v1:ready:in\n lb1");
    for (pools, objections) in [(None, vec![]), (Some(vec![pool()]), vec![]), (Some(vec![]), vec![445])] {
        able(&mut world, SplitAbility::None, "haproxy");
        let lb1 = world.fleet.hosts.get_mut(&host("lb1")).expect("a balancer");
        let balancer = lb1.heard.as_mut().expect("a report").report.balancer.as_mut().expect("a balancer");
        balancer.pools = pools.map(|pools| pools.into_iter().collect());
        assert_eq!(objected(&world, &[]), objections);
    }
}

/// People write down which servers HAProxy has: what they forgot is not found in the middle of a rollout.
#[test]
fn a_member_without_a_server_is_found_before_anything_changes() {
    let text = |placement: &str| format!("{placement} max=1\n web1 a=v1:ready:in\n web2 b=v1:ready:in\n lb1");
    let refused = |placement: &str, stable: &[&str], trial: &[&str], prepared: bool| {
        let mut world = World::parse(&text(placement));
        world.fleet.services.get_mut(&shop()).expect("a service").ports = vec![8101, 8102];
        let split = match prepared {
            true => SplitAbility::Prepared([(pool(), [Feature::share()].into())].into()),
            false => SplitAbility::None,
        };
        able(&mut world, split, "haproxy");
        let address = |member: &&str| {
            let (name, slot) = member.split_once('/').expect("a member");
            let port = world.fleet.services[&shop()].port(Slot(slot.parse().expect("a slot"))).expect("a port");
            world.fleet.hosts[&host(name)].endpoint(port)
        };
        let side = |members: &[&str]| members.iter().map(address).collect();
        let servers = PoolServers { stable: side(stable), trial: side(trial) };
        let lb1 = world.fleet.hosts.get_mut(&host("lb1")).expect("a balancer");
        let ability = lb1.heard.as_mut().expect("a report").report.balancer.as_mut().expect("a balancer");
        ability.servers = [(pool(), servers)].into();
        let problems = objected_at(&world, &[]);
        problems.iter().map(|problem| format!("{} {:?}", problem.code.0, problem.seen)).collect::<Vec<_>>().join("; ")
    };
    let all = ["web1/0", "web1/1", "web2/0", "web2/1"];
    assert_eq!(refused("side-by-side", &all, &[], false), "");
    assert_eq!(refused("side-by-side", &all[..3], &[], false), "452 [(\"no server at\", \"127.0.0.2:8102 (web2/1)\")]");
    // In place a release starts where the one before was.
    assert_eq!(refused("in-place", &["web1/0", "web2/1"], &[], false), "");
    assert!(refused("in-place", &["web1/1", "web2/1"], &[], false).starts_with("452"));
    // On trial only where it will be asked for.
    assert_eq!(refused("in-place", &all, &all, true), "");
    let trial = "452 [(\"no server on trial at\", \"127.0.0.1:8101 (web1/0), 127.0.0.2:8102 (web2/1)\")]";
    assert_eq!(refused("in-place", &all, &[], true), trial);
}

/// Until a person mends it: nothing would come of the rollout, and half of it would be waiting for that.
#[test]
fn a_pool_that_cannot_be_changed_is_refused_before_anything_changes() {
    let mut world = World::parse("in-place max=1\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n lb1");
    able(&mut world, SplitAbility::None, "haproxy");
    let lb1 = world.fleet.hosts.get_mut(&host("lb1")).expect("a balancer");
    let sound = lb1.heard.clone();
    let mut says = |whole: Option<u16>, web2: Option<u16>, connected: bool| {
        let problem = |code: Option<u16>| code.map(|code| Problem::new(Code(code), "no"));
        let lb1 = world.fleet.hosts.get_mut(&host("lb1")).expect("a balancer");
        (lb1.heard, lb1.connected) = (sound.clone(), connected);
        let says = lb1.heard.as_mut().expect("a report").report.pools.get_mut(&pool()).expect("a pool");
        says.problem = problem(whole);
        says.members.get_mut(&"web2/0".parse().expect("a member")).expect("it is there").problem = problem(web2);
        objected(&world, &[])
    };
    assert_eq!(says(Some(432), None, true), [432]);
    assert_eq!(says(None, Some(408), true), [408]);
    // What passes by itself, or has its own words, is waited for.
    assert_eq!([says(Some(412), None, true), says(None, Some(409), true), says(Some(402), None, true)], [[0_u16; 0]; 3]);
    assert_eq!([says(Some(432), None, false), says(None, None, true)], [[0_u16; 0]; 2]);
}

/// Whoever stands aside is no part of the rollout, and what one asked for and was refused the next one does not ask for.
#[test]
fn what_does_not_concern_the_rollout_is_no_reason_to_refuse_it() {
    let mut world = World::parse("in-place max=1\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n lb1");
    able(&mut world, SplitAbility::None, "haproxy");
    let pool_of = |world: &mut World, change: &dyn Fn(&mut PoolReport)| {
        let lb1 = world.fleet.hosts.get_mut(&host("lb1")).expect("a balancer");
        change(lb1.heard.as_mut().expect("a report").report.pools.get_mut(&pool()).expect("a pool"));
    };
    let web2 = "web2/0".parse().expect("a member");
    pool_of(&mut world, &|pool| {
        pool.members.get_mut(&web2).expect("it is there").problem = Some(Problem::new(Code(408), "no"));
    });
    assert_eq!(objected(&world, &[]), [408]);
    let order = Order { by: "ana".into(), why: "a broken disk".into(), since: NOW };
    world.fleet.services.get_mut(&shop()).expect("a service").orders.skipped = [(host("web2"), order)].into();
    assert_eq!(objected(&world, &[]), [0_u16; 0]);
    pool_of(&mut world, &|pool| pool.problem = Some(Problem::new(Code(430), "no")));
    assert_eq!(objected(&world, &[]), [430]);
    let mut world = World::parse(HALF);
    able(&mut world, SplitAbility::None, "nginx");
    pool_of(&mut world, &|pool| pool.problem = Some(Problem::new(Code(430), "no")));
    assert!(!objected(&world, &[]).contains(&430));
}
