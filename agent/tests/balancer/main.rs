//! The contract of balancer drivers, run against each of them, and what only one of them has to get right.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod builtin;
mod clients;
mod contract;
mod envoy;
mod haproxy;
mod haproxy_log;
mod nginx;
mod rig;
mod split;
mod takeover;

use rig::front::Front;

macro_rules! contract {
    ($driver:ident, $make:expr, [$($name:ident),* $(,)?]) => {
        mod $driver {
            $(
                #[tokio::test]
                async fn $name() {
                    crate::contract::$name($make).await;
                }
            )*
        }
    };
    ($($driver:ident: $make:expr),* $(,)?) => {
        $(contract!($driver, $make, [
            no_request_fails_when_drained_members_are_killed,
            killed_at_any_step_the_balancer_comes_back_as_it_was,
            an_agent_that_ends_in_the_middle_of_a_pass_leaves_nothing_that_is_not_so,
            a_member_that_does_not_answer_is_never_put_in,
            nobody_goes_out_when_nobody_would_be_left,
            the_deadline_of_a_drain_cuts_and_counts,
            a_member_that_vanished_from_the_spec_goes_out,
            what_somebody_changes_by_hand_is_seen_and_set_right,
            what_somebody_changes_by_hand_is_left_alone_where_that_is_the_policy,
            two_pools_do_not_meet,
            a_connection_the_application_closed_while_idle_is_not_used,
            a_request_that_was_not_sent_goes_to_another_member,
            bodies_pass_whole,
            errors_are_counted_where_they_happen,
            weights_are_shares,
            a_member_that_comes_in_gets_its_share_slowly,
        ]);)*
    };
}

contract! {
    every_driver_builtin: |_| Some(crate::builtin()),
    every_driver_haproxy: crate::Front::haproxy,
    every_driver_nginx: crate::Front::nginx,
    every_driver_envoy: crate::Front::envoy,
    every_driver_nginx_new: crate::Front::nginx_new,
}

/// The built-in proxy of this very agent.
pub(crate) fn builtin() -> Front {
    Front::builtin(vec![env!("CARGO_BIN_EXE_baton-agent").to_owned(), "balancer".to_owned()])
}
