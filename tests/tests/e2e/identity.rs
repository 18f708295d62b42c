//! Who may join, and whom the two sides believe.

use baton_agent::config::Config;
use baton_agent::enroll::{Claim, join};
use baton_agent::preflight::examine;
use baton_cli::demo::stage::{Setup, Stage};
use baton_core::problem::{Code, Problem};
use baton_proto::problem::{code, from_status};
use baton_proto::tls::{Credentials, channel, client_config, hot};
use baton_proto::token::JoinToken;
use baton_proto::v1::AgentMessage;
use baton_proto::v1::agent_link_client::AgentLinkClient;
use baton_tests::e2e::setup;

async fn stage() -> Stage {
    Stage::raise(Setup { hosts: 1, ..setup(env!("CARGO_BIN_EXE_bench")) }).await.unwrap()
}

/// Joins as `web7` with a fresh state folder.
async fn joins(stage: &Stage, token: &JoinToken) -> Result<String, Problem> {
    let state = tempfile::tempdir().unwrap();
    let config = Config { name: Some("web7".to_owned()), state: state.path().to_owned(), ..Config::default() };
    let joined = join(&config, &stage.places.coordinator.to_string(), token, Claim::New).await;
    if joined.is_err() {
        assert!(Credentials::load(&config.identity()).is_err(), "a refused host has no identity");
    }
    joined
}

async fn token(stage: &Stage) -> JoinToken {
    let control = stage.control().await.unwrap();
    control.host_token("web7").await.unwrap().parse().unwrap()
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(refused: Result<T, Problem>, code: baton_core::problem::Code) {
    let problem = refused.unwrap_err();
    assert_eq!(problem.code, code, "{problem:#?}");
    assert!(!problem.seen.is_empty() && problem.help.is_some(), "{problem:#?}");
}

#[tokio::test]
async fn a_token_admits_one_host_once_and_a_made_up_one_nobody() {
    let stage = stage().await;
    let good = token(&stage).await;
    let made_up = JoinToken { secret: [7; 32], ..good.clone() };
    assert_refused(joins(&stage, &made_up).await, code::TOKEN);
    assert_eq!(joins(&stage, &good).await.unwrap(), "host/web7");
    assert_refused(joins(&stage, &good).await, code::TOKEN);
}

#[tokio::test]
async fn a_token_of_another_authority_does_not_even_reach_the_coordinator() {
    let stage = stage().await;
    let good = token(&stage).await;
    let elsewhere = JoinToken { pin: [9; 32], ..good.clone() };
    assert_refused(joins(&stage, &elsewhere).await, code::WRONG_PIN);
    assert_eq!(joins(&stage, &good).await.unwrap(), "host/web7", "the token was not spent on it");
}

#[tokio::test]
async fn what_is_looked_at_before_joining_has_names_and_spends_no_token() {
    let stage = stage().await;
    let good = token(&stage).await;
    let endpoint = stage.places.coordinator.to_string();
    let state = tempfile::tempdir().unwrap();
    let config = Config { state: state.path().join("state"), ..Config::default() };
    let began = std::time::Instant::now();
    let checks = examine(&config, &endpoint, &good, Claim::New).await;
    let bad: Vec<_> = checks.iter().filter(|check| check.outcome.is_err()).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    let names: Vec<_> = checks.iter().map(|check| check.name).collect();
    assert_eq!(names, ["identity", "systemd", "disk", "ports", "reach", "fingerprint", "clock", "version"]);

    let elsewhere = JoinToken { pin: [9; 32], ..good.clone() };
    let last = examine(&config, &endpoint, &elsewhere, Claim::New).await.pop().unwrap();
    assert_eq!((last.name, last.outcome.unwrap_err().code), ("fingerprint", code::WRONG_PIN));
    assert!(!config.state.exists(), "nothing is made before it is known that it will be of use");
    assert_eq!(joins(&stage, &good).await.unwrap(), "host/web7");
    assert!(began.elapsed() < std::time::Duration::from_secs(2), "looked at twice and joined in {:?}", began.elapsed());
}

#[tokio::test]
async fn who_has_joined_already_is_told_who_it_is_and_keeps_certificate_and_token() {
    let stage = stage().await;
    let good = token(&stage).await;
    let endpoint = stage.places.coordinator.to_string();
    let state = tempfile::tempdir().unwrap();
    let config = Config { name: Some("web7".to_owned()), state: state.path().to_owned(), ..Config::default() };
    join(&config, &endpoint, &good, Claim::New).await.unwrap();
    let kept = Credentials::load(&config.identity()).unwrap();

    let another = token(&stage).await;
    let mut checks = examine(&config, &endpoint, &another, Claim::New).await;
    assert_eq!(checks.len(), 1, "{checks:#?}");
    let problem = checks.remove(0).outcome.unwrap_err();
    assert_eq!(problem.code, Code(547), "{problem:#?}");
    let seen: Vec<_> = problem.seen.iter().map(|(label, what)| format!("{label} {what}")).collect();
    assert!(problem.what.ends_with("it is host/web7") && seen[0] == format!("coordinator {endpoint}"), "{problem:#?}");
    assert!(seen[1].starts_with("valid until ") && seen[2].starts_with("kept in "), "{problem:#?}");
    let help = problem.help.clone().unwrap();
    assert!(help.contains("baton token create --name web7") && help.contains("--replace"), "{help}");
    assert_eq!(Credentials::load(&config.identity()).unwrap(), kept, "nothing was changed");

    // Whoever means it says so, and the token is still good.
    let checks = examine(&config, &endpoint, &another, Claim::Replace).await;
    assert!(checks.iter().all(|check| check.outcome.is_ok()), "{checks:#?}");
    assert_eq!(join(&config, &endpoint, &another, Claim::Replace).await.unwrap(), "host/web7");
    assert!(Credentials::load(&config.identity()).unwrap() != kept);
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_by_both_sides() {
    let (ours, theirs) = tokio::join!(stage(), stage());
    let identity = |stage: &Stage| Credentials::load(&stage.folder().join("web1/identity")).unwrap();
    let (genuine, foreign) = (identity(&ours), identity(&theirs));

    // The stranger believes its own authority: our coordinator is nobody to it.
    assert_refused(links(&ours, &foreign).await, code::UNKNOWN_AUTHORITY);
    // And had it been told to believe ours, ours would not believe it.
    let disguised = Credentials { authority_pem: genuine.authority_pem.clone(), ..foreign };
    assert_refused(links(&ours, &disguised).await, code::REFUSED);
    // What is genuine still gets in.
    links(&ours, &genuine).await.unwrap();
}

/// Opens an agent's stream with these credentials.
async fn links(stage: &Stage, credentials: &Credentials) -> Result<(), Problem> {
    let channel = channel(&stage.places.coordinator.to_string(), hot(client_config(credentials).unwrap()))?;
    let silent = futures_util::stream::pending::<AgentMessage>();
    AgentLinkClient::new(channel).connect(silent).await.map(drop).map_err(|status| from_status(&status))
}
