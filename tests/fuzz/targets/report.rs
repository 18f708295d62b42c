//! Any report of a host, into a fleet in the middle of a rollout: whatever a host says, the planner plans, the interlock has no
//! objection, and planning once more changes nothing.

#![no_main]

use baton_core::fleet::report::HostReport;
use baton_core::fleet::{Fleet, Heard, Host};
use baton_core::manifest::parse;
use baton_core::name::{Digest, HostName};
use baton_core::release::Artifact;
use baton_core::rollout::command::{Command, Deploy, apply};
use baton_core::rollout::{interlock, plan::plan};
use baton_core::time::Moment;
use baton_proto::v1;
use libfuzzer_sys::Corpus;
use prost::Message;
use std::net::{IpAddr, Ipv4Addr};

const MANIFEST: &str = r#"
service = "shop"
hosts = ["web1", "web2"]
[artifact]
path = "shop-{version}.tar.zst"
[run]
command = "bin/shop --port {port}"
ports = [8101, 8102]
[health]
http = "/healthz"
[balancer]
on = ["web1"]
"#;

/// Two hosts that joined, one of them with the balancer, and a first release on its way.
fn fleet(now: Moment) -> Fleet {
    let mut fleet = Fleet::default();
    fleet.take_over();
    for name in ["web1", "web2"] {
        let host = Host { connected: true, ..Host::new(IpAddr::V4(Ipv4Addr::LOCALHOST)) };
        fleet.hosts.insert(name.parse().expect("a name"), host);
    }
    let manifest = parse("baton.toml", MANIFEST).expect("a manifest");
    let artifact = Artifact { digest: Digest::of(b"archive"), size: 7 };
    let release = manifest.release("1.0".parse().expect("a version"), artifact);
    let id = "r-1".parse().expect("an id");
    let deploy = Deploy::new(id, manifest.service.clone(), manifest.service(), release, "ana".to_owned());
    apply(&mut fleet, Command::Deploy(Box::new(deploy)), now).expect("accepted");
    plan(&fleet, now).take(&mut fleet);
    fleet
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Some((who, bytes)) = bytes.split_first() else { return Corpus::Reject };
    let Ok(Ok(report)) = v1::HostReport::decode(bytes).map(HostReport::try_from) else { return Corpus::Reject };
    let mut fleet = fleet(Moment(1_000));
    for step in 0..3 {
        let now = Moment(2_000 + step * 1_000);
        let name: HostName = if who % 2 == 0 { "web1" } else { "web2" }.parse().expect("a name");
        if let Some(host) = fleet.hosts.get_mut(&name) {
            let mut report = report.clone();
            // What a host says counts when it follows what it was told, of releases that are known; both are tried.
            if who / 2 % 2 == 0 {
                (report.observed.epoch, report.observed.generation) = (host.issued.epoch, host.issued.generation);
            }
            if let (0, Some(known)) = (who / 4 % 2, host.issued.releases.keys().next()) {
                report.instances.iter_mut().for_each(|(_, instance)| instance.release = *known);
                report.releases = report.releases.into_iter().map(|(_, state)| (*known, state)).collect();
            }
            host.heard = Some(Heard { at: now, report });
        }
        let next = plan(&fleet, now);
        if let Err(violations) = interlock::check(&fleet, &next) {
            panic!("the interlock refused what the planner wants: {violations:?}");
        }
        next.take(&mut fleet);
        assert!(!plan(&fleet, now).changes_anything(), "planning once more changes something");
    }
    Corpus::Keep
});
