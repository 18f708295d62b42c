//! The audit log over real mutual TLS, and what becomes of it when somebody edits the database.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod site;

use baton_coordinator::config::Config;
use baton_coordinator::{Running, init, start};
use baton_proto::problem::code;
use baton_proto::v1;
use baton_proto::v1::control_client::ControlClient;
use serde_json::Value;
use site::{Line, admin, config, deploy, dial, join, token, upload, wish};
use std::time::Duration;
use tonic::transport::Channel;

struct Site {
    running: Running,
    admin: Channel,
    config: Config,
    _folder: tempfile::TempDir,
}

impl Site {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        init(&config).await.unwrap();
        let running = start(&config).await.unwrap();
        Self { running, admin: admin(&config), config, _folder: folder }
    }

    async fn entries(&self) -> Vec<Value> {
        let request = v1::ListAuditRequest::default();
        let mut stream = ControlClient::new(self.admin.clone()).list_audit(request).await.unwrap().into_inner();
        let mut entries = Vec::new();
        while let Some(entry) = stream.message().await.unwrap() {
            entries.push(serde_json::from_str(&entry.text).unwrap());
        }
        entries
    }

    async fn faults(&self) -> Vec<v1::AuditFault> {
        let verdict = ControlClient::new(self.admin.clone()).verify_audit(v1::VerifyAuditRequest {}).await;
        verdict.unwrap().into_inner().faults
    }

    /// As somebody does who has the disk.
    async fn tamper(&self, statement: &'static str) {
        sqlx::any::install_default_drivers();
        let file = std::fs::read_dir(&self.config.state).unwrap().map(|entry| entry.unwrap().path());
        let file = file.into_iter().find(|path| path.extension().is_some_and(|it| it == "sqlite")).unwrap();
        let pool = sqlx::AnyPool::connect(&format!("sqlite://{}", file.display())).await.unwrap();
        sqlx::raw_sql(statement).execute(&pool).await.unwrap();
        pool.close().await;
    }

    /// Some commands, so that there is a log.
    async fn commands(&self, count: usize) {
        for _ in 0..count {
            token(&self.admin, "host", 1, &[]).await;
        }
    }
}

fn texts<'a>(entry: &'a Value, fields: [&str; 4]) -> [&'a str; 4] {
    fields.map(|field| entry.get(field).and_then(Value::as_str).unwrap_or(""))
}

