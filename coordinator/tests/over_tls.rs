//! A coordinator over real mutual TLS on loopback, with agents and operators made by hand.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod site;

use baton_core::problem::Code;
use baton_proto::PROTOCOL;
use baton_proto::identity::Identity;
use baton_proto::problem::{code, from_status};
use baton_proto::tls::Credentials;
use baton_proto::v1;
use baton_proto::v1::artifacts_client::ArtifactsClient;
use baton_proto::v1::control_client::ControlClient;
use site::{Line, Site, deploy, fetch, join, join_as, obey, obeyed, rollout_state, token, until, upload, wish};
use std::io::Write;
use std::time::{Duration, Instant};
use tonic::transport::Channel;

impl Site {
    async fn status(&self, channel: &Channel) -> Result<v1::FleetView, Code> {
        let reply = ControlClient::new(channel.clone()).status(v1::StatusRequest::default()).await;
        reply.map(tonic::Response::into_inner).map_err(|status| from_status(&status).code)
    }
}

#[tokio::test]
async fn hosts_join_fetch_and_serve_a_release_that_an_operator_deploys() {
    let site = Site::new().await;
    let artifact: Vec<u8> = (0..700_000_u32).map(|number| (number % 251) as u8).collect();
    let hosts = ["web1", "web2", "web3"];
    let mut lines = Vec::new();
    for host in hosts {
        let channel = site.dial(&site.member("host", host).await);
        lines.push((channel.clone(), obey(channel)));
    }
    let operator = site.dial(&site.member("deployer", "ana").await);
    let view = until(&operator, |view| view.hosts.iter().filter(|host| host.connected).count() == 3).await;
    assert_eq!(view.hosts[0].agent_version, "0.0.1-test");

    // Half an upload, then the rest from where it stopped.
    assert_eq!(deploy(&operator, wish(&hosts, "1.0", &artifact)).await.unwrap_err().code, Code(601));
    let digest = blake3::hash(&artifact).as_bytes().to_vec();
    let half = [
        v1::upload_message::Kind::Open(v1::UploadOpen { digest, size: artifact.len() as u64, offset: 0 }),
        v1::upload_message::Kind::Chunk(v1::Chunk { offset: 0, bytes: artifact[..300_000].to_vec() }),
    ];
    let half = half.map(|kind| v1::UploadMessage { kind: Some(kind) });
    let stat = ArtifactsClient::new(operator.clone()).upload(tokio_stream::iter(half)).await.unwrap().into_inner();
    assert_eq!((stat.have, stat.complete), (300_000, false));
    assert!(upload(&operator, &artifact, 300_000).await.unwrap().complete);

    assert_eq!(deploy(&operator, wish(&hosts, "1.0", &artifact)).await.unwrap(), "r-1");
    let view = until(&operator, |view| rollout_state(view) == "succeeded").await;
    let service = &view.services[0];
    assert_eq!((service.health.as_str(), service.committed_version.as_str()), ("healthy", "1.0"));
    assert!(service.hosts.iter().all(|host| host.done && host.step == "serving" && host.versions == ["1.0"]), "{service:?}");
    assert_eq!(service.rollout.as_ref().unwrap().by, "ana");
    assert_eq!(deploy(&operator, wish(&hosts, "1.0", &artifact)).await.unwrap(), "", "already live");

    // Hosts may fetch what their specs name, from anywhere in it.
    let (host, _) = &lines[0];
    assert_eq!(fetch(host, &artifact, 0).await.unwrap(), artifact);
    assert_eq!(fetch(host, &artifact, 699_000).await.unwrap(), artifact[699_000..]);
    site.running.stop().await.unwrap();
    for (_, line) in lines {
        let ended = line.await.unwrap();
        assert!(ended.code == code::REFUSED || ended.code == code::BROKEN, "{ended:?}");
    }
}

#[tokio::test]
async fn a_host_fetches_nothing_that_its_spec_does_not_name() {
    let site = Site::new().await;
    let host = site.dial(&site.member("host", "web1").await);
    assert!(upload(&site.admin, b"somebody else's", 0).await.unwrap().complete);
    assert_eq!(fetch(&host, b"somebody else's", 0).await.unwrap_err().code, Code(601));
}

#[tokio::test]
async fn whoever_has_no_certificate_may_join_and_nothing_else() {
    let site = Site::new().await;
    let secret = token(&site.admin, "host", 1, &[]).await;
    let config = baton_proto::tls::joining_config(secret.pin).unwrap();
    let nobody = baton_proto::tls::channel(&site.running.listen.to_string(), baton_proto::tls::hot(config)).unwrap();
    assert_eq!(site.status(&nobody).await, Err(code::WHO_ARE_YOU));
    assert_eq!(Line::open(&nobody).await.err().map(|problem| problem.code), Some(code::WHO_ARE_YOU));
    assert_eq!(upload(&nobody, b"x", 0).await.unwrap_err().code, code::WHO_ARE_YOU);
}

