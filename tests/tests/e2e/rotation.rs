//! The authority rotates under real agents, one of which is away meanwhile.

use baton_cli::demo::stage::{COORDINATOR, Setup, Stage};
use baton_proto::problem::from_status;
use baton_proto::tls::{Credentials, authority_pins};
use baton_proto::v1::{
    AuthorityStatusRequest, AuthorityView, CreateTokenRequest, RetireAuthorityRequest, RotateAuthorityRequest,
};
use baton_tests::e2e::{in_time, setup};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

fn kept(stage: &Stage, part: &str) -> Credentials {
    Credentials::load(&stage.folder().join(part).join("identity")).unwrap()
}

/// Returns once so many identities have moved.
async fn until(stage: &Stage, fits: impl Fn(&AuthorityView) -> bool) -> AuthorityView {
    let mut control = stage.control().await.unwrap().client();
    in_time("the authorities", async {
        loop {
            let view = control.authority_status(AuthorityStatusRequest {}).await.unwrap().into_inner();
            if fits(&view) {
                return view;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
}

fn moved(view: &AuthorityView) -> Vec<&str> {
    view.bearers.iter().filter(|bearer| bearer.moved).map(|bearer| bearer.identity.as_str()).collect()
}

#[tokio::test]
async fn agents_move_on_the_stream_they_have_and_one_that_was_away_when_it_is_back() {
    let mut stage = Stage::raise(Setup { hosts: 2, ..setup(env!("CARGO_BIN_EXE_bench")) }).await.unwrap();
    stage.kill("web2").await.unwrap();
    let away = kept(&stage, "web2");
    let mut control = stage.control().await.unwrap().client();
    control.rotate_authority(RotateAuthorityRequest { why: "test".into() }).await.unwrap();
    until(&stage, |view| moved(view) == ["host/lb1", "host/web1"]).await;
    assert_eq!(authority_pins(&kept(&stage, "web1").authority_pem).unwrap().len(), 2);
    let log = stage.log("web1");
    assert_eq!(log.matches("connected to the coordinator").count(), 1, "the stream stayed: {log}");

    let retire = RetireAuthorityRequest::default();
    let refused = from_status(&control.retire_authority(retire.clone()).await.unwrap_err());
    assert_eq!(refused.seen.iter().map(|(label, _)| label.as_str()).collect::<Vec<_>>(), ["host/web2"], "{refused}");

    // The coordinator dies, too; then web2 comes back with its old certificate and the old authority alone.
    stage.kill(COORDINATOR).await.unwrap();
    stage.start(COORDINATOR).unwrap();
    assert_eq!(kept(&stage, "web2"), away);
    stage.start("web2").unwrap();
    until(&stage, |view| view.bearers.iter().all(|bearer| bearer.moved)).await;
    let mut control = stage.control().await.unwrap().client();
    control.retire_authority(retire).await.unwrap();
    in_time("everybody believes the new authority alone", async {
        while ["lb1", "web1", "web2"].iter().any(|host| authority_pins(&kept(&stage, host).authority_pem).unwrap().len() > 1)
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let connected = ["lb1", "web1", "web2"].map(str::to_owned);
    in_time("everybody", stage.control().await.unwrap().wait_connected(&connected)).await.unwrap();
}

/// The command line of somebody whose login is in a folder.
fn baton(login: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    let output =
        command.arg("baton").args(words).env("BATON_CONFIG_DIR", login).env_remove("BATON_SOCKET").output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

#[tokio::test]
async fn an_operator_moves_with_the_next_command_and_may_then_retire_the_old_one() {
    let stage = Stage::raise(Setup { hosts: 1, ..setup(env!("CARGO_BIN_EXE_bench")) }).await.unwrap();
    let request = CreateTokenRequest { role: "admin".into(), uses: 1, ttl_ms: 60_000, ..CreateTokenRequest::default() };
    let token = stage.control().await.unwrap().client().create_token(request).await.unwrap().into_inner().token;
    let (login, file) = (stage.folder().join("login"), stage.folder().join("token"));
    std::fs::write(&file, token).unwrap();
    let address = stage.places.coordinator.to_string();
    let pins = || authority_pins(&Credentials::load(&login).unwrap().authority_pem).unwrap();
    baton(&login, &["login", &address, "--token-file", file.to_str().unwrap(), "--name", "ana"]);
    let first = pins();
    baton(&login, &["status"]);
    assert_eq!(pins(), first, "nothing has changed yet");

    let said = baton(&login, &["authority", "rotate", "--why", "test"]);
    assert!(String::from_utf8_lossy(&said.stdout).contains("signs from now on"), "{said:?}");
    baton(&login, &["status"]);
    assert!(pins().len() == 2 && pins()[1] == first[0]);
    until(&stage, |view| moved(view) == ["admin/ana", "host/lb1", "host/web1"]).await;
    let both = pins();
    baton(&login, &["authority", "retire"]);
    baton(&login, &["status"]);
    assert_eq!(pins(), both[..1]);
    let shown = baton(&login, &["authority", "--json"]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["authorities"].as_array().unwrap().len(), 1, "{shown}");
}
