//! The way to the coordinator, and the coordinator itself.

use super::{Check, mends, now, told};
use crate::connection::{ConnectArgs, Connection, channel};
use baton_proto::problem::from_status;
use baton_proto::v1::enrollment_client::EnrollmentClient;
use baton_proto::v1::{GreetRequest, Greeting, WhoAmIRequest};
use baton_proto::{PROTOCOL, understands};
use std::time::Duration;

/// How far two clocks may be apart before people wonder, and before certificates fail.
const CLOCKS: i64 = 5;
const CLOCKS_TOO_FAR: i64 = 120;

const PATIENCE: Duration = Duration::from_secs(8);

/// The questions, and the connection for those that come after.
pub(super) async fn checks(connect: &ConnectArgs) -> (Option<(Connection, String)>, Vec<Check>) {
    const NAMES: [&str; 5] = ["way to the coordinator", "clocks", "protocol", "version", "role"];
    let unreachable = |first: Check| {
        let rest = NAMES[1..].iter().map(|name| Check::skipped(name, "the coordinator was not reached"));
        (None, std::iter::once(first).chain(rest).collect())
    };
    let (way, mut connection) = match channel(connect).and_then(|way| Ok((way, Connection::open(connect)?))) {
        Ok(opened) => opened,
        Err(problem) => {
            return unreachable(Check::warning(NAMES[0], told(&problem), mends(&problem)));
        }
    };
    let greeted = tokio::time::timeout(PATIENCE, EnrollmentClient::new(way).greet(GreetRequest {})).await;
    let greeting = match greeted {
        Ok(Ok(greeting)) => greeting.into_inner(),
        Ok(Err(status)) => {
            let problem = from_status(&status);
            return unreachable(Check::bad(NAMES[0], told(&problem), mends(&problem)));
        }
        Err(_) => return unreachable(Check::bad(NAMES[0], "no answer in time", "systemctl status baton-coordinator")),
    };
    let mut checks = vec![Check::good(NAMES[0], "it answers")];
    checks.extend(versions(&greeting, now()));
    match connection.control.who_am_i(WhoAmIRequest {}).await {
        Ok(me) => {
            let me = me.into_inner();
            checks.push(Check::good(NAMES[4], format!("{} ({})", me.name, me.role)));
            (Some((connection, me.role)), checks)
        }
        Err(status) => {
            let problem = from_status(&status);
            checks.push(Check::bad(NAMES[4], told(&problem), mends(&problem)));
            (None, checks)
        }
    }
}

fn versions(greeting: &Greeting, now: i64) -> [Check; 3] {
    let mine = env!("CARGO_PKG_VERSION");
    let apart = greeting.clock_seconds.saturating_sub(now).abs();
    let clocks = match apart {
        0..=CLOCKS => Check::good("clocks", format!("{apart} s apart")),
        ..=CLOCKS_TOO_FAR => {
            Check::warning("clocks", format!("{apart} s apart"), "timedatectl set-ntp true on both machines")
        }
        _ => Check::bad(
            "clocks",
            format!("{apart} s apart"),
            "timedatectl set-ntp true on both machines: certificates have dates",
        ),
    };
    let protocol = match understands(greeting.protocol) {
        true => Check::good("protocol", format!("{} here, {} there", PROTOCOL, greeting.protocol)),
        false => {
            Check::bad("protocol", format!("{} here, {} there", PROTOCOL, greeting.protocol), "upgrade the older of the two")
        }
    };
    let version = match greeting.coordinator_version == mine {
        true => Check::good("version", mine),
        false => Check::warning(
            "version",
            format!("{mine} here, {} at the coordinator", greeting.coordinator_version),
            "install the same version on both machines",
        ),
    };
    [clocks, protocol, version]
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn clocks_versions_and_protocols_that_are_apart_are_said() {
        let greeting = |clock_seconds, protocol, version: &str| Greeting {
            clock_seconds,
            protocol,
            oldest_protocol: 1,
            coordinator_version: version.to_owned(),
            identity: "admin/ana".to_owned(),
        };
        let states = |greeting: &Greeting| versions(greeting, 1_000).map(|check| check.state);
        let mine = env!("CARGO_PKG_VERSION");
        assert_eq!(states(&greeting(1_002, PROTOCOL, mine)), [State::Good; 3]);
        assert_eq!(states(&greeting(1_030, PROTOCOL + 1, "9.9")), [State::Warning, State::Good, State::Warning]);
        assert_eq!(states(&greeting(1_000 - 31_536_000, PROTOCOL + 2, mine)), [State::Bad, State::Bad, State::Good]);
    }
}