#[tokio::test]
async fn everybody_may_do_what_the_role_says_and_no_more() {
    let site = Site::new().await;
    let viewer = site.dial(&site.member("viewer", "vera").await);
    let host = site.dial(&site.member("host", "web1").await);
    assert!(site.status(&viewer).await.is_ok());
    assert_eq!(deploy(&viewer, wish(&["web1"], "1.0", b"x")).await.unwrap_err().code, code::NOT_ALLOWED);
    assert_eq!(site.status(&host).await, Err(code::NOT_ALLOWED));
    assert_eq!(Line::open(&viewer).await.err().map(|problem| problem.code), Some(code::NOT_ALLOWED));
    let who = ControlClient::new(viewer).who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!((who.role.as_str(), who.name.as_str()), ("viewer", "vera"));
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let (site, other) = (Site::new().await, Site::new().await);
    let foreign = other.member("admin", "eve").await;
    let home = site.member("host", "web1").await;
    // With the right authority to believe, but a certificate of the wrong one.
    let disguised = Credentials { authority_pem: home.authority_pem.clone(), ..foreign };
    let refused = site.status(&site.dial(&disguised)).await.unwrap_err();
    assert_eq!(refused, code::REFUSED);
}

#[tokio::test]
async fn a_single_use_token_admits_exactly_one_of_many_who_come_at_once() {
    let site = Site::new().await;
    let secret = token(&site.admin, "host", 1, &[]).await;
    let attempts: Vec<_> = (0..100)
        .map(|number| {
            let (listen, secret) = (site.running.listen, secret.clone());
            tokio::spawn(async move { join(listen, &secret, &format!("web{number}")).await })
        })
        .collect();
    let mut admitted = 0;
    for attempt in attempts {
        match attempt.await.unwrap() {
            Ok(_) => admitted += 1,
            Err(problem) => assert_eq!(problem.code, code::TOKEN, "{problem:?}"),
        }
    }
    assert_eq!(admitted, 1);
    assert_eq!(site.status(&site.admin).await.unwrap().hosts.len(), 1);
}

#[tokio::test]
async fn joining_is_refused_with_a_reason_and_costs_no_use() {
    let site = Site::new().await;
    let mut secret = token(&site.admin, "host", 1, &["web1"]).await;
    assert_eq!(join(site.running.listen, &secret, "web2").await.unwrap_err().code, code::NAME);
    secret.secret[0] ^= 1;
    assert_eq!(join(site.running.listen, &secret, "web1").await.unwrap_err().code, code::TOKEN);
    secret.secret[0] ^= 1;
    secret.pin[0] ^= 1;
    assert_eq!(join(site.running.listen, &secret, "web1").await.unwrap_err().code, code::WRONG_PIN);
    secret.pin[0] ^= 1;
    let joined = join(site.running.listen, &secret, "web1").await.unwrap();
    assert_eq!(joined.subject().unwrap().identity, "host/web1".parse::<Identity>().unwrap());
}

#[tokio::test]
async fn a_host_that_chose_its_own_name_is_told_nothing_before_it_is_accepted() {
    let site = Site::new().await;
    site.member("host", "web1").await;
    let secret = token(&site.admin, "host", 2, &[]).await;
    let chosen = join(site.running.listen, &secret, "web2").await.unwrap();
    let line = obey(site.dial(&chosen));
    upload(&site.admin, b"archive", 0).await.unwrap();
    let both = || wish(&["web1", "web2"], "1.0", b"archive");
    let refused = deploy(&site.admin, both()).await.unwrap_err();
    assert_eq!((refused.code, refused.what.as_str()), (Code(737), "web2 joined, and nobody has accepted that yet"));
    let view = until(&site.admin, |view| view.hosts.iter().any(|host| host.name == "web2" && host.connected)).await;
    let waits: Vec<_> = view.hosts.iter().map(|host| (host.name.as_str(), host.waits_for_acceptance)).collect();
    assert_eq!(waits, [("web1", false), ("web2", true)]);

    let accept = v1::HostRequest { host: "web2".into(), ..v1::HostRequest::default() };
    let deployer = site.dial(&site.member("deployer", "dan").await);
    let refused = ControlClient::new(deployer).accept_host(accept.clone()).await.unwrap_err();
    assert_eq!(from_status(&refused).code, code::NOT_ALLOWED);
    let mut control = ControlClient::new(site.admin.clone());
    assert!(!control.accept_host(accept.clone()).await.unwrap().into_inner().unchanged);
    assert!(control.accept_host(accept).await.unwrap().into_inner().unchanged);
    assert_eq!(deploy(&site.admin, both()).await.unwrap(), "r-1");
    line.abort();
}

