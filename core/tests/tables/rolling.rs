//! Rolling releases, in both placements.

use super::check;
use super::text::{NOW, World, host};
use baton_core::problem::Code;
use baton_core::rollout::plan::plan;
use baton_core::rollout::{RolloutState, interlock};
use baton_core::time::Moment;
use std::time::Duration;

#[test]
fn a_fleet_at_rest_stays_at_rest() {
    check("in-place max=1\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n lb1", "");
}

#[test]
fn in_place_the_first_host_is_drained_before_anything_else() {
    check(
        "in-place max=1 v1->v2\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n lb1",
        "lb1 takes web1/a out\n web2 waits: waiting",
    );
}

#[test]
fn a_first_release_is_taken_back_once_the_host_has_said_that_nothing_of_it_is_left() {
    check("in-place max=1 none->v2 back evidence\n web1 a=v2:failed:out\n lb1", "web1 stops a");
    check("in-place max=1 none->v2 back evidence\n web1 behind\n lb1", "web1 waits: agent");
    check("in-place max=1 none->v2 back evidence\n web1\n lb1", "rollout reverted wave 0\n web1 holds 0 releases");
}

#[test]
fn what_was_told_in_may_serve_before_that_was_read_back_and_is_not_taken_out_as_if_it_did_not() {
    check(
        "in-place max=1 v1->v2 back evidence\n web1 a=v2:ready:in\n web2 a=v1:starting:in\n lb1 behind",
        "web1 waits: floor\n web2 waits: probe",
    );
}

#[test]
fn what_is_in_and_ready_may_serve_though_it_is_not_what_its_host_was_told_to_run() {
    use super::text::{host, release};
    let mut world = World::parse("in-place max=1 v1->v2 back evidence\n web1 a=v2:ready:in\n web2 a=v1:starting:in\n lb1");
    // A report that was overtaken, or a host that fell back: it answers requests all the same.
    let heard = world.fleet.hosts.get_mut(&host("web1")).and_then(|host| host.heard.as_mut()).expect("a report");
    heard.report.instances.iter_mut().for_each(|(_, instance)| instance.release = release("v1").id());
    let next = plan(&world.fleet, NOW);
    assert_eq!(world.tell(&next), ["web1 waits: floor", "web2 waits: probe"]);
    assert_eq!(interlock::check(&world.fleet, &next), Ok(()));
}

#[test]
fn a_watched_wave_that_cannot_be_done_any_more_is_not_waited_for_for_ever() {
    let state_once_watched_for = |watched: Duration| {
        let mut world = World::parse("in-place max=1 v1->v2\n web1 a=v2:ready:in\n web2 a=v2:ready:in\n lb1 silent");
        for rollout in world.fleet.rollouts.values_mut() {
            (rollout.wave_done, rollout.progressed) = (Some(Moment(0)), Moment(0));
            rollout.strategy.bake = watched;
            rollout.strategy.progress_deadline = Duration::from_secs(200);
        }
        plan(&world.fleet, NOW).rollouts.into_values().map(|rollout| rollout.state).next()
    };
    assert_eq!(state_once_watched_for(Duration::from_secs(700)), Some(RolloutState::Paused));
    assert_eq!(state_once_watched_for(Duration::from_secs(900)), None, "it is watched until a moment ago");
}

#[test]
fn a_host_that_gets_its_share_slowly_is_waited_for_on_the_way_forward_and_not_on_the_way_back() {
    let hosts = "web1 a=v2:ready:in:growing\n web2 a=v1:ready:in\n lb1";
    check(&format!("in-place max=1 v1->v2\n {hosts}"), "web1 waits: slow start\n web2 waits: waiting");
    // Beside it the old instance serves until the new one has all of its share.
    let both = "web1 a=v1:ready:in b=v2:ready:in:growing\n lb1";
    check(&format!("side-by-side v1->v2\n {both}"), "web1 waits: slow start");
    let back = "web1 a=v1:ready:in:growing b=v2:ready:in\n lb1";
    check(&format!("side-by-side v1->v2 back evidence\n {back}"), "lb1 takes web1/b out");
}

