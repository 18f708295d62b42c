//! Certificates that live for seconds, in real processes: they renew themselves, and no stream notices.

use baton_cli::demo::stage::{COORDINATOR, Setup, Stage};
use baton_coordinator::identity::authority::{Authority, Request, Serial, Validity};
use baton_coordinator::store::WallTime;
use baton_proto::tls::Credentials;
use baton_tests::e2e::{in_time, setup};
use std::time::{Duration, Instant};

const LIFE: Duration = Duration::from_secs(6);

async fn stage() -> Stage {
    Stage::raise(Setup { hosts: 1, certificate_life: Some(LIFE), ..setup(env!("CARGO_BIN_EXE_bench")) }).await.unwrap()
}

fn kept(stage: &Stage, part: &str) -> Credentials {
    Credentials::load(&stage.folder().join(part).join("identity")).unwrap()
}

#[tokio::test]
async fn certificates_of_seconds_renew_themselves_and_the_stream_stays() {
    let stage = stage().await;
    let control = stage.control().await.unwrap();
    let first = kept(&stage, "web1").subject().unwrap();
    let server = || std::fs::read_to_string(stage.folder().join("coordinator/identity/certificate.pem")).unwrap();
    let servers_first = server();
    let ends = Instant::now() + LIFE;
    in_time("the third certificate", async {
        let mut serials = std::collections::BTreeSet::from([first.serial.clone()]);
        while serials.len() < 3 || Instant::now() < ends + Duration::from_secs(2) {
            control.wait_for(|fleet| fleet.hosts.iter().all(|host| host.connected)).await.unwrap();
            serials.insert(kept(&stage, "web1").subject().unwrap().serial);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert_ne!(server(), servers_first, "the coordinator renewed its own");
    // One stream, from before the first certificate ended until after: the one it was made with.
    let log = stage.log("web1");
    assert_eq!(log.matches("connected to the coordinator").count(), 1, "{log}");
    let log = stage.log(COORDINATOR);
    assert!(!log.contains("disconnected"), "{log}");
}

#[tokio::test]
async fn an_agent_that_was_away_comes_back_with_its_newest_certificate() {
    let mut stage = stage().await;
    let first = kept(&stage, "web1").subject().unwrap();
    in_time("a renewal", async {
        while kept(&stage, "web1").subject().unwrap().serial == first.serial {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    stage.kill("web1").await.unwrap();
    stage.start("web1").unwrap();
    let control = stage.control().await.unwrap();
    in_time("web1", control.wait_connected(&["web1".to_owned()])).await.unwrap();
}

#[tokio::test]
async fn a_revoked_agent_is_cut_within_five_seconds_and_its_app_is_left_alone() {
    let stage = Stage::raise(Setup { hosts: 1, ..setup(env!("CARGO_BIN_EXE_bench")) }).await.unwrap();
    let control = stage.control().await.unwrap();
    let began = Instant::now();
    control.revoke("host/web1").await.unwrap();
    let gone = control.wait_for(|fleet| fleet.hosts.iter().any(|host| host.name == "web1" && !host.connected));
    in_time("the cut", gone).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    in_time("the agent says why", async {
        while !stage.log("web1").contains("is not accepted any more") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(stage.pid("web1").is_some());
}

const YEAR: i64 = 365 * 24 * 3600;

/// A certificate of the stage's own authority, as if it had been issued at another time.
fn issued_at(stage: &Stage, identity: &str, now: i64) -> Credentials {
    let authority = Authority::load(&stage.folder().join("coordinator/identity")).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let during = Validity { now: WallTime(now), life: 90 * 24 * 3600 };
    let (request, serial) = (Request::read(&csr).unwrap(), Serial::random().unwrap());
    let certificate_pem = authority.sign(&request, &identity.parse().unwrap(), &serial, during, &[]).unwrap();
    let authority_pem = authority.certificate_pem().to_owned();
    Credentials { certificate_pem, key_pem: key.serialize_pem(), authority_pem }
}

#[tokio::test]
async fn a_clock_that_is_off_by_a_year_is_said_in_clear_words_and_stops_no_application() {
    let mut stage = Stage::raise(Setup { hosts: 1, ..setup(env!("CARGO_BIN_EXE_bench")) }).await.unwrap();
    let now = baton_coordinator::identity::wall_time().0;
    let identity = stage.folder().join("web1/identity");
    for now in [now - YEAR, now + YEAR] {
        stage.kill("web1").await.unwrap();
        let before = stage.log("web1").len();
        issued_at(&stage, "host/web1", now).save(&identity).unwrap();
        stage.start("web1").unwrap();
        in_time("the agent says why", async {
            let words = ["by its clock it has expired or is not valid yet", "valid from ", "valid until ", "clock here "];
            // Whole: a line may be read while it is written.
            while !words.iter().all(|word| stage.log("web1")[before..].contains(word)) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        assert!(stage.log(COORDINATOR).contains("B0504"), "{}", stage.last_words());
        in_time("baton-agent status says it, too", async {
            let says = |problem: &baton_core::problem::Problem| problem.to_string().contains("by its clock");
            while !baton_agent::local::ask(&stage.folder().join("web1")).await.unwrap().problems.iter().any(says) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }
    // With the right dates it is back, without anybody's help.
    stage.kill("web1").await.unwrap();
    issued_at(&stage, "host/web1", baton_coordinator::identity::wall_time().0).save(&identity).unwrap();
    stage.start("web1").unwrap();
    let control = stage.control().await.unwrap();
    in_time("web1", control.wait_connected(&["web1".to_owned()])).await.unwrap();
}
