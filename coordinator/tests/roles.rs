//! Who may call what, asked for real: every method of the descriptors, by everybody there can be.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod site;

use baton_coordinator::api::roles::METHODS;
use baton_core::problem::Code;
use baton_proto::problem::{code, from_status};
use baton_proto::tls::{Credentials, client_config};
use baton_proto::v1;
use baton_proto::v1::control_client::ControlClient;
use http::uri::PathAndQuery;
use prost::Message;
use rustls::pki_types::ServerName;
use site::http2::{call, frame, preface};
use site::{Site, deploy, fetch, join, obey, until, upload, wish};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tonic::transport::Channel;

const PATIENCE: Duration = Duration::from_secs(20);

impl Site {
    async fn scoped(&self, role: &str, name: &str, services: &[&str]) -> Credentials {
        let request = v1::CreateTokenRequest {
            role: role.into(),
            uses: 1,
            ttl_ms: 60_000,
            services: services.iter().map(|service| (*service).to_owned()).collect(),
            ..v1::CreateTokenRequest::default()
        };
        let created = ControlClient::new(self.admin.clone()).create_token(request).await.unwrap().into_inner();
        join(self.running.listen, &created.token.parse().unwrap(), name).await.unwrap()
    }
}

/// Calls a method with an empty message, whatever its kind; the code of what came back, if it was refused.
async fn refusal(channel: &Channel, path: &str) -> Option<Code> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<v1::GreetRequest, v1::GreetRequest>::default();
    let path = PathAndQuery::try_from(path).unwrap();
    let request = tonic::Request::new(tokio_stream::once(v1::GreetRequest {}));
    let answer = async {
        let mut answers = client.streaming(request, path, codec).await?.into_inner();
        answers.next().await.transpose()
    };
    // A stream that says nothing is one that was let in.
    let answer = timeout(Duration::from_secs(1), answer).await.ok()?;
    answer.err().map(|status| from_status(&status).code)
}