#[test]
fn nothing_is_drained_while_the_release_is_still_on_its_way() {
    check(
        "in-place max=1 v1->v2\n web1 a=v1:ready:in fetching=v2\n web2 a=v1:ready:in fetching=v2\n lb1",
        "web1 waits: artifact\n web2 waits: artifact",
    );
}

#[test]
fn a_request_in_flight_holds_the_old_version_up() {
    check(
        "in-place max=1 v1->v2\n web1 a=v1:ready:busy3\n web2 a=v1:ready:in\n lb1",
        "web1 waits: draining\n web2 waits: waiting",
    );
}

#[test]
fn a_drain_the_balancer_has_not_answered_is_not_a_drain() {
    check(
        "in-place max=1 v1->v2\n web1 a=v1:ready:out\n web2 a=v1:ready:in\n lb1 behind",
        "web1 waits: draining\n web2 waits: waiting",
    );
}

#[test]
fn a_drained_slot_gets_the_new_release() {
    check(
        "in-place max=1 v1->v2\n web1 a=v1:ready:out\n web2 a=v1:ready:in\n lb1",
        "web1 starts a=v2\n web2 waits: waiting",
    );
}

#[test]
fn a_host_that_has_not_answered_its_newest_spec_is_waited_for() {
    check(
        "in-place max=1 v1->v2\n web1 a=v2:ready:out behind\n web2 a=v1:ready:in\n lb1",
        "web1 waits: agent\n web2 waits: waiting",
    );
}

#[test]
fn ready_is_not_enough_before_it_was_ready_for_long_enough() {
    check(
        "in-place max=1 v1->v2\n web1 a=v2:young:out\n web2 a=v1:ready:in\n lb1",
        "web1 waits: healthy\n web2 waits: waiting",
    );
}

#[test]
fn a_proven_instance_comes_in_and_the_next_host_waits_until_that_was_read_back() {
    check(
        "in-place max=1 v1->v2\n web1 a=v2:ready:out\n web2 a=v1:ready:in\n lb1",
        "lb1 takes web1/a ready\n web2 waits: waiting",
    );
}

#[test]
fn the_next_host_begins_once_the_one_before_serves() {
    check(
        "in-place max=1 v1->v2\n web1 a=v2:ready:in\n web2 a=v1:ready:in\n web3 a=v1:ready:in\n lb1",
        "lb1 takes web2/a out\n web3 waits: waiting",
    );
}

#[test]
fn half_of_four_hosts_go_at_once_when_they_may() {
    check(
        "in-place max=50% v1->v2\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n web3 a=v1:ready:in\n web4 a=v1:ready:in\n lb1",
        "lb1 takes web1/a out\n lb1 takes web2/a out\n web3 waits: waiting\n web4 waits: waiting",
    );
}

#[test]
fn a_host_that_died_by_itself_counts_against_the_limit() {
    check(
        "in-place max=1 v1->v2\n web1 a=v1:ready:in\n web2 a=v1:unready:in silent\n lb1",
        "web1 waits: floor\n web2 waits: agent silent",
    );
}

#[test]
fn a_host_that_cannot_be_asked_is_not_counted_on_forward_and_holds_nobody_back() {
    check(
        "in-place max=1 v1->v2\n web1 a=v1:ready:in\n web2 a=v1:ready:in silent\n web3 a=v1:ready:in\n lb1",
        "web1 waits: floor\n web2 waits: agent silent\n web3 waits: floor",
    );
    check(
        "in-place max=1 back v1->v2\n web1 a=v2:ready:in\n web2 a=v1:ready:in silent\n web3 a=v1:ready:in\n lb1",
        "lb1 takes web1/a out\n web2 waits: agent silent",
    );
}

