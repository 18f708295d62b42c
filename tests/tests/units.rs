//! The packages' units, judged by systemd's own measure, without a systemd that runs.

#![allow(clippy::unwrap_used)]

use baton_tests::e2e::have;
use std::path::Path;
use std::process::Command;

/// The exposure of a unit: 0 is nothing, 10 is everything.
fn exposure(package: &str, unit: &str) -> f64 {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let unit = root.join(format!("packaging/{package}/root/usr/lib/systemd/system/{unit}.service"));
    let said =
        Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager"]).arg(unit).output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let sum = text.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_else(|| panic!("{said:?}"));
    sum.rsplit_once(": ").unwrap().1.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn the_coordinator_is_exposed_by_no_more_than_one_and_a_half() {
    if have("systemd-analyze") {
        let exposure = exposure("baton-coordinator", "baton-coordinator");
        assert!(exposure <= 1.5, "{exposure}");
    }
}

/// It starts other people's programs as other people's users, so it keeps what that needs.
#[test]
fn the_agent_keeps_no_more_than_starting_others_needs() {
    if have("systemd-analyze") {
        let exposure = exposure("baton-agent", "baton-agent");
        assert!(exposure <= 4.2, "{exposure}");
    }
}

/// It speaks with the network and may do nothing else.
#[test]
fn the_half_of_the_agent_that_faces_the_network_is_exposed_by_no_more_than_two() {
    if have("systemd-analyze") {
        let exposure = exposure("baton-agent", "baton-agent-link");
        assert!(exposure <= 2.0, "{exposure}");
    }
}
