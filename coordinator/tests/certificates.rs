//! Certificates over real mutual TLS: renewed without a stream noticing, and revoked with every stream cut.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod site;

use baton_core::problem::Problem;
use baton_proto::problem::{code, from_status};
use baton_proto::tls::Credentials;
use baton_proto::v1;
use baton_proto::v1::control_client::ControlClient;
use baton_proto::v1::enrollment_client::EnrollmentClient;
use site::{Line, Site, dial, join_as, obey, token, until};
use std::time::{Duration, Instant};

/// Baton's promise for everything that is open when a certificate is revoked.
const CUT_WITHIN: Duration = Duration::from_secs(5);

impl Site {
    async fn renewed(&self, credentials: &Credentials) -> Result<Credentials, Problem> {
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        baton_proto::renewal::renew(&self.running.listen.to_string(), credentials, key.serialize_pem(), csr).await
    }

    async fn revoke(&self, whose: &str) -> Result<v1::CertificateList, Problem> {
        let request = v1::RevokeCertificatesRequest { whose: whose.into(), why: "stolen".into() };
        let reply = ControlClient::new(self.admin.clone()).revoke_certificates(request).await;
        reply.map(tonic::Response::into_inner).map_err(|status| from_status(&status))
    }

    async fn status(&self, credentials: &Credentials) -> Result<(), Problem> {
        let channel = dial(self.running.listen, credentials);
        let reply = ControlClient::new(channel).status(v1::StatusRequest::default()).await;
        reply.map(drop).map_err(|status| from_status(&status))
    }
}

#[tokio::test]
async fn a_renewed_certificate_has_another_key_the_same_identity_and_works_beside_the_old_one() {
    let site = Site::new().await;
    let old = site.member("viewer", "vera").await;
    let new = site.renewed(&old).await.unwrap();
    assert_ne!(new.key_pem, old.key_pem);
    assert_eq!(new.subject().unwrap().identity, old.subject().unwrap().identity);
    assert_ne!(new.subject().unwrap().serial, old.subject().unwrap().serial);
    site.status(&new).await.unwrap();
    site.status(&old).await.unwrap();
    // And the next is asked for with the new one.
    site.status(&site.renewed(&new).await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_stranger_renews_nothing_and_neither_does_a_revoked_certificate() {
    let site = Site::new().await;
    let secret = token(&site.admin, "host", 1, &[]).await;
    let config = baton_proto::tls::joining_config(secret.pin).unwrap();
    let nobody = baton_proto::tls::channel(&site.running.listen.to_string(), baton_proto::tls::hot(config)).unwrap();
    let refused = EnrollmentClient::new(nobody).renew(v1::RenewRequest::default()).await.unwrap_err();
    assert_eq!(from_status(&refused).code, code::WHO_ARE_YOU);

    let vera = site.member("viewer", "vera").await;
    site.revoke("viewer/vera").await.unwrap();
    assert_eq!(site.renewed(&vera).await.unwrap_err().code, code::REFUSED);
}

#[tokio::test]
async fn a_revocation_ends_an_agents_stream_and_an_operators_watch_and_keeps_both_out() {
    let site = Site::new().await;
    let (host, vera) = (site.member("host", "web1").await, site.member("viewer", "vera").await);
    let host_channel = dial(site.running.listen, &host);
    let line = obey(host_channel.clone());
    until(&site.admin, |view| view.hosts.iter().any(|host| host.connected)).await;
    let watching = dial(site.running.listen, &vera);
    let mut views = ControlClient::new(watching.clone()).watch(v1::StatusRequest::default()).await.unwrap().into_inner();
    views.message().await.unwrap().expect("the first view comes at once");

    let began = Instant::now();
    let left = site.revoke("host/web1").await.unwrap();
    assert!(left.certificates.iter().all(|one| one.revoked == (one.identity == "host/web1")), "{left:?}");
    assert_eq!(line.await.unwrap().code, code::REFUSED);
    site.revoke("viewer/vera").await.unwrap();
    let ended = loop {
        // Views that were under way may still arrive.
        match views.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("ended without a word"),
            Err(status) => break from_status(&status),
        }
    };
    assert_eq!(ended.code, code::REFUSED);
    assert!(began.elapsed() < CUT_WITHIN, "{:?}", began.elapsed());

    // Neither the connections that are still open nor new ones are of any use.
    assert_eq!(Line::open(&host_channel).await.err().map(|problem| problem.code), Some(code::REFUSED));
    let kept = ControlClient::new(watching).status(v1::StatusRequest::default()).await.unwrap_err();
    assert_eq!(from_status(&kept).code, code::REFUSED);
    assert_eq!(site.status(&vera).await.unwrap_err().code, code::REFUSED);
    until(&site.admin, |view| view.hosts.iter().all(|host| !host.connected)).await;
}

#[tokio::test]
async fn revoking_an_identity_takes_renewed_certificates_with_it_and_a_serial_only_itself() {
    let site = Site::new().await;
    let first = site.member("viewer", "vera").await;
    let second = site.renewed(&first).await.unwrap();
    site.revoke(&first.subject().unwrap().serial).await.unwrap();
    assert_eq!(site.status(&first).await.unwrap_err().code, code::REFUSED);
    let third = site.renewed(&second).await.unwrap();
    site.revoke("viewer/vera").await.unwrap();
    for one in [&second, &third] {
        assert_eq!(site.status(one).await.unwrap_err().code, code::REFUSED);
    }
    assert_eq!(site.revoke("viewer/vera").await.unwrap_err().code, code::NO_CERTIFICATE, "there is nothing left");
    assert_eq!(site.revoke("host/nobody").await.unwrap_err().code, code::NO_CERTIFICATE);
}

#[tokio::test]
async fn new_hardware_takes_a_revoked_hosts_name() {
    let site = Site::new().await;
    let old = site.member("host", "web1").await;
    let secret = token(&site.admin, "host", 1, &["web1"]).await;
    let new = join_as(site.running.listen, &secret, "web1", true).await.unwrap();
    assert_eq!(obey(dial(site.running.listen, &old)).await.unwrap().code, code::REFUSED);
    Line::open(&dial(site.running.listen, &new)).await.unwrap().spec().await.unwrap();
}
