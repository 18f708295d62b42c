//! One authority takes the place of another over real mutual TLS, with hosts that are away meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod site;

use baton_coordinator::backup::backup;
use baton_coordinator::config::Config;
use baton_coordinator::restore::{Backup, Whose};
use baton_coordinator::{Running, init, start};
use baton_core::problem::{Code, Problem};
use baton_proto::problem::{code, from_status};
use baton_proto::renewal;
use baton_proto::tls::{Credentials, authority_pin};
use baton_proto::v1::control_client::ControlClient;
use baton_proto::v1::{self, coordinator_message};
use site::{Line, PATIENCE, admin, config, dial, join, token};
use std::path::Path;
use tokio::time::timeout;
use tonic::transport::Channel;

/// A coordinator whose disk stays when it stops.
struct Seat {
    config: Config,
    running: Running,
    admin: Channel,
}

impl Seat {
    async fn new(folder: &Path) -> Self {
        let config = config(folder);
        init(&config).await.unwrap();
        Self::start(config).await
    }

    async fn start(config: Config) -> Self {
        let running = start(&config).await.unwrap();
        Self { running, admin: admin(&config), config }
    }

    async fn again(self) -> Self {
        self.running.stop().await.unwrap();
        Self::start(self.config).await
    }

    fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.admin.clone())
    }

    async fn member(&self, role: &str, name: &str) -> Credentials {
        join(self.running.listen, &token(&self.admin, role, 1, &[]).await, name).await.unwrap()
    }

    async fn rotate(&self) -> Result<v1::AuthorityView, Problem> {
        answer(self.control().rotate_authority(v1::RotateAuthorityRequest::default()).await)
    }

    async fn retire(&self, force: bool) -> Result<v1::AuthorityView, Problem> {
        let request = v1::RetireAuthorityRequest { why: "it leaked".into(), force };
        answer(self.control().retire_authority(request).await)
    }

    /// Everybody, and whether they have moved.
    async fn moved(&self) -> Vec<(String, bool)> {
        let view = self.control().authority_status(v1::AuthorityStatusRequest {}).await.unwrap().into_inner();
        view.bearers.into_iter().map(|bearer| (bearer.identity, bearer.moved)).collect()
    }

    async fn renewed(&self, credentials: &Credentials) -> Result<Credentials, Problem> {
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        renewal::renew(&self.running.listen.to_string(), credentials, key.serialize_pem(), csr).await
    }

    async fn open(&self, credentials: &Credentials) -> Result<Line, Problem> {
        let mut line = Line::open(&dial(self.running.listen, credentials)).await?;
        line.spec().await?;
        Ok(line)
    }

    async fn status(&self, credentials: &Credentials) -> Result<(), Problem> {
        let mut control = ControlClient::new(dial(self.running.listen, credentials));
        answer(control.status(v1::StatusRequest::default()).await).map(drop)
    }
}

fn answer<T>(reply: Result<tonic::Response<T>, tonic::Status>) -> Result<T, Problem> {
    reply.map(tonic::Response::into_inner).map_err(|status| from_status(&status))
}

/// The next word on whom to believe.
async fn pins(line: &mut Line) -> Vec<Vec<u8>> {
    let told = async {
        loop {
            match line.hear.message().await.unwrap().expect("the stream ended").kind {
                Some(coordinator_message::Kind::Authorities(told)) => return told.pins,
                _ => continue,
            }
        }
    };
    timeout(PATIENCE, told).await.expect("nothing was said of authorities")
}

fn authorities(credentials: &Credentials) -> usize {
    credentials.authority_pem.matches("BEGIN CERTIFICATE").count()
}

fn labels(problem: &Problem) -> Vec<&str> {
    problem.seen.iter().map(|(label, _)| label.as_str()).collect()
}