#[tokio::test]
async fn a_stranger_cannot_send_more_than_a_request_needs() {
    let site = Site::new().await;
    let secret = token(&site.admin, "host", 1, &[]).await;
    let config = baton_proto::tls::joining_config(secret.pin).unwrap();
    let nobody = baton_proto::tls::channel(&site.running.listen.to_string(), baton_proto::tls::hot(config)).unwrap();
    let request = v1::JoinRequest { csr_pem: "x".repeat(1024 * 1024), ..v1::JoinRequest::default() };
    let refused = v1::enrollment_client::EnrollmentClient::new(nobody).join(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::OutOfRange, "{refused:?}");
    assert!(join(site.running.listen, &secret, "web1").await.is_ok());
}

#[tokio::test]
async fn joining_again_ends_the_old_certificate_and_its_stream() {
    let site = Site::new().await;
    let old = site.dial(&site.member("host", "web1").await);
    let line = obey(old.clone());
    until(&site.admin, |view| view.hosts.iter().any(|host| host.connected)).await;
    let secret = token(&site.admin, "host", 1, &["web1"]).await;
    let by_mistake = join(site.running.listen, &secret, "web1").await.unwrap_err();
    assert!(by_mistake.code == code::NAME && by_mistake.help.as_ref().unwrap().contains("--replace"));
    let new = join_as(site.running.listen, &secret, "web1", true).await.unwrap();
    assert_eq!(line.await.unwrap().code, code::REFUSED);
    assert_eq!(obey(old).await.unwrap().code, code::REFUSED, "the old certificate must not come back");
    let mut line = Line::open(&site.dial(&new)).await.unwrap();
    line.spec().await.unwrap();
}

#[tokio::test]
async fn the_newer_stream_of_a_host_gets_the_specs_and_the_older_ends() {
    let site = Site::new().await;
    let credentials = site.member("host", "web1").await;
    let mut older = Line::open(&site.dial(&credentials)).await.unwrap();
    older.spec().await.unwrap();
    let mut newer = Line::open(&site.dial(&credentials)).await.unwrap();
    newer.spec().await.unwrap();
    assert_eq!(older.spec().await.unwrap_err().code, code::REFUSED);
}

#[tokio::test]
async fn an_agent_of_the_next_protocol_is_served_and_one_too_far_apart_is_told_so() {
    let site = Site::new().await;
    let web1 = site.dial(&site.member("host", "web1").await);
    let mut next = Line::speaking(&web1, PROTOCOL + 1, Vec::new()).await.unwrap();
    next.spec().await.unwrap();
    for protocol in [PROTOCOL + 2, 0] {
        let refused = Line::speaking(&web1, protocol, Vec::new()).await.unwrap().spec().await.unwrap_err();
        assert_eq!(refused.code, code::NOT_UNDERSTOOD);
        assert!(refused.what.contains("too far apart") && refused.help.is_some(), "{refused:?}");
        assert!(refused.seen[0].1.contains(&format!("protocol {protocol}")), "{refused:?}");
    }
}

#[tokio::test]
async fn bad_wishes_are_refused_with_what_was_seen() {
    let site = Site::new().await;
    site.member("host", "web1").await;
    upload(&site.admin, b"archive", 0).await.unwrap();
    let refusal = async |request| deploy(&site.admin, request).await.unwrap_err();

    let mut typo = wish(&["web1"], "1.0", b"archive");
    typo.manifest = typo.manifest.replace("[health]", "[helath]");
    let problem = refusal(typo).await;
    assert!((100..200).contains(&problem.code.0) && problem.seen[0].1.starts_with("baton.toml:"), "{problem:?}");
    let ghost = refusal(wish(&["web1", "ghost"], "1.0", b"archive")).await;
    assert!(ghost.code == Code(703) && ghost.what.contains("ghost"), "{ghost:?}");
    site.member("host", "web2").await;
    let remove = v1::HostRequest { host: "web2".into(), ..v1::HostRequest::default() };
    ControlClient::new(site.admin.clone()).remove_host(remove.clone()).await.unwrap();
    let gone = refusal(wish(&["web1", "web2", "ghost"], "1.0", b"archive")).await;
    assert!(gone.code == Code(703) && gone.what == "web2 was removed; ghost never joined", "{gone:?}");
    assert!(gone.seen[0].0 == "removed" && gone.seen[0].1.contains(" by admin/"), "{gone:?}");
    let again = ControlClient::new(site.admin.clone()).drain_host(remove).await.unwrap_err();
    assert_eq!(from_status(&again).what, "web2 was removed");
    let nobody = refusal(wish(&[], "1.0", b"archive")).await;
    assert!((100..200).contains(&nobody.code.0) || nobody.code == Code(702), "{nobody:?}");
    assert_eq!(refusal(wish(&["web1"], "1.0", b"never uploaded")).await.code, Code(601));
    let mut smaller = wish(&["web1"], "1.0", b"archive");
    smaller.artifact_size = 3;
    assert_eq!(refusal(smaller).await.code, Code(606));
    let mut odd = wish(&["web1"], "../1.0", b"archive");
    assert_eq!(refusal(odd.clone()).await.code, code::USAGE);
    let unplanned = refusal(v1::DeployRequest { if_plan: "x".into(), ..wish(&["web1"], "1.0", b"archive") }).await;
    assert!(unplanned.code == code::USAGE && unplanned.what.starts_with("--if-plan cannot be that: "), "{unplanned:?}");
    odd.version = "1.0".into();
    odd.artifact_digest = vec![1, 2, 3];
    assert_eq!(refusal(odd).await.code, code::NOT_UNDERSTOOD);

    deploy(&site.admin, wish(&["web1"], "1.0", b"archive")).await.unwrap();
    let mut second = wish(&["web1"], "1.0", b"archive");
    second.manifest = second.manifest.replace("service = \"shop\"", "service = \"blog\"");
    assert_eq!(refusal(second).await.code, Code(704));
    assert_eq!(refusal(wish(&["web1"], "2.0", b"archive")).await.code, Code(701));
}