#[tokio::test]
async fn a_command_is_recorded_with_who_from_where_what_before_and_after_and_a_look_is_not() {
    let site = Site::new().await;
    let secret = token(&site.admin, "deployer", 1, &["ana"]).await;
    let ana = dial(site.running.listen, &join(site.running.listen, &secret, "ana").await.unwrap());
    join(site.running.listen, &token(&site.admin, "host", 1, &["web1"]).await, "web1").await.unwrap();
    upload(&ana, b"archive", 0).await.unwrap();
    ControlClient::new(ana.clone()).status(v1::StatusRequest::default()).await.unwrap();
    deploy(&ana, wish(&["web1"], "1.0", b"archive")).await.unwrap();
    let why = v1::ServiceRequest { service: "shop".into(), why: "lunch".into() };
    ControlClient::new(ana.clone()).pause(why.clone()).await.unwrap();
    deploy(&ana, wish(&["web1"], "2.0", b"archive")).await.unwrap_err();
    deploy(&ana, wish(&["web1"], "3.0", b"nobody uploaded it")).await.unwrap_err();
    let unread = v1::DeployRequest {
        manifest: "service = 1".into(),
        manifest_path: "shop.toml".into(),
        ..wish(&["web1"], "4.0", b"archive")
    };
    deploy(&ana, unread).await.unwrap_err();

    let entries = site.entries().await;
    let calls: Vec<_> = entries.iter().map(|entry| entry["call"].as_str().unwrap()).collect();
    assert_eq!(
        calls,
        [
            "Control/CreateToken",
            "Enrollment/Join",
            "Control/CreateToken",
            "Enrollment/Join",
            "Control/Deploy",
            "Control/Pause",
            "Control/Deploy",
            "Control/Deploy",
            "Control/Deploy"
        ]
    );
    assert!(entries[0]["from"] == "local" && entries[0]["who"].as_str().unwrap().starts_with("admin/"), "{}", entries[0]);
    assert_eq!(texts(&entries[1], ["who", "from", "refused", ""]), ["anonymous", "127.0.0.1", "", ""]);
    let id = entries[0]["about"].as_str().unwrap();
    assert_eq!(entries[1]["about"], format!("join as ana with {id}"));
    assert!(entries[1]["after"].as_str().unwrap().contains("deployer/ana"), "{}", entries[1]);
    assert_eq!(texts(&entries[4], ["who", "from", "about", "refused"]), ["deployer/ana", "127.0.0.1", "shop 1.0", ""]);
    assert!(entries[4]["after"].as_str().unwrap().contains(r#""to_version":"1.0""#), "{}", entries[4]);
    assert_eq!(texts(&entries[5], ["about", "why", "refused", ""]), ["shop", "lunch", "", ""]);
    assert!(entries[5]["before"].as_str().unwrap().contains("\"state\""), "{}", entries[5]);
    assert!(entries[5]["after"].as_str().unwrap().contains(r#""state":"paused""#), "{}", entries[5]);
    assert!(entries[6]["refused"].as_str().unwrap().contains("B0701"), "{}", entries[6]);
    assert_eq!(entries[6]["about"], "shop 2.0");
    assert_eq!((&entries[7]["about"], &entries[8]["about"]), (&"shop 3.0".into(), &"shop.toml 4.0".into()));
    assert_eq!(site.faults().await, []);
}

#[tokio::test]
async fn refusals_are_recorded_also_of_calls_that_would_only_look() {
    let site = Site::new().await;
    let secret = token(&site.admin, "viewer", 1, &[]).await;
    let vera = dial(site.running.listen, &join(site.running.listen, &secret, "vera").await.unwrap());
    assert_eq!(deploy(&vera, wish(&["web1"], "1.0", b"x")).await.unwrap_err().code, code::NOT_ALLOWED);
    assert!(ControlClient::new(vera).list_tokens(v1::ListTokensRequest {}).await.is_err());
    assert_eq!(join(site.running.listen, &secret, "eve").await.unwrap_err().code, code::TOKEN);
    let entries = site.entries().await;
    let refused: Vec<_> = entries.iter().filter(|entry| entry.get("refused").is_some()).collect();
    let who: Vec<_> = refused.iter().map(|entry| texts(entry, ["who", "call", "", ""])).map(|it| (it[0], it[1])).collect();
    assert_eq!(
        who,
        [("viewer/vera", "Control/Deploy"), ("viewer/vera", "Control/ListTokens"), ("anonymous", "Enrollment/Join")]
    );
}

#[tokio::test]
async fn no_secret_of_a_token_reaches_the_log() {
    let site = Site::new().await;
    let secret = token(&site.admin, "host", 1, &[]).await;
    join(site.running.listen, &secret, "web1").await.unwrap();
    // Neither of one that is good no more, nor of one that nobody made.
    join(site.running.listen, &secret, "web2").await.unwrap_err();
    let foreign = baton_proto::token::JoinToken { secret: [7; 32], ..secret.clone() };
    join(site.running.listen, &foreign, "web3").await.unwrap_err();
    let about: Vec<_> = site.entries().await.iter().map(|entry| entry["about"].as_str().unwrap_or("").to_owned()).collect();
    assert_eq!(about[2], format!("join as web2 with {}", about[0]));
    assert_eq!(about[3], "join as web3 with an unknown token");
    let all = format!("{:?}", site.entries().await);
    let shown = secret.to_string();
    assert!(!all.contains("baton1.") && !all.contains(&shown[60..80]), "{all}");
}

#[tokio::test]
async fn editing_deleting_truncating_and_replacing_entries_is_found() {
    for (what, statement, number) in [
        ("edited", "UPDATE audit SET entry = REPLACE(entry, 'accepted', 'x') || ' ' WHERE number = 3", 3),
        ("another time", "UPDATE audit SET at = at - 3600 WHERE number = 2", 2),
        ("deleted", "DELETE FROM audit WHERE number = 4", 4),
        ("renumbered", "DELETE FROM audit WHERE number = 2; UPDATE audit SET number = number - 1 WHERE number > 2", 2),
        ("truncated", "DELETE FROM audit WHERE number > 3", 4),
        ("replaced", "UPDATE audit SET entry = (SELECT entry FROM audit WHERE number = 1) || ' ' WHERE number = 5", 5),
        ("emptied", "DELETE FROM audit", 1),
    ] {
        let site = Site::new().await;
        site.commands(6).await;
        assert_eq!(site.faults().await, [], "{what}: before");
        site.tamper(statement).await;
        let faults = site.faults().await;
        assert_eq!(faults.first().map(|fault| fault.number), Some(number), "{what}: {faults:?}");
        site.running.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_log_cut_off_while_the_coordinator_was_down_is_found_by_what_an_agent_remembers() {
    let site = Site::new().await;
    let web1 = join(site.running.listen, &token(&site.admin, "host", 1, &["web1"]).await, "web1").await.unwrap();
    site.commands(4).await;
    let mut line = Line::open(&dial(site.running.listen, &web1)).await.unwrap();
    let head = tokio::time::timeout(Duration::from_secs(20), line.audit_head()).await.expect("no head came");
    assert_eq!(head.number, 6);

    site.tamper("DELETE FROM audit WHERE number > 4").await;
    let Site { running, config, _folder, .. } = site;
    running.stop().await.unwrap();
    let running = start(&config).await.unwrap();
    let site = Site { admin: admin(&config), running, config, _folder };
    assert_eq!(site.faults().await, [], "the coordinator itself cannot know");
    let again = dial(site.running.listen, &web1);
    let _line = Line::remembering(&again, vec![head]).await.unwrap();
    let faults = site.faults().await;
    assert!(faults.len() == 1 && faults[0].what.contains("host/web1 remembers entry 6"), "{faults:?}");

    // Somebody says that it is lost, and from then on it is a note.
    let mut control = ControlClient::new(site.admin.clone());
    let asked = |heads| v1::AcceptAuditLossRequest { heads, why: "the disk".into() };
    let another = v1::AuditHead { number: 6, hash: vec![7; 32] };
    assert!(control.accept_audit_loss(asked(vec![another])).await.is_err(), "nobody lost that one");
    let verdict = control.accept_audit_loss(asked(vec![])).await.unwrap().into_inner();
    assert_eq!((verdict.faults.len(), verdict.lost, verdict.accepted.len()), (0, None, 1));
    let accepted = &verdict.accepted[0];
    assert_eq!((accepted.first, accepted.last, accepted.entry, accepted.why.as_str()), (5, 6, 5, "the disk"));
    assert!(accepted.by.starts_with("admin/") && accepted.held_by == ["host/web1"], "{accepted:?}");
    site.commands(4).await;
    assert_eq!(site.faults().await, []);
    let last = site.entries().await.pop().unwrap();
    assert_eq!(last["call"], "Control/CreateToken");
    // What is cut off later is another loss.
    site.tamper("DELETE FROM audit WHERE number > 7").await;
    assert!(!site.faults().await.is_empty());
}