#[test]
fn what_evidence_speaks_against_goes_out_before_the_old_one_is_ready_where_enough_are_left() {
    let goes_out = |max: &str, code: u16| {
        let mut world = World::parse(&format!(
            "side-by-side max={max} v1->v2 back evidence\n web1 a=v2:ready:in b=v1:starting:out\n \
             web2 a=v1:ready:in b=v1:none:out\n lb1"
        ));
        let rollout = world.fleet.rollouts.values_mut().next().expect("a rollout");
        rollout.evidence.iter_mut().for_each(|evidence| evidence.problem.code = Code(code));
        let plan = plan(&world.fleet, NOW);
        interlock::check(&world.fleet, &plan).expect("the interlock agrees");
        plan.specs.contains_key(&host("lb1"))
    };
    assert!(goes_out("1", 901));
    assert!(!goes_out("0", 901), "nobody may be without");
    assert!(!goes_out("1", 210), "elsewhere it was not ready: here it serves");
}

#[test]
fn a_host_that_is_down_anyway_is_replaced_without_taking_anything_away() {
    check(
        "in-place max=1 v1->v2\n web1 a=v1:unready:in\n web2 a=v1:ready:in\n lb1",
        "lb1 takes web1/a out\n web2 waits: waiting",
    );
}

#[test]
fn side_by_side_the_free_slot_is_shut_before_the_new_starts_there() {
    check("side-by-side max=0 v1->v2\n web1 a=v1:ready:in\n lb1", "lb1 takes web1/b out");
}

#[test]
fn a_free_slot_is_not_started_in_before_the_balancer_said_that_it_is_out() {
    check("side-by-side max=0 v1->v2\n web1 a=v1:ready:in b=v2:none:out\n lb1 behind", "web1 waits: balancer");
}

#[test]
fn side_by_side_the_new_comes_in_before_the_old_goes_out() {
    check("side-by-side max=0 v1->v2\n web1 a=v1:ready:in b=v2:ready:out\n lb1", "lb1 takes web1/b ready");
    check("side-by-side max=0 v1->v2\n web1 a=v1:ready:in b=v2:ready:in\n lb1", "lb1 takes web1/a out");
    check("side-by-side max=0 v1->v2\n web1 a=v1:ready:out b=v2:ready:in\n lb1", "web1 stops a");
}

#[test]
fn a_rollout_succeeds_only_when_the_old_process_is_gone() {
    check("side-by-side max=0 v1->v2\n web1 a=v1:leftover:out b=v2:ready:in\n lb1", "web1 waits: stopping");
}

#[test]
fn the_second_wave_waits_for_the_first() {
    check(
        "in-place max=1 first=1 v1->v2\n web1 a=v2:starting:out\n web2 a=v1:ready:in\n lb1",
        "web1 waits: probe\n web2 waits: waiting",
    );
    check(
        "in-place max=1 first=1 v1->v2\n web1 a=v2:ready:in\n web2 a=v1:ready:in\n lb1",
        "rollout running wave 1\n lb1 takes web2/a out",
    );
}

#[test]
fn a_wave_bakes_before_the_next() {
    check(
        "in-place max=1 first=1 bake=60 v1->v2\n web1 a=v2:ready:in\n web2 a=v1:ready:in\n lb1",
        "rollout waits: bake\n web2 waits: waiting",
    );
}

#[test]
fn the_last_host_done_is_the_rollout_done() {
    check("in-place max=1 v1->v2\n web1 a=v2:ready:in\n lb1", "rollout succeeded wave 0");
}

#[test]
fn a_failed_release_turns_the_arrow_round() {
    check(
        "in-place max=1 v1->v2\n web1 a=v2:failed:out\n web2 a=v1:ready:in\n lb1",
        "rollout reverting wave 0\n web1 starts a=v1",
    );
}

#[test]
fn side_by_side_going_back_only_removes_the_failed_one() {
    check(
        "side-by-side max=0 v1->v2\n web1 a=v1:ready:in b=v2:failed:out\n web2 a=v1:ready:in\n lb1",
        "rollout reverting wave 0\n web1 stops b",
    );
}

#[test]
fn a_failure_that_only_pauses_spreads_no_further() {
    check(
        "in-place max=1 on-failure-pause v1->v2\n web1 a=v2:failed:out\n web2 a=v1:ready:in\n lb1",
        "rollout paused wave 0\n rollout waits: paused\n web1 waits: failed\n web2 waits: waiting",
    );
}

