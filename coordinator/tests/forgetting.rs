//! Releases that the coordinator has forgotten: everybody who asks for one is answered as if it had not.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod site;

use baton_core::fleet::hooks::{HookOutcome, HookReport};
use baton_core::fleet::past::Remembers;
use baton_core::fleet::report::HostReport;
use baton_core::problem::{Code, Problem};
use baton_proto::problem::from_status;
use baton_proto::v1::control_client::ControlClient;
use baton_proto::v1::{DeployRequest, HistoryRequest, RollbackRequest, ServiceRequest};
use site::{Line, Site, deploy, obeyed, rollout_state, until, upload, wish};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tonic::transport::Channel;

/// An agent that does at once what it is told, and counts the hooks it ran.
fn obey(channel: Channel) -> Arc<AtomicUsize> {
    let ran = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&ran);
    tokio::spawn(async move {
        let mut line = Line::open(&channel).await.unwrap();
        let mut known = std::collections::BTreeMap::new();
        while let Ok(spec) = line.spec().await {
            for (key, told) in &spec.hooks {
                if known.insert(key.clone(), told.attempt) != Some(told.attempt) {
                    counted.fetch_add(1, Ordering::SeqCst);
                }
            }
            let good = || HookOutcome::Succeeded { output: Vec::new() };
            let hooks = spec.hooks.iter();
            let hooks = hooks.map(|(key, it)| (key.clone(), HookReport { attempt: it.attempt, state: good() }));
            line.report(&HostReport { hooks: hooks.collect(), ..obeyed(&spec) }).await;
        }
    });
    ran
}

fn release(version: &str, hook: &str) -> DeployRequest {
    let wish = wish(&["web1"], version, b"an archive");
    let manifest = wish.manifest.replace("ports = [8101]\n", "ports = [8101, 8102]\n");
    DeployRequest { manifest: format!("{manifest}[rollout]\nbake = \"0s\"\n{hook}"), ..wish }
}

async fn brought(admin: &Channel, wish: DeployRequest) {
    let id = deploy(admin, wish).await.unwrap();
    ended(admin, &id).await;
}

async fn ended(admin: &Channel, id: &str) {
    let is_it = |view: &baton_proto::v1::FleetView| {
        view.services.first().and_then(|service| service.rollout.as_ref()).is_some_and(|rollout| rollout.id == id)
    };
    until(admin, |view| is_it(view) && rollout_state(view) == "succeeded").await;
}

async fn back(admin: &Channel, version: &str) -> Result<String, Problem> {
    let request = RollbackRequest { service: "shop".into(), version: version.into(), ..RollbackRequest::default() };
    let reply = ControlClient::new(admin.clone()).rollback(request).await.map_err(|status| from_status(&status))?;
    Ok(reply.into_inner().rollout)
}

#[tokio::test]
async fn a_forgotten_release_is_found_by_everybody_who_asks_for_it() {
    const MIGRATES: &str = "[hooks]\nmigrate = { command = \"bin/migrate\", timeout = \"9s\" }\n";
    const FOR_EVER: &str = "[hooks]\nmigrate = { command = \"bin/migrate\", timeout = \"9s\", no_way_back = true }\n";
    let site = Site::new().await;
    let admin = &site.admin;
    let ran = obey(site.dial(&site.member("host", "web1").await));
    upload(admin, b"an archive", 0).await.unwrap();
    brought(admin, release("1.0", "")).await;
    brought(admin, release("2.0", MIGRATES)).await;
    brought(admin, release("3.0", FOR_EVER)).await;
    brought(admin, release("4.0", MIGRATES)).await;
    let more = Remembers::default().0 + 3;
    for nth in 1..=more {
        brought(admin, release(&format!("5.{nth}"), "")).await;
    }
    assert_eq!(ran.load(Ordering::SeqCst), 3);
    let mut control = ControlClient::new(admin.clone());

    let all = control.list_releases(ServiceRequest { service: "shop".into(), ..ServiceRequest::default() }).await;
    let versions: Vec<String> = all.unwrap().into_inner().releases.into_iter().map(|release| release.version).collect();
    assert_eq!(versions.len(), more + 4);
    assert_eq!(versions[more..], ["4.0", "3.0", "2.0", "1.0"]);
    let history = control.history(HistoryRequest { limit: 100, ..HistoryRequest::default() }).await.unwrap().into_inner();
    let named: Vec<(String, String)> = history
        .rollouts
        .into_iter()
        .rev()
        .filter_map(|record| record.rollout)
        .take(3)
        .map(|rollout| (rollout.from_version, rollout.to_version))
        .collect();
    let named: Vec<(&str, &str)> = named.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
    assert_eq!(named, [("", "1.0"), ("1.0", "2.0"), ("2.0", "3.0")]);

    let refused = |planned: baton_proto::v1::PlanView| planned.problems.iter().map(|it| it.code).collect::<Vec<_>>();
    assert_eq!(refused(control.plan(release("2.0", MIGRATES)).await.unwrap().into_inner()), [805]);
    assert_eq!(refused(control.plan(release("4.0", MIGRATES)).await.unwrap().into_inner()), [0; 0]);
    assert_eq!(deploy(admin, release("2.0", MIGRATES)).await.unwrap_err().code, Code(805));
    assert_eq!(back(admin, "1.0").await.unwrap_err().code, Code(805));
    assert_eq!(back(admin, "0.9").await.unwrap_err().code, Code(721));

    let id = back(admin, "3.0").await.unwrap();
    ended(admin, &id).await;
    brought(admin, release("4.0", MIGRATES)).await;
    assert_eq!(ran.load(Ordering::SeqCst), 3, "what is run once was not run again");
}
