//! Whoever deploys while parts of the fleet die: asks again where nobody answered, as people and pipelines do.

use super::point::Ended;
use anyhow::bail;
use baton_cli::demo::stage::SERVICE;
use baton_cli::demo::stage::control::Control;
use baton_cli::render::page::Look;
use baton_cli::render::why;
use baton_core::problem::{Code, Problem};
use baton_proto::problem::code;
use baton_proto::v1::{FleetView, ServiceView};
use std::time::Duration;

const ASK_AGAIN: Duration = Duration::from_millis(10);

/// What an operator brings.
#[derive(Debug)]
pub(super) struct Release<'a> {
    pub(super) manifest: &'a str,
    pub(super) version: &'a str,
    pub(super) archive: &'a [u8],
}

/// Deploys and waits until the rollout has ended or paused. Without a bound of its own: the caller has one.
pub(super) async fn deploy(control: &Control, release: &Release<'_>) -> anyhow::Result<Ended> {
    let rollout = loop {
        match control.deploy(release.manifest, release.version, release.archive).await {
            Ok(rollout) => break rollout,
            Err(problem) if is_unheard(&problem) => tokio::time::sleep(ASK_AGAIN).await,
            Err(problem) => bail!("the deploy was refused: {problem:?}"),
        }
    };
    loop {
        // Where the answer was lost and it is live by now, the release was not asked for again.
        let is_it = |service: &ServiceView| {
            let rollout_of = service.rollout.as_ref();
            rollout_of.is_some_and(|it| it.id == rollout || (rollout.is_empty() && it.to_version == release.version))
        };
        let ended = |fleet: &FleetView| {
            let mut services = fleet.services.iter().filter(|service| is_it(service));
            services.find_map(|service| ended(service, fleet))
        };
        if let Ok(fleet) = control.wait_for(|fleet| ended(fleet).is_some()).await
            && let Some(ended) = ended(&fleet)
        {
            return Ok(ended);
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// Returns once every host is connected and runs the committed release and nothing else, and nobody waits for anything.
pub(super) async fn rest(control: &Control, hosts: &[String]) {
    let is_there = |fleet: &FleetView, name: &String| fleet.hosts.iter().any(|host| host.name == *name && host.connected);
    let rests = |service: &ServiceView| {
        let alone = |versions: &Vec<String>| *versions == [service.committed_version.clone()];
        service.waiting.is_empty() && service.health == "healthy" && service.hosts.iter().all(|host| alone(&host.versions))
    };
    let at_rest = |fleet: &FleetView| hosts.iter().all(|name| is_there(fleet, name)) && fleet.services.iter().all(rests);
    while control.wait_for(at_rest).await.is_err() {
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

fn ended(service: &ServiceView, fleet: &FleetView) -> Option<Ended> {
    let rollout = service.rollout.as_ref()?;
    if !["succeeded", "partial", "reverted", "failed", "paused"].contains(&rollout.state.as_str()) {
        return None;
    }
    let page = why::service(service, fleet).to_text(Look::default());
    Some(Ended { state: rollout.state.clone(), page })
}

/// Whether nobody answered: then the same is asked again, and changes nothing where it was heard.
fn is_unheard(problem: &Problem) -> bool {
    let Code(number) = problem.code;
    (code::UNREACHABLE.0..=code::NO_ANSWER.0).contains(&number) || [code::BROKEN, code::CALL_FAILED].contains(&problem.code)
}

/// The service as it is, for whoever has to find out why.
pub(super) async fn page(control: &Control) -> String {
    let Ok(fleet) = control.fleet().await else { return "the coordinator does not answer".to_owned() };
    let service = fleet.services.iter().find(|service| service.name == SERVICE);
    service.map_or_else(String::new, |service| why::service(service, &fleet).to_text(Look::default()))
}
