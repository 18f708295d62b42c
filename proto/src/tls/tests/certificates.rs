//! Which certificates are believed.

use super::{Authority, Server, Wish, ask, connect};
use crate::identity;
use crate::problem::code;
use crate::tls::{Credentials, client_config, server_config, with_dates};
use baton_core::problem::Problem;
use std::time::Duration;

async fn refusal(server: &Credentials, client: &Credentials) -> Problem {
    let server = Server::start(server).await;
    ask(&connect(&server, client)).await.unwrap_err()
}

fn whole(problem: &Problem) -> String {
    format!("{problem:?}")
}

#[tokio::test]
async fn both_sides_know_each_other() {
    let authority = Authority::new();
    let server = Server::start(&authority.sign("coordinator/main")).await;
    for identity in ["host/web1", "admin/ana", "ci/pipeline"] {
        let reply = ask(&connect(&server, &authority.sign(identity))).await.unwrap();
        assert_eq!(reply.identity, identity);
        assert_eq!(reply.certificate_pem, "9f0102", "the serial, as the coordinator that signed it writes it");
        assert_eq!(reply.authority_pem, "127.0.0.1");
    }
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused_and_told_so() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    // It believes us; we do not believe it.
    let client = Credentials { authority_pem: ours.pem.clone(), ..theirs.sign("host/web1") };
    let problem = refusal(&ours.sign("coordinator/main"), &client).await;
    assert_eq!(problem.code, code::REFUSED, "{problem:?}");
    assert!(problem.what.contains("another authority signed it"), "{problem:?}");
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let problem = refusal(&theirs.sign("coordinator/main"), &ours.sign("host/web1")).await;
    assert_eq!(problem.code, code::UNKNOWN_AUTHORITY, "{problem:?}");
    assert!(problem.what.contains("signed by another authority"), "{problem:?}");
}

#[tokio::test]
async fn the_certificate_of_a_host_or_an_operator_serves_nobody() {
    let authority = Authority::new();
    for identity in ["host/web1", "admin/ana"] {
        let problem = refusal(&authority.sign(identity), &authority.sign("host/web2")).await;
        assert_eq!(problem.code, code::NOT_A_COORDINATOR, "{problem:?}");
        assert!(whole(&problem).contains(identity), "{problem:?}");
    }
}

#[tokio::test]
async fn a_certificate_that_names_nobody_or_two_is_refused() {
    let authority = Authority::new();
    let server = authority.sign("coordinator/main");
    for uris in [vec![], vec!["https://web1"], vec!["baton://root/x"], vec!["baton://host/web1", "baton://admin/ana"]] {
        let uris = uris.into_iter().map(String::from).collect();
        let client = authority.grant(&Wish { uris, ..Wish::of("") });
        let problem = refusal(&server, &client).await;
        assert_eq!(problem.code, code::REFUSED, "{problem:?}");
    }
}

#[tokio::test]
async fn a_server_certificate_outside_its_time_says_that_a_clock_may_be_off() {
    let authority = Authority::new();
    for (valid, seen) in [((-9, -2), "valid until"), ((2, 9), "valid from")] {
        let server = authority.grant(&Wish { valid, ..Wish::of("coordinator/main") });
        let problem = refusal(&server, &authority.sign("host/web1")).await;
        assert_eq!(problem.code, code::CERTIFICATE_TIME, "{problem:?}");
        assert!(problem.help.as_ref().unwrap().contains("clock"), "{problem:?}");
        assert!(problem.seen.iter().any(|(label, _)| label == seen), "{problem:?}");
        assert!(problem.seen.iter().any(|(label, _)| label == "clock here"), "{problem:?}");
    }
}

#[tokio::test]
async fn a_client_certificate_outside_its_time_says_that_a_clock_may_be_off() {
    let authority = Authority::new();
    for valid in [(-9, -2), (2, 9)] {
        let client = authority.grant(&Wish { valid, ..Wish::of("host/web1") });
        let problem = refusal(&authority.sign("coordinator/main"), &client).await;
        assert_eq!(problem.code, code::CERTIFICATE_TIME, "{problem:?}");
        assert!(problem.help.as_ref().unwrap().contains("clock"), "{problem:?}");
        let own = identity::Subject { not_before: 0, not_after: 86_400, ..client.subject().unwrap() };
        let dated = with_dates(problem.clone(), &own, Duration::from_secs(172_800));
        let seen: Vec<String> = dated.seen.iter().map(|(label, seen)| format!("{label} {seen}")).collect();
        for date in ["valid from Jan  1 ", "valid until Jan  2 ", "clock here Jan  3 "] {
            assert!(seen.iter().any(|seen| seen.starts_with(date)), "{date}: {seen:?}");
        }
        // Nothing is known by it of what another certificate is refused for.
        let mut theirs = problem;
        theirs.seen.clear();
        assert_eq!(with_dates(theirs.clone(), &own, Duration::ZERO), theirs);
    }
}

#[tokio::test]
async fn a_refused_peer_does_not_disturb_the_others() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = Server::start(&authority.sign("coordinator/main")).await;
    let stranger = Credentials { authority_pem: authority.pem.clone(), ..other.sign("host/web1") };
    let open = connect(&server, &authority.sign("host/web2"));
    ask(&open).await.unwrap();
    ask(&connect(&server, &stranger)).await.unwrap_err();
    assert_eq!(ask(&open).await.unwrap().identity, "host/web2");
    assert_eq!(ask(&connect(&server, &authority.sign("host/web3"))).await.unwrap().identity, "host/web3");
}

#[tokio::test]
async fn two_authorities_are_believed_while_one_replaces_the_other() {
    let (old, new) = (Authority::new(), Authority::new());
    let both = format!("{}{}", old.pem, new.pem);
    let server = Server::start(&Credentials { authority_pem: both.clone(), ..new.sign("coordinator/main") }).await;
    for authority in [&old, &new] {
        let client = Credentials { authority_pem: both.clone(), ..authority.sign("host/web1") };
        assert_eq!(ask(&connect(&server, &client)).await.unwrap().identity, "host/web1");
    }
}

#[test]
fn credentials_that_do_not_fit_together_make_no_configuration() {
    let authority = Authority::new();
    let good = authority.sign("coordinator/main");
    let wrong_key = Credentials { key_pem: authority.sign("host/web1").key_pem, ..good.clone() };
    let no_authority = Credentials { authority_pem: String::new(), ..good.clone() };
    let garbage = Credentials { certificate_pem: "-----BEGIN CERTIFICATE-----\n%%\n".to_owned(), ..good.clone() };
    for wrong in [wrong_key, no_authority, garbage] {
        assert!(server_config(&wrong).is_err());
        assert!(client_config(&wrong).is_err());
    }
    assert!(server_config(&good).is_ok() && client_config(&good).is_ok());
}
