use super::{Counters, Seen, Sources, Store, Usage, metrics, serve};
use crate::condition::Condition;
use crate::reconciler::{Event, Obstacle, View};
use baton_core::fleet::InstanceKey;
use baton_core::fleet::report::{MemberReport, PoolReport};
use baton_core::fleet::spec::MemberState;
use baton_core::name::{Digest, Slot};
use baton_core::problem::{Code, Problem};
use baton_proto::metrics::Exposition;
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

fn view() -> View {
    let served = MemberReport { requests: 70, errors: 3, in_flight: 2, ..MemberReport::quiet(MemberState::Ready) };
    let pool = PoolReport { members: BTreeMap::from([("web1/0".parse().unwrap(), served)]), ..PoolReport::default() };
    let gone = PoolReport { problem: Some(Problem::new(Code(401), "its socket is gone")), ..PoolReport::default() };
    View {
        pools: BTreeMap::from([("shop".parse().unwrap(), pool), ("till".parse().unwrap(), gone)]),
        problems: BTreeMap::from([(Obstacle::Ledger, Problem::new(Code(535), "it cannot be believed"))]),
        ..View::default()
    }
}

fn text(view: &View, counters: &Counters) -> String {
    let mut out = Exposition::default();
    let troubles = [("clock", true), ("space", false)];
    let key = InstanceKey { service: "shop".parse().unwrap(), slot: Slot(1) };
    let usage = BTreeMap::from([(key, Usage { resident_bytes: 8192, own_bytes: 4096, cpu_seconds: 1.5 })]);
    metrics(
        &mut out,
        &Seen { view, counters, troubles, artifact_bytes: 4096, certificate: Some((1_000, 8_000)), usage: &usage },
    );
    out.text()
}

#[test]
fn what_a_host_sees_is_what_it_says() {
    let counters = Counters::default();
    counters.session_began();
    counters.session_ended();
    counters.session_began();
    let text = text(&view(), &counters);
    for line in [
        "baton_agent_connected 1",
        "baton_agent_sessions_total 2",
        "baton_agent_certificate_not_after_timestamp_seconds 8000",
        "baton_agent_artifact_bytes 4096",
        "baton_agent_problem{about=\"ledger\"} 1",
        "baton_agent_problem{about=\"balancer\"} 0",
        "baton_agent_problem{about=\"clock\"} 1",
        "baton_agent_instance_resident_memory_bytes{service=\"shop\",slot=\"1\"} 8192",
        "baton_agent_instance_cpu_seconds_total{service=\"shop\",slot=\"1\"} 1.5",
        "baton_agent_pool_up{pool=\"shop\"} 1",
        "baton_agent_pool_up{pool=\"till\"} 0",
        "baton_agent_member_requests_total{member=\"web1/0\",pool=\"shop\"} 70",
        "baton_agent_member_errors_total{member=\"web1/0\",pool=\"shop\"} 3",
        "baton_agent_member_in_flight_requests{member=\"web1/0\",pool=\"shop\"} 2",
    ] {
        assert!(text.lines().any(|it| it == line), "{line}\n{text}");
    }
}

#[test]
fn every_family_has_a_name_that_follows_the_rules() {
    let text = text(&view(), &Counters::default());
    let families: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    assert!(families.len() >= 15, "{families:?}");
    for (name, kind) in families {
        assert!(name.starts_with("baton_agent_"), "{name}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
        assert!(text.contains(&format!("# HELP {name} ")), "{name}");
    }
}

#[test]
fn the_bytes_of_releases_are_counted_once_and_gone_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path().to_owned());
    assert_eq!(store.bytes(), 0);
    let artifact = folder.path().join(Digest::of(b"1").to_string());
    fs::create_dir_all(artifact.join("bin")).unwrap();
    fs::write(artifact.join("bin/shop"), [0; 1000]).unwrap();
    fs::write(artifact.join("VERSION"), "1").unwrap();
    fs::create_dir(folder.path().join(".incoming")).unwrap();
    fs::write(folder.path().join(".incoming/next.part"), [0; 10]).unwrap();
    assert_eq!(store.bytes(), 1011);
    fs::write(folder.path().join(".incoming/next.part"), [0; 20]).unwrap();
    assert_eq!(store.bytes(), 1021, "what is on its way is looked at every time");
    fs::remove_dir_all(artifact).unwrap();
    assert_eq!(store.bytes(), 20);
}

async fn ask(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

#[tokio::test]
async fn an_address_that_is_taken_is_told_and_answered_at_once_it_is_free() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let (events, mut told) = mpsc::unbounded_channel();
    let (_view, viewed) = watch::channel(Arc::new(view()));
    let folder = tempfile::tempdir().unwrap();
    let sources = Sources {
        view: viewed,
        counters: Arc::default(),
        condition: Condition::new(folder.path().to_owned()),
        store: Arc::new(Store::new(folder.path().join("releases"))),
    };
    let serving = tokio::spawn(serve(Some(address), sources, events));
    let Some(Event::Obstacle { what: Obstacle::Metrics, problem: Some(problem) }) = told.recv().await else { panic!() };
    assert_eq!(problem.code, Code(545));
    drop(taken);
    let within = tokio::time::timeout(Duration::from_secs(30), told.recv()).await.unwrap();
    assert!(matches!(within, Some(Event::Obstacle { what: Obstacle::Metrics, problem: None })), "{within:?}");
    let answer = ask(address).await.unwrap();
    assert!(answer.contains("\nbaton_agent_connected 0\n"), "{answer}");
    // A certificate that cannot be read is none, and the rest is said.
    assert!(!answer.contains("\nbaton_agent_certificate_not_after_timestamp_seconds "), "{answer}");
    serving.abort();
}