#[tokio::test]
async fn a_host_that_was_away_comes_back_with_what_it_had_and_moves_and_only_then_the_old_one_ends() {
    let folder = tempfile::tempdir().unwrap();
    let seat = Seat::new(folder.path()).await;
    let old_token = token(&seat.admin, "host", 9, &[]).await;
    let (web1, web2) = (seat.member("host", "web1").await, seat.member("host", "web2").await);
    let old = authority_pin(&web1.authority_pem).unwrap();
    let mut line = Line::open(&dial(seat.running.listen, &web1)).await.unwrap();
    assert_eq!(pins(&mut line).await, [old.to_vec()]);

    let view = seat.rotate().await.unwrap();
    assert_eq!(view.authorities.iter().map(|it| it.signs).collect::<Vec<_>>(), [true, false]);
    let told = pins(&mut line).await;
    assert!(told.len() == 2 && told[1] == old, "on the stream that was open before: {told:?}");

    let new1 = seat.renewed(&web1).await.unwrap();
    assert_eq!(authorities(&new1), 2);
    assert_eq!(authority_pin(&new1.authority_pem).unwrap().to_vec(), told[0]);
    let both = |first| vec![("host/web1".to_owned(), first), ("host/web2".to_owned(), false)];
    assert_eq!(seat.moved().await, both(false), "issued, tried, and perhaps lost before it was kept");
    renewal::kept(&seat.running.listen.to_string(), &new1).await.unwrap();
    assert_eq!(seat.moved().await, both(true));
    let refused = seat.retire(false).await.unwrap_err();
    assert_eq!((refused.code, labels(&refused)), (Code(1034), vec!["host/web2"]));

    // A token from before is good still, and so is everything web2 has: its certificate, and the old authority alone.
    join(seat.running.listen, &old_token, "web3").await.unwrap();
    assert_eq!(authorities(&web2), 1);
    let mut away = Line::open(&dial(seat.running.listen, &web2)).await.unwrap();
    assert_eq!(pins(&mut away).await, told);
    let new2 = seat.renewed(&web2).await.unwrap();
    seat.open(&new2).await.unwrap();
    assert!(seat.moved().await.iter().all(|(_, moved)| *moved));

    assert_eq!(seat.retire(false).await.unwrap().authorities.len(), 1);
    for gone in [&web1, &web2] {
        assert_eq!(seat.open(gone).await.err().map(|problem| problem.code), Some(code::UNKNOWN_AUTHORITY));
    }
    // Its stream began with a certificate of the old one.
    let ended = loop {
        match line.spec().await {
            Ok(_) => {}
            Err(problem) => break problem,
        }
    };
    assert!(ended.code == code::REFUSED && ended.what.contains("was retired"), "{ended}");
    for stays in [&new1, &new2] {
        let mut line = Line::open(&dial(seat.running.listen, stays)).await.unwrap();
        assert_eq!(pins(&mut line).await, [told[0].clone()]);
        assert_eq!(authorities(&seat.renewed(stays).await.unwrap()), 1);
    }
    let refused = join(seat.running.listen, &old_token, "web4").await.unwrap_err();
    assert!(refused.code == code::WRONG_PIN && refused.help.as_ref().unwrap().contains("rotated"), "{refused:?}");
    seat.member("host", "web4").await;
    seat.running.stop().await.unwrap();
}

