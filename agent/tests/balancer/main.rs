//! The contract of balancer drivers, run against each of them, and what only one of them has to get right.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod app;
mod bench;
mod builtin;
mod contract;
mod front;
mod haproxy;
mod load;
mod split;

use front::Front;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU8, Ordering};

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
            a_killed_balancer_comes_back_without_the_member_that_is_out,
            a_member_that_does_not_answer_is_never_put_in,
            the_deadline_of_a_drain_cuts_and_counts,
            a_member_that_vanished_from_the_spec_goes_out,
            a_connection_the_application_closed_while_idle_is_not_used,
            a_request_that_was_not_sent_goes_to_another_member,
            bodies_pass_whole,
            errors_are_counted_where_they_happen,
            weights_are_shares,
        ]);)*
    };
}

contract! {
    every_driver_haproxy: crate::Front::haproxy,
    every_driver_builtin: |_| Some(crate::Front::builtin()),
}

/// A free port on an address of its own, so that tests beside each other do not meet.
pub(crate) fn place() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let process = std::process::id().to_le_bytes();
    let address = Ipv4Addr::new(127, 64 | process[0] >> 2, process[1], NEXT.fetch_add(1, Ordering::SeqCst));
    let listener = TcpListener::bind((address, 0)).expect("a free port");
    listener.local_addr().expect("its address")
}