#[test]
fn a_drained_host_whose_release_failed_elsewhere_comes_back_on_the_old_one() {
    check(
        "in-place max=50% on-failure-pause evidence paused v1->v2\n web1 a=v2:failed:out\n web2 a=v1:ready:out\n web3 a=v1:ready:in\n web4 a=v1:ready:in\n lb1",
        "lb1 takes web2/a ready\n web1 waits: failed\n web3 waits: waiting\n web4 waits: waiting",
    );
}

#[test]
fn going_back_waits_for_a_silent_host_and_brings_the_others_home() {
    check(
        "in-place max=1 back v1->v2\n web1 a=v2:failed:out silent\n web2 a=v2:ready:out\n web3 a=v1:ready:in\n lb1",
        "web2 starts a=v1\n web1 waits: agent silent",
    );
}

#[test]
fn with_one_of_two_balancers_silent_nothing_is_taken_out() {
    check(
        "in-place max=1 v1->v2\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n lb1\n lb2 silent",
        "web1 waits: balancer unreachable\n web2 waits: balancer unreachable",
    );
}

#[test]
fn with_one_of_two_balancers_silent_the_new_one_starts_where_its_last_word_was_that_nothing_leads() {
    check("side-by-side max=0 v1->v2\n web1 a=v1:ready:in b=v2:none:out\n lb1\n lb2 silent", "web1 starts b=v2");
    check(
        "side-by-side max=0 v1->v2\n web1 a=v1:ready:in b=v2:none:out\n lb1\n lb2 silent behind",
        "web1 waits: balancer unreachable",
    );
    check("side-by-side max=0 v1->v2\n web1 a=v1:ready:in\n lb1\n lb2 silent", "web1 waits: balancer unreachable");
}

#[test]
fn with_one_of_two_balancers_silent_the_new_one_comes_in_and_the_old_one_stays() {
    check(
        "side-by-side max=0 v1->v2\n web1 a=v1:ready:in b=v2:ready:out\n lb1\n lb2 silent",
        "lb1 takes web1/b ready\n lb2 takes web1/b ready",
    );
    check(
        "side-by-side max=0 v1->v2\n web1 a=v1:ready:in b=v2:ready:in\n lb1\n lb2 silent",
        "web1 waits: balancer unreachable",
    );
}

#[test]
fn with_one_of_two_balancers_silent_nothing_is_switched_and_everything_goes_back() {
    let switch = |direction: &str, lb2: &str| {
        let (old, new) = if direction.is_empty() { ("in", "out") } else { ("out", "in") };
        let hosts = format!("web1 a=v1:ready:{old} b=v2:ready:{new}\n lb1\n lb2{lb2}");
        format!("side-by-side max=0 keep-old v1->v2{direction}\n {hosts}")
    };
    let forward = "lb1 takes web1/a out\n lb1 takes web1/b ready\n lb2 takes web1/a out\n lb2 takes web1/b ready";
    check(&switch("", ""), forward);
    check(&switch("", " silent"), "web1 waits: balancer unreachable");
    let back = "lb1 takes web1/a ready\n lb1 takes web1/b out\n lb2 takes web1/a ready\n lb2 takes web1/b out";
    check(&switch(" back", " silent"), back);
}

#[test]
fn a_paused_rollout_finishes_the_host_it_began_and_begins_no_other() {
    check(
        "in-place max=1 paused v1->v2\n web1 a=v2:ready:out\n web2 a=v1:ready:in\n lb1",
        "lb1 takes web1/a ready\n web2 waits: waiting",
    );
    check("in-place max=1 paused v1->v2\n web1 a=v2:ready:in\n web2 a=v1:ready:in\n lb1", "web2 waits: waiting");
}

#[test]
fn the_first_release_of_all_needs_nobody_to_make_room() {
    check("in-place max=1 none->v2\n web1\n web2\n lb1", "lb1 takes web1/a out\n lb1 takes web2/a out");
}