#[tokio::test]
async fn whatever_a_coordinator_left_when_it_was_killed_both_kinds_of_hosts_find_it() {
    let folder = tempfile::tempdir().unwrap();
    let seat = Seat::new(folder.path()).await;
    let identity = seat.config.state.join("identity");
    let (web1, web2) = (seat.member("host", "web1").await, seat.member("host", "web2").await);
    let before = |name: &str| std::fs::read(identity.join(name)).unwrap();
    let own: Vec<_> = ["certificate.pem", "key.pem"].into_iter().map(|name| (name, before(name))).collect();
    seat.rotate().await.unwrap();
    // The rotation was written down, and nothing else yet.
    let seat = {
        seat.running.stop().await.unwrap();
        own.iter().for_each(|(name, bytes)| std::fs::write(identity.join(name), bytes).unwrap());
        Seat::start(seat.config).await
    };
    seat.open(&web1).await.unwrap();
    let new1 = seat.renewed(&web1).await.unwrap();
    let seat = seat.again().await;
    seat.open(&new1).await.unwrap();
    seat.open(&web2).await.unwrap();
    assert_eq!(seat.moved().await, [("host/web1".to_owned(), true), ("host/web2".to_owned(), false)]);

    // The end was written down, and nothing else yet: not in the store either.
    let seat = {
        seat.running.stop().await.unwrap();
        std::fs::rename(identity.join("rotation.pem"), identity.join("retired.pem")).unwrap();
        Seat::start(seat.config).await
    };
    seat.open(&new1).await.unwrap();
    assert_eq!(seat.open(&web2).await.err().map(|problem| problem.code), Some(code::UNKNOWN_AUTHORITY));
    assert_eq!(seat.moved().await, [("host/web1".to_owned(), true)]);
    let listed = seat.control().list_certificates(v1::ListCertificatesRequest {}).await.unwrap().into_inner();
    let mut revoked: Vec<_> = listed.certificates.into_iter().map(|one| (one.identity, one.revoked)).collect();
    revoked.sort();
    assert_eq!(
        revoked,
        [("host/web1", false), ("host/web1", true), ("host/web2", true)].map(|(who, it)| (who.to_owned(), it))
    );
    assert!(!identity.join("retired.pem").exists());
    seat.running.stop().await.unwrap();
}

#[tokio::test]
async fn by_force_those_who_did_not_move_are_cut_off_and_named_but_never_whoever_asks() {
    let folder = tempfile::tempdir().unwrap();
    let seat = Seat::new(folder.path()).await;
    let (ana, vera, pipeline) =
        (seat.member("admin", "ana").await, seat.member("viewer", "vera").await, seat.member("ci", "pipeline").await);
    assert_eq!(seat.retire(true).await.unwrap_err().code, Code(1033), "there is nothing to retire");
    seat.rotate().await.unwrap();
    assert_eq!(seat.rotate().await.unwrap_err().code, Code(1033));
    let mut views = {
        let mut watching = ControlClient::new(dial(seat.running.listen, &vera));
        watching.watch(v1::StatusRequest::default()).await.unwrap().into_inner()
    };
    views.message().await.unwrap().expect("the first view comes at once");

    let force = v1::RetireAuthorityRequest { force: true, ..v1::RetireAuthorityRequest::default() };
    let mut own = ControlClient::new(dial(seat.running.listen, &ana));
    let refused = answer(own.retire_authority(force.clone()).await).unwrap_err();
    assert!(refused.code == Code(1034) && refused.what.contains("admin/ana itself"), "{refused}");
    let ana = seat.renewed(&ana).await.unwrap();
    let mut own = ControlClient::new(dial(seat.running.listen, &ana));
    let ended = answer(own.retire_authority(force).await).unwrap();
    let left: Vec<_> = ended.bearers.iter().filter(|it| !it.moved).map(|it| it.identity.as_str()).collect();
    assert_eq!(left, ["ci/pipeline", "viewer/vera"]);
    let cut = loop {
        match views.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("ended without a word"),
            Err(status) => break from_status(&status),
        }
    };
    assert_eq!(cut.code, code::REFUSED);
    for gone in [&vera, &pipeline] {
        assert_eq!(seat.status(gone).await.unwrap_err().code, code::UNKNOWN_AUTHORITY);
    }
    seat.status(&ana).await.unwrap();
    // A pipeline's file is written once: it believes the authority that stays, already during a rotation.
    seat.rotate().await.unwrap();
    assert_eq!(authorities(&seat.member("ci", "pipeline").await), 1);
    assert_eq!(authorities(&seat.member("viewer", "vera").await), 2);
    seat.running.stop().await.unwrap();
}

