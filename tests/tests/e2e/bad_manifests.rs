//! What a manifest gets wrong is refused before anything changes, with the place and what helps.

use baton_cli::demo::stage::control::Control;
use baton_cli::demo::stage::release::{Behaviour, archive};
use baton_cli::demo::stage::{BALANCER_HOST, Front, Place, SERVICE, Setup, Stage};
use baton_core::problem::Problem;
use baton_tests::e2e::{have, in_time, setup};
use std::time::Duration;

struct Scene {
    stage: Stage,
    control: Control,
    archive: Vec<u8>,
}

impl Scene {
    async fn enter() -> Self {
        Self::behind(Front::Builtin).await
    }

    async fn behind(front: Front) -> Self {
        let setup = Setup { hosts: 1, front, place: Place::InPlace, ..setup(env!("CARGO_BIN_EXE_bench")) };
        let stage = Stage::raise(setup).await.unwrap();
        let control = stage.control().await.unwrap();
        let archive = archive(&stage.setup.part, "1", &Behaviour::good(Duration::ZERO)).unwrap();
        Self { stage, control, archive }
    }

    async fn deploys(&self, manifest: &str) {
        let rollout = self.control.deploy(manifest, "1", &self.archive).await.unwrap();
        let ended = in_time("a good release", self.control.wait_ended(&rollout)).await.unwrap();
        assert_eq!(ended.state, "succeeded", "{ended:#?}\n{}", self.stage.last_words());
    }

    /// The refusal, after which nothing is different.
    async fn refuses(&self, manifest: &str) -> Problem {
        let before = self.control.fleet().await.unwrap();
        let refused = self.control.deploy(manifest, "2", &self.archive).await.unwrap_err();
        let after = self.control.fleet().await.unwrap();
        assert_eq!(before.services.len(), after.services.len());
        for (before, after) in before.services.iter().zip(&after.services) {
            assert_eq!(before.committed_version, after.committed_version);
            assert_eq!(
                before.rollout.as_ref().map(|rollout| &rollout.id),
                after.rollout.as_ref().map(|rollout| &rollout.id)
            );
        }
        refused
    }
}

#[track_caller]
fn assert_says(problem: &Problem, codes: std::ops::Range<u16>, words: &[&str]) {
    let text = format!("{}\n{:#?}\n{:?}", problem.what, problem.seen, problem.help);
    assert!(codes.contains(&problem.code.0), "{}: {text}", problem.code);
    assert!(problem.help.is_some(), "no help: {text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is not in:\n{text}");
    }
}

#[tokio::test]
async fn mistakes_in_the_text_are_refused_with_their_line() {
    let scene = Scene::enter().await;
    let good = scene.stage.manifest();

    let unknown_key = good.replace("interval =", "intervall =");
    assert_says(&scene.refuses(&unknown_key).await, 100..200, &["baton.toml:", "intervall", "interval"]);

    let wrong_type = good.replace("max_unavailable = 1", "max_unavailable = true");
    assert_says(&scene.refuses(&wrong_type).await, 100..200, &["baton.toml:", "max_unavailable"]);

    let no_hosts = good.replace("hosts = [\"web1\"]", "hosts = []");
    assert_says(&scene.refuses(&no_hosts).await, 100..800, &["hosts"]);

    let not_toml = good.replace("[health]", "[health");
    assert_says(&scene.refuses(&not_toml).await, 100..200, &["baton.toml:"]);

    // And nothing of this stands in the way of what is right.
    scene.deploys(&good).await;
}

#[tokio::test]
async fn a_host_that_never_joined_is_named() {
    let scene = Scene::enter().await;
    let manifest = scene.stage.manifest().replace("[\"web1\"]", "[\"web1\", \"web9\"]");
    assert_says(&scene.refuses(&manifest).await, 700..800, &["web9", "web1", "join"]);
}

#[tokio::test]
async fn two_services_cannot_have_one_port() {
    let scene = Scene::enter().await;
    scene.deploys(&scene.stage.manifest()).await;
    let other = scene.stage.manifest().replace(&format!("service = \"{SERVICE}\""), "service = \"cart\"");
    let other = other.replace(&format!("pool = \"{SERVICE}\""), "pool = \"cart\"");
    let port = scene.stage.places.ports[0].to_string();
    assert_says(&scene.refuses(&other).await, 700..800, &[&port, SERVICE, "web1"]);
}

async fn a_pool_is_missing(front: Front) {
    let scene = Scene::behind(front).await;
    // What the balancer has is known once it was heard of.
    scene.deploys(&scene.stage.manifest()).await;
    let other = scene.stage.manifest().replace(&format!("service = \"{SERVICE}\""), "service = \"cart\"");
    let other = other.replace(&format!("pool = \"{SERVICE}\""), "pool = \"cart\"");
    let port = scene.stage.places.ports[0];
    let other = other.replace(&format!("ports = [{port}]"), &format!("ports = [{}]", port + 100));
    assert_says(&scene.refuses(&other).await, 445..446, &["cart", BALANCER_HOST, SERVICE, "[balancer] pool"]);
}

#[tokio::test]
async fn a_pool_that_the_builtin_balancer_does_not_have_is_named() {
    a_pool_is_missing(Front::Builtin).await;
}

#[tokio::test]
async fn a_pool_that_haproxy_does_not_have_is_named() {
    if have("haproxy") {
        a_pool_is_missing(Front::Haproxy).await;
    }
}