#[tokio::test]
async fn a_plan_changes_nothing() {
    let site = Site::new().await;
    site.member("host", "web1").await;
    let request = wish(&["web1", "ghost"], "1.0", b"archive");
    let plan = ControlClient::new(site.admin.clone()).plan(request).await.unwrap().into_inner();
    assert_eq!(plan.problems.iter().map(|problem| problem.code).collect::<Vec<_>>(), [601, 703]);
    assert!(site.status(&site.admin).await.unwrap().services.is_empty());
}

#[tokio::test]
async fn tokens_are_listed_without_their_secret_and_revoked() {
    let site = Site::new().await;
    let secret = token(&site.admin, "host", 3, &[]).await;
    let mut control = ControlClient::new(site.admin.clone());
    let listed = control.list_tokens(v1::ListTokensRequest {}).await.unwrap().into_inner().tokens;
    assert_eq!((listed.len(), listed[0].uses_left, listed[0].role.as_str()), (1, 3, "host"));
    let id = listed[0].id.clone();
    let left = control.revoke_token(v1::RevokeTokenRequest { id }).await.unwrap().into_inner().tokens;
    assert!(left.is_empty());
    assert_eq!(join(site.running.listen, &secret, "web1").await.unwrap_err().code, code::TOKEN);
}

#[tokio::test]
async fn from_a_report_to_the_next_spec_is_a_matter_of_milliseconds() {
    let site = Site::new().await;
    upload(&site.admin, b"archive", 0).await.unwrap();
    let mut line = Line::open(&site.dial(&site.member("host", "web1").await)).await.unwrap();
    let mut spent = Vec::new();
    for version in 1..=20 {
        // Told to hold the release; its report leads to the spec that starts it.
        if version > 1 {
            deploy(&site.admin, wish(&["web1"], &format!("1.{version}"), b"archive")).await.unwrap();
        } else {
            let first = line.spec().await.unwrap();
            line.report(&obeyed(&first)).await;
            deploy(&site.admin, wish(&["web1"], "1.1", b"archive")).await.unwrap();
        }
        let mut starts = false;
        while !starts {
            let spec = line.spec().await.unwrap();
            let versions = spec.instances.values().filter_map(|it| spec.releases.get(&it.release));
            starts = versions.map(|release| release.version.to_string()).any(|it| it == format!("1.{version}"));
            let reported = Instant::now();
            line.report(&obeyed(&spec)).await;
            if !starts {
                let next = line.spec().await.unwrap();
                spent.push(reported.elapsed());
                line.report(&obeyed(&next)).await;
                starts = true;
            }
        }
        until(&site.admin, |view| rollout_state(view) == "succeeded").await;
        while let Ok(spec) = tokio::time::timeout(Duration::from_millis(50), line.spec()).await {
            line.report(&obeyed(&spec.unwrap())).await;
        }
    }
    spent.sort();
    let (median, worst) = (spent[spent.len() / 2], spent[spent.len() - 1]);
    let _ = writeln!(std::io::stderr(), "report to spec: median {median:?}, worst {worst:?} of {}", spent.len());
    // One commit and two hops, a few milliseconds; the bound leaves room for machines that do other things too.
    assert!(median < Duration::from_millis(50), "{spent:?}");
}