#[tokio::test]
async fn every_method_admits_exactly_those_the_table_names() {
    let site = Site::new().await;
    let everybody = site.everybody().await;
    let mut wrong = Vec::new();
    for (path, callers) in METHODS {
        for (caller, name, channel) in &everybody {
            let refused = refusal(channel, path).await;
            let kept_out = matches!(refused, Some(code::NOT_ALLOWED | code::WHO_ARE_YOU));
            if kept_out == callers.contains(caller) {
                wrong.push(format!("{path} by {name}: {refused:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_host_fetches_its_own_release_and_another_host_does_not() {
    let site = Site::new().await;
    let (own, other) = (site.dial(&site.member("host", "web1").await), site.dial(&site.member("host", "web2").await));
    let _lines = (obey(own.clone()), obey(other.clone()));
    upload(&site.admin, b"archive", 0).await.unwrap();
    deploy(&site.admin, wish(&["web1"], "1.0", b"archive")).await.unwrap();
    until(&site.admin, |view| site::rollout_state(view) == "succeeded").await;
    assert_eq!(fetch(&own, b"archive", 0).await.unwrap(), b"archive");
    assert_eq!(fetch(&other, b"archive", 0).await.unwrap_err().code, Code(601));
}

#[tokio::test]
async fn an_operator_for_some_services_commands_those_and_looks_at_all() {
    let site = Site::new().await;
    for (host, service) in [("web1", "shop"), ("web2", "blog")] {
        obey(site.dial(&site.member("host", host).await));
        upload(&site.admin, b"archive", 0).await.unwrap();
        let mut wish = wish(&[host], "1.0", b"archive");
        wish.manifest = wish.manifest.replace("service = \"shop\"", &format!("service = \"{service}\""));
        deploy(&site.admin, wish).await.unwrap();
        until(&site.admin, |view| view.services.iter().any(|it| it.name == service && it.committed_version == "1.0")).await;
    }
    for (role, name) in [("deployer", "dora"), ("ci", "pipeline")] {
        let scoped = site.dial(&site.scoped(role, name, &["shop"]).await);
        let view = ControlClient::new(scoped.clone()).status(v1::StatusRequest::default()).await.unwrap().into_inner();
        assert_eq!(view.services.len(), 2, "{role}");
        let mut blog = wish(&["web2"], "2.0", b"archive");
        blog.manifest = blog.manifest.replace("service = \"shop\"", "service = \"blog\"");
        assert_eq!(deploy(&scoped, blog).await.unwrap_err().code, code::NOT_ALLOWED, "{role}");
        let request = v1::RollbackRequest { service: "blog".into(), ..Default::default() };
        let refused = ControlClient::new(scoped.clone()).rollback(request).await.unwrap_err();
        assert_eq!(from_status(&refused).code, code::NOT_ALLOWED, "{role}");
        let version = format!("2.0-{role}");
        deploy(&scoped, wish(&["web1"], &version, b"archive")).await.unwrap();
        until(&site.admin, |view| view.services.iter().any(|it| it.committed_version == version)).await;
    }
    // The scope stands in the certificate, and stays with the one that follows it.
    let dora = site.scoped("deployer", "doris", &["shop"]).await;
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let endpoint = site.running.listen.to_string();
    let renewed = baton_proto::renewal::renew(&endpoint, &dora, key.serialize_pem(), csr).await.unwrap();
    assert_eq!(renewed.subject().unwrap().services, ["shop".parse().unwrap()]);
}

#[tokio::test]
async fn a_pipelines_certificate_ends_when_its_token_said_and_does_not_renew_itself() {
    let site = Site::new().await;
    let request =
        v1::CreateTokenRequest { role: "ci".into(), uses: 1, life_ms: 120_000, ..v1::CreateTokenRequest::default() };
    let created = ControlClient::new(site.admin.clone()).create_token(request.clone()).await.unwrap().into_inner();
    let ci = join(site.running.listen, &created.token.parse().unwrap(), "pipeline").await.unwrap();
    let subject = ci.subject().unwrap();
    assert!((100..=140).contains(&(subject.not_after - subject.not_before)), "{subject:?}");
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let refused = baton_proto::renewal::renew(&site.running.listen.to_string(), &ci, key.serialize_pem(), csr).await;
    assert_eq!(refused.unwrap_err().code, code::NOT_ALLOWED);
    for (role, services) in [("admin", &["shop"][..]), ("host", &["shop"]), ("deployer", &[])] {
        let life_ms = if role == "deployer" { 120_000 } else { 0 };
        let services = services.iter().map(|it| (*it).to_owned()).collect();
        let wrong = v1::CreateTokenRequest { role: role.into(), services, life_ms, ..request.clone() };
        assert!(ControlClient::new(site.admin.clone()).create_token(wrong).await.is_err(), "{role}");
    }
}

#[tokio::test]
async fn a_release_that_runs_as_root_is_an_admins_to_deploy() {
    let site = Site::new().await;
    let _line = obey(site.dial(&site.member("host", "web1").await));
    upload(&site.admin, b"archive", 0).await.unwrap();
    let rooted = |version: &str| {
        let mut wish = wish(&["web1"], version, b"archive");
        wish.manifest = wish.manifest.replace("[run]\n", "[run]\nuser = \"root\"\n");
        wish
    };
    for (role, name) in [("deployer", "dora"), ("ci", "pipeline")] {
        let channel = site.dial(&site.member(role, name).await);
        let refused = deploy(&channel, rooted("1.0")).await.unwrap_err();
        assert_eq!(refused.code, code::NOT_ALLOWED, "{role}");
        assert!(refused.help.is_some(), "{refused:?}");
    }
    let ana = site.dial(&site.member("admin", "ana").await);
    deploy(&ana, rooted("1.0")).await.unwrap();
    until(&site.admin, |view| site::rollout_state(view) == "succeeded").await;
    let dora = site.dial(&site.member("deployer", "doris").await);
    deploy(&dora, wish(&["web1"], "2.0", b"archive")).await.unwrap();
}

/// Sends one request with exactly this path, and waits until it is answered, reset, or the connection is closed.
async fn send(site: &Site, credentials: &Credentials, path: &str, message: &[u8]) {
    let connector = tokio_rustls::TlsConnector::from(client_config(credentials).unwrap());
    let tcp = tokio::net::TcpStream::connect(site.running.listen).await.unwrap();
    let mut tls = connector.connect(ServerName::try_from("coordinator").unwrap(), tcp).await.unwrap();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let body = [&[0], &length[..], message].concat();
    let mut bytes = preface();
    bytes.extend(frame(1, 4, 1, &call(path)));
    bytes.extend(frame(0, 1, 1, &body));
    let answered = async {
        tls.write_all(&bytes).await?;
        loop {
            let mut head = [0; 9];
            tls.read_exact(&mut head).await?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            tls.read_exact(&mut payload).await?;
            let ends = matches!(head[3], 0 | 1) && head[4] & 1 == 1;
            if (head[8] == 1 && ends) || matches!(head[3], 3 | 7) {
                return std::io::Result::Ok(());
            }
        }
    };
    // A connection that is closed without a word is an answer too.
    let _ = timeout(PATIENCE, answered).await.expect("no answer");
}

#[tokio::test]
async fn only_the_very_path_of_a_method_reaches_it() {
    let site = Site::new().await;
    let ana = site.member("admin", "ana").await;
    let wanted = v1::CreateTokenRequest { role: "viewer".into(), uses: 7, ..v1::CreateTokenRequest::default() };
    let message = wanted.encode_to_vec();
    let made = async || {
        let tokens = ControlClient::new(site.admin.clone()).list_tokens(v1::ListTokensRequest {}).await.unwrap();
        tokens.into_inner().tokens.iter().filter(|token| token.uses_left == 7).count()
    };
    for path in [
        "",
        "*",
        "baton.v1.Control/CreateToken",
        "//baton.v1.Control/CreateToken",
        "/baton.v1.Control//CreateToken",
        "/baton.v1.Control/CreateToken/",
        "/baton.v1.Control/CreateToken/.",
        "/./baton.v1.Control/CreateToken",
        "/x/../baton.v1.Control/CreateToken",
        "/baton.v1.Control/Status/../CreateToken",
        "/baton.v1.Control/%43reateToken",
        "/baton.v1.Control%2fCreateToken",
        "/baton.v1.control/createtoken",
        "/baton.v1.Control/CreateToken\0",
        "/baton.v1.Control/CreateToken ",
        "/baton.v1.Control/CreateToken;x",
        "https://coordinator/baton.v1.Control/CreateToken",
    ] {
        send(&site, &ana, path, &message).await;
        assert_eq!(made().await, 0, "{path:?}");
    }
    send(&site, &ana, "/baton.v1.Control/CreateToken", &message).await;
    assert_eq!(made().await, 1, "the very path does");
    // With the very path, the role still decides.
    let vera = site.member("viewer", "vera").await;
    for path in ["/baton.v1.Control/CreateToken", "//baton.v1.Control/CreateToken", "/baton.v1.Control/CreateToken?x=1"] {
        send(&site, &vera, path, &message).await;
    }
    assert_eq!(made().await, 1);
}

#[tokio::test]
async fn what_asks_for_two_people_begins_with_the_word_of_another_person_and_of_no_pipeline() {
    let site = Site::new().await;
    obey(site.dial(&site.member("host", "web1").await));
    upload(&site.admin, b"archive", 0).await.unwrap();
    let [dora, ben] = [site.member("deployer", "dora").await, site.member("deployer", "ben").await].map(|it| site.dial(&it));
    let pipeline = site.dial(&site.member("ci", "pipeline").await);
    let asks = |version: &str| {
        let mut wish = wish(&["web1"], version, b"archive");
        wish.manifest.push_str("\n[rollout]\nsecond_person = true\n");
        wish
    };
    let request = || v1::ServiceRequest { service: "shop".into(), ..Default::default() };
    deploy(&dora, asks("1.0")).await.unwrap();
    let view = until(&site.admin, |view| site::rollout_state(view) == "paused").await;
    assert!(view.hosts.iter().all(|host| host.instances.is_empty()), "nothing has begun: {view:?}");
    for (channel, refused) in [(&dora, Code(736)), (&pipeline, code::NOT_ALLOWED)] {
        let mut control = ControlClient::new(channel.clone());
        assert_eq!(from_status(&control.resume(request()).await.unwrap_err()).code, refused);
        assert_eq!(from_status(&control.promote(request()).await.unwrap_err()).code, refused);
    }
    ControlClient::new(ben.clone()).resume(request()).await.unwrap();
    until(&site.admin, |view| site::rollout_state(view) == "succeeded").await;

    let alone = deploy(&ben, wish(&["web1"], "2.0", b"archive")).await.unwrap_err();
    assert_eq!(alone.code, code::NOT_ALLOWED, "one alone does not end that two are asked: {alone}");
    deploy(&ben, asks("2.0")).await.unwrap();
    ControlClient::new(dora).promote(request()).await.unwrap();
    until(&site.admin, |view| view.services.iter().any(|it| it.committed_version == "2.0")).await;
    deploy(&site.admin, wish(&["web1"], "3.0", b"archive")).await.unwrap();
    until(&site.admin, |view| view.services.iter().any(|it| it.committed_version == "3.0")).await;
}