#[test]
fn without_a_balancer_there_is_nothing_to_drain() {
    check("in-place max=1 v1->v2\n web1 a=v1:ready\n web2 a=v1:ready", "web1 starts a=v2\n web2 waits: waiting");
}

#[test]
fn side_by_side_without_a_balancer_the_old_one_stops_once_the_new_one_is_proven() {
    check("side-by-side max=0 v1->v2\n web1 a=v1:ready", "web1 starts b=v2");
    check("side-by-side max=0 v1->v2\n web1 a=v1:ready b=v2:starting", "web1 waits: probe");
    check("side-by-side max=0 v1->v2\n web1 a=v1:ready b=v2:young", "web1 waits: healthy");
    check("side-by-side max=0 v1->v2\n web1 a=v1:ready b=v2:ready", "web1 stops a");
    check("side-by-side max=0 v1->v2\n web1 a=v1:leftover b=v2:ready", "web1 waits: stopping");
    check("side-by-side max=0 v1->v2\n web1 b=v2:ready", "rollout succeeded wave 0");
}

#[test]
fn without_a_balancer_the_next_host_waits_until_the_one_before_is_proven() {
    check("in-place max=1 v1->v2\n web1 a=v2:young\n web2 a=v1:ready", "web1 waits: healthy\n web2 waits: waiting");
    check("in-place max=1 v1->v2\n web1 a=v2:ready\n web2 a=v1:ready", "web2 starts a=v2");
}

#[test]
fn side_by_side_without_a_balancer_a_failed_release_is_removed_and_the_old_one_was_never_touched() {
    check("side-by-side max=0 v1->v2\n web1 a=v1:ready b=v2:failed", "rollout reverting wave 0\n web1 stops b");
}

#[test]
fn a_host_that_gave_the_release_up_is_not_at_rest_and_not_served_by_another_step() {
    use super::text::{NOW, World, release, shop};
    use baton_core::rollout::plan::plan;
    let mut world = World::parse("in-place max=1\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n lb1");
    let service = world.fleet.services.get_mut(&shop()).expect("a service");
    (service.committed, service.previous) = (Some(release("v2").id()), Some(release("v1").id()));
    for host in world.fleet.hosts.values_mut().filter(|host| !host.issued.instances.is_empty()) {
        let reported = host.heard.as_mut().expect("a report");
        for (key, told) in &mut host.issued.instances {
            told.release = release("v2").id();
            told.fallback = Some(release("v1").id());
            reported.report.instances.get_mut(key).expect("an instance").release = release("v2").id();
        }
        host.issued.releases =
            [release("v1"), release("v2")].map(|release| (release.id(), release.into())).into_iter().collect();
    }
    assert_eq!(world.tell(&plan(&world.fleet, NOW)), [""; 0], "what a host may fall back to is said once");
    let web1 = world.fleet.hosts.values_mut().find(|host| !host.issued.instances.is_empty()).expect("a host");
    let reported = web1.heard.as_mut().expect("a report").report.instances.iter_mut().next().expect("an instance").1;
    reported.release = release("v1").id();
    assert_eq!(world.tell(&plan(&world.fleet, NOW)), ["web1 waits: fell back"]);
}

#[test]
fn what_an_earlier_rollout_left_warm_makes_no_host_one_that_has_begun() {
    check(
        "side-by-side max=1 v1->v2\n web1 a=v3:ready:out b=v1:ready:in\n web2 a=v3:ready:out b=v1:ready:in\n lb1",
        "web1 starts a=v2\n web2 waits: waiting",
    );
}

#[test]
fn what_is_left_on_a_host_of_a_service_without_a_release_is_ended() {
    let mut world = World::parse("in-place max=1\n web1 a=v1:ready:in\n web2\n lb1");
    world.fleet.services.values_mut().for_each(|service| service.committed = None);
    let next = plan(&world.fleet, NOW);
    assert!(world.tell(&next).contains(&"lb1 takes web1/a out".to_owned()), "{:?}", world.tell(&next));
    assert_eq!(interlock::check(&world.fleet, &next), Ok(()));
}
