//! The fleet's test as `cargo test` runs it: only where `BATON_REQUIRE` names `systemd`, for it takes minutes, root and packages.

use baton_tests::fleet::front::Front;
use baton_tests::fleet::life::UpArgs;
use baton_tests::fleet::trial::{TrialArgs, play};
use std::env;
use std::io::Write as _;
use std::path::PathBuf;

#[test]
fn releases_on_real_hosts_fail_no_request_and_end_by_themselves_whatever_dies() {
    if !env::var("BATON_REQUIRE").unwrap_or_default().split(',').any(|name| name.trim() == "systemd") {
        // Past the test's captured output: a skipped test must not look like one that passed.
        writeln!(
            std::io::stderr().lock(),
            "skipped: real hosts need root and some minutes; BATON_REQUIRE=systemd runs them"
        )
        .unwrap();
        return;
    }
    let packages = env::var_os("BATON_PACKAGES").map_or_else(|| PathBuf::from("../dist"), PathBuf::from);
    let fronts = vec![Front::Haproxy, Front::Nginx, Front::Envoy];
    let fleet = UpArgs { hosts: 4, fronts, balancers: None, packages };
    let summary = play(&TrialArgs { fleet, rate: 200, only: None, running: false, keep: false, json: false }).unwrap();
    assert!(summary.passed, "{summary:#?}");
}