#[tokio::test]
async fn a_backup_carries_both_authorities() {
    let folder = tempfile::tempdir().unwrap();
    let seat = Seat::new(folder.path()).await;
    let web1 = seat.member("host", "web1").await;
    seat.rotate().await.unwrap();
    let web2 = seat.member("host", "web2").await;
    let file = folder.path().join("copy.tar.zst");
    backup(&seat.config, &folder.path().join("none.toml"), &file).await.unwrap();
    seat.running.stop().await.unwrap();
    let elsewhere = Config { state: folder.path().join("elsewhere"), ..seat.config };
    Backup::read(&file).unwrap().restore(&elsewhere, false).await.unwrap();
    let seat = Seat::start(elsewhere).await;
    for host in [&web1, &web2] {
        let greeted = Line::open(&dial(seat.running.listen, host)).await.unwrap();
        drop(greeted);
    }
    assert_eq!(seat.moved().await, [("host/web1".to_owned(), false), ("host/web2".to_owned(), true)]);
    seat.renewed(&web1).await.unwrap();
    seat.running.stop().await.unwrap();
}

#[tokio::test]
async fn a_host_that_a_restored_coordinator_does_not_know_is_not_left_behind_unnamed() {
    let folder = tempfile::tempdir().unwrap();
    let seat = Seat::new(folder.path()).await;
    let file = folder.path().join("copy.tar.zst");
    backup(&seat.config, &folder.path().join("none.toml"), &file).await.unwrap();
    let vera = seat.member("viewer", "vera").await;
    seat.running.stop().await.unwrap();
    // On another disk: what she was given since is known to nobody.
    std::fs::remove_file(seat.config.state.join("store.sqlite")).unwrap();
    Backup::read(&file).unwrap().restore(&seat.config, true).await.unwrap();
    let seat = Seat::start(seat.config).await;
    assert!(seat.moved().await.is_empty(), "the copy is older than she is");
    seat.status(&vera).await.unwrap();
    seat.rotate().await.unwrap();
    assert_eq!(seat.moved().await, [("viewer/vera".to_owned(), false)]);
    let refused = seat.retire(false).await.unwrap_err();
    assert_eq!((refused.code, labels(&refused)), (Code(1034), vec!["viewer/vera"]));
    seat.running.stop().await.unwrap();
}

#[tokio::test]
async fn a_backup_from_before_an_authority_was_retired_does_not_bring_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let seat = Seat::new(folder.path()).await;
    let web1 = seat.member("host", "web1").await;
    let file = folder.path().join("copy.tar.zst");
    backup(&seat.config, &folder.path().join("none.toml"), &file).await.unwrap();
    seat.rotate().await.unwrap();
    let renewed = seat.renewed(&web1).await.unwrap();
    seat.status(&seat.member("viewer", "vera").await).await.unwrap();
    drop(seat.open(&renewed).await.unwrap());
    seat.retire(true).await.unwrap();
    seat.running.stop().await.unwrap();
    let done = Backup::read(&file).unwrap().restore(&seat.config, true).await.unwrap();
    assert!(matches!(&done.authority, Whose::Later(_)), "{done:?}");
    assert_eq!(done.revoked, Some(Vec::new()), "she only renewed hers");
    let seat = Seat::start(seat.config).await;
    let listed = seat.control().list_certificates(v1::ListCertificatesRequest {}).await.unwrap().into_inner();
    let known = listed.certificates;
    for whose in ["host/web1", "viewer/vera"] {
        assert!(known.iter().any(|it| it.identity == whose && !it.revoked), "{whose} has a good one: {known:?}");
    }
    drop(Line::open(&dial(seat.running.listen, &renewed)).await.unwrap());
    assert!(Line::open(&dial(seat.running.listen, &web1)).await.is_err(), "what was retired may have leaked");
    seat.running.stop().await.unwrap();

    // Of another coordinator nobody knows which authority hosts believe.
    let elsewhere = Config { state: folder.path().join("elsewhere"), ..seat.config };
    init(&elsewhere).await.unwrap();
    let done = Backup::read(&file).unwrap().restore(&elsewhere, true).await.unwrap();
    assert!(matches!(&done.authority, Whose::NotThere(_)), "{done:?}");
    let again = Backup::read(&file).unwrap().restore(&elsewhere, true).await.unwrap();
    assert_eq!(again.authority, Whose::Backups);
}
