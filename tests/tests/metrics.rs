//! Prometheus' own checker reads what the coordinator says.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use baton_coordinator::api::view;
use baton_coordinator::driver::Picture;
use baton_coordinator::metrics::fleet::metrics;
use baton_core::manifest::parse;
use baton_core::time::Moment;
use baton_tests::e2e::have;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

const MANIFEST: &str = "service = \"shop\"
hosts = [\"web1\", \"web2\"]
[artifact]
path = \"shop-{version}.tar.zst\"
[run]
command = \"bin/shop\"
ports = [8101, 8102]
[health]
tcp = true
[balancer]
on = [\"lb1\"]
";

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    if !have("promtool") {
        return;
    }
    let mut picture = Picture::default();
    let service = parse("baton.toml", MANIFEST).unwrap().service();
    picture.fleet.services.insert("shop".parse().unwrap(), service);
    let text = metrics(&picture, &view::fleet(&picture, &BTreeMap::new(), Moment(0), None), Moment(0));
    let mut promtool = Command::new("promtool");
    let promtool = promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut checking = promtool.spawn().unwrap();
    checking.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = checking.wait_with_output().unwrap();
    let words = [said.stdout, said.stderr].concat();
    assert!(said.status.success() && words.is_empty(), "{}\n{text}", String::from_utf8_lossy(&words));
}
