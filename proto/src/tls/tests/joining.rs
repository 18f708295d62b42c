//! Joining: nothing is known but the authority's hash.

use super::{Authority, Server, ask, join_with};
use crate::problem::code;
use crate::tls::{Credentials, authority_pin};

#[tokio::test]
async fn a_token_leads_to_its_own_coordinator() {
    let authority = Authority::new();
    let server = Server::start(&authority.sign("coordinator/main")).await;
    let reply = ask(&join_with(&server, authority_pin(&authority.pem).unwrap())).await.unwrap();
    assert_eq!((reply.identity.as_str(), reply.certificate_pem.as_str()), ("anonymous", ""));
}

#[tokio::test]
async fn a_token_of_another_coordinator_is_refused_in_clear_words() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = Server::start(&theirs.sign("coordinator/main")).await;
    let problem = ask(&join_with(&server, authority_pin(&ours.pem).unwrap())).await.unwrap_err();
    assert_eq!(problem.code, code::WRONG_PIN, "{problem:?}");
    assert!(problem.what.contains("belongs to another coordinator"), "{problem:?}");
    let seen: Vec<&str> = problem.seen.iter().map(|(label, _)| label.as_str()).collect();
    assert_eq!(seen, ["token pins", "seen", "address"]);
    // Whole: a token that was mistyped at its end pins something that begins as it should.
    assert!(problem.seen[..2].iter().all(|(_, pin)| pin.len() == 64), "{problem:?}");
}

#[tokio::test]
async fn sending_the_real_authority_along_does_not_help_an_impostor() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let impostor = theirs.sign("coordinator/main");
    // Everything public of ours: what anybody can copy from a connection to our coordinator.
    let copied = Credentials { certificate_pem: format!("{}{}", impostor.certificate_pem, ours.pem), ..impostor };
    let server = Server::start(&copied).await;
    let problem = ask(&join_with(&server, authority_pin(&ours.pem).unwrap())).await.unwrap_err();
    assert_eq!(problem.code, code::UNKNOWN_AUTHORITY, "{problem:?}");
}

#[tokio::test]
async fn a_host_cannot_take_the_place_of_the_coordinator_others_join() {
    let authority = Authority::new();
    let server = Server::start(&authority.sign("host/web1")).await;
    let problem = ask(&join_with(&server, authority_pin(&authority.pem).unwrap())).await.unwrap_err();
    assert_eq!(problem.code, code::NOT_A_COORDINATOR, "{problem:?}");
}

#[test]
fn the_pin_is_the_hash_of_the_certificate_itself() {
    let authority = Authority::new();
    assert_eq!(authority_pin(&authority.pem).unwrap(), *baton_core::name::Digest::of(&authority.der).as_bytes());
    assert!(authority_pin("").is_err());
}
