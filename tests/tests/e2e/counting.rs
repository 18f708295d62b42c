//! A release that fails its users is taken back by what its instances count themselves, without any load balancer: by their own pages,
//! or by a Prometheus that reads them.

use baton_cli::demo::stage::release::{Behaviour, Fault};
use baton_cli::demo::stage::{Setup, Stage};
use baton_proto::v1::{FleetView, RolloutView, SourceView};
use baton_tests::e2e::prometheus::Prometheus;
use baton_tests::e2e::{have, in_time, setup};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Between two requests to one port: enough for a few looks to tell, and little for two cores.
const PAUSE: Duration = Duration::from_millis(20);

/// The stage's manifest for a service that nobody balances, with more of it.
fn manifest(stage: &Stage, more: &str) -> String {
    let text = stage.manifest();
    let (before, rest) = text.split_once("[balancer]").unwrap();
    let (_, after) = rest.split_once("[rollout]").unwrap();
    format!("{before}[rollout]{after}\n{more}")
}

fn unwatched(manifest: &str) -> String {
    let lines = manifest.lines().filter(|line| !line.starts_with("waves") && !line.starts_with("bake"));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Clients of every instance, one after the other at each port; who is not there is not asked.
fn clients(stage: &Stage) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for host in &stage.places.hosts {
        for port in &stage.places.ports {
            let address = SocketAddr::new(*host, *port);
            clients.spawn(async move {
                loop {
                    let _ = get(address).await;
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
    }
    clients
}

async fn get(address: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET / HTTP/1.0\r\nhost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

async fn deploy(stage: &Stage, manifest: &str, version: &str, fault: Fault) -> RolloutView {
    let control = stage.control().await.unwrap();
    let archive = std::fs::read(stage.build(version, &Behaviour::bad(fault)).unwrap()).unwrap();
    let rollout = control.deploy(manifest, version, &archive).await.unwrap();
    in_time("a release", control.wait_ended(&rollout)).await.unwrap()
}

/// A stage with its first release under traffic, and the manifest for the next.
async fn scene(watched: Duration, more: &str) -> (Stage, String, JoinSet<()>) {
    let stage = Stage::raise(Setup { watched, ..setup(env!("CARGO_BIN_EXE_bench")) }).await.unwrap();
    let (manifest, clients) = begin(&stage, more).await;
    (stage, manifest, clients)
}

async fn begin(stage: &Stage, more: &str) -> (String, JoinSet<()>) {
    let manifest = manifest(stage, more);
    let ended = deploy(stage, &unwatched(&manifest), "1", Fault::Nothing).await;
    assert_eq!(ended.state, "succeeded", "{ended:#?}\n{}", stage.last_words());
    (manifest, clients(stage))
}

/// What the first further source of the second release says, once that fits.
async fn source(stage: &Stage, fits: impl Fn(&SourceView) -> bool) {
    let seen = |fleet: &FleetView| {
        let mut rollouts = fleet.services.iter().filter_map(|service| service.rollout.as_ref());
        rollouts.any(|rollout| {
            let mut sources = rollout.proof.iter().flat_map(|proof| &proof.sources);
            rollout.to_version == "2" && sources.any(&fits)
        })
    };
    stage.control().await.unwrap().wait_for(seen).await.unwrap();
}

#[tokio::test]
async fn a_release_that_fails_a_fifth_of_its_requests_is_taken_back_by_what_its_instances_count() {
    let counters = "[guard.metrics]\nrequests = \"http_requests_total\"\nerrors = 'http_requests_total{code=~\"5..\"}'\n";
    let (stage, manifest, _clients) = scene(Duration::from_secs(30), counters).await;
    let ended = deploy(&stage, &manifest, "2", Fault::Fails(20)).await;
    assert_eq!(ended.state, "reverted", "{ended:#?}\n{}", stage.last_words());
    let problem = ended.evidence[0].problem.as_ref().unwrap();
    assert_eq!((problem.code, ended.evidence.len()), (901, 1), "{ended:#?}");
    assert!(problem.seen.iter().any(|seen| seen.evidence.ends_with("by its own metrics")), "{problem:?}");
    assert!(ended.elapsed_ms < 20_000, "taken back after {} ms", ended.elapsed_ms);
    let proof = ended.proof.unwrap();
    let [source] = proof.sources.as_slice() else { panic!("{proof:?}") };
    assert!(source.new_failed > 0 && source.new_failed * 3 < source.new_requests, "{source:?}");
    assert!(source.old_requests > 0 && source.old_failed == 0, "{source:?}");
    assert_eq!((proof.new_requests, proof.old_requests), (0, 0), "no load balancer counted anything: {proof:?}");
}

#[tokio::test]
async fn a_page_that_is_none_is_no_evidence_and_it_is_said_why() {
    let other = "[guard.metrics]\npath = \"/version\"\nrequests = \"http_requests_total\"\nerrors = \"errors_total\"\n";
    let (stage, manifest, _clients) = scene(Duration::from_secs(6), other).await;
    // Answers of 500 are no pages either.
    let says = |source: &SourceView| {
        let has = |of: &str| source.doubts.iter().any(|doubt| doubt.starts_with(of));
        has("web1/1: GET /version: ") && has("web2/0: GET /version: line 1 of the page is no metric")
    };
    let deployed = deploy(&stage, &manifest, "2", Fault::Fails(50));
    let (ended, ()) = tokio::join!(deployed, async { in_time("the reasons", source(&stage, says)).await });
    assert_eq!((ended.state.as_str(), ended.evidence.len()), ("succeeded", 0), "{ended:#?}\n{}", stage.last_words());
    let proof = ended.proof.unwrap();
    assert_eq!((proof.sources[0].new_requests, proof.sources[0].doubts.len()), (0, 0), "{proof:?}");
}

/// The table of a Prometheus there that is asked by the instances' addresses.
fn asks(address: SocketAddr) -> String {
    let query = |more: &str| format!("sum by (instance) (http_requests_total{{instance=~\"{{instances}}\"{more}}})");
    let (requests, errors) = (query(""), query(",code=~\"5..\""));
    format!("[guard.prometheus]\nurl = \"http://{address}\"\nrequests = '{requests}'\nerrors = '{errors}'\n")
}

#[tokio::test]
async fn a_release_that_fails_a_fifth_of_its_requests_is_taken_back_by_what_a_prometheus_knows() {
    if !have("prometheus") {
        return;
    }
    let watched = Duration::from_secs(55);
    let stage = Stage::raise(Setup { watched, ..setup(env!("CARGO_BIN_EXE_bench")) }).await.unwrap();
    let ports = stage.places.ports.iter();
    let targets = ports.flat_map(|port| stage.places.hosts.iter().map(|host| SocketAddr::new(*host, *port)));
    let jobs = [("shop", targets.collect())];
    let prometheus = in_time("Prometheus", Prometheus::start(stage.folder(), None, &jobs)).await.unwrap();
    let (manifest, _clients) = begin(&stage, &asks(prometheus.address)).await;
    let ended = deploy(&stage, &manifest, "2", Fault::Fails(20)).await;
    assert_eq!(ended.state, "reverted", "{ended:#?}\n{}", stage.last_words());
    let problem = ended.evidence[0].problem.as_ref().unwrap();
    assert_eq!((problem.code, ended.evidence.len()), (901, 1), "{ended:#?}");
    let by = format!("by Prometheus, most of them at {}:", stage.places.hosts[0]);
    assert!(problem.seen.iter().any(|seen| seen.evidence.contains(&by)), "{problem:?}");
    let proof = ended.proof.unwrap();
    let [source] = proof.sources.as_slice() else { panic!("{proof:?}") };
    assert!(source.new_failed > 0 && source.new_failed * 3 < source.new_requests, "{source:?}");
    assert!(source.old_requests > 0 && source.old_failed == 0, "{source:?}");
}

#[tokio::test]
async fn a_prometheus_that_is_away_is_no_evidence_holds_nothing_up_and_it_is_said() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let (stage, manifest, _clients) = scene(Duration::from_secs(7), &asks(address)).await;
    let away = |release: &str| format!("{release}: requests: no connection: Connection refused (os error 111)");
    let says = |source: &SourceView| source.doubts == [away("2"), away("1")];
    let deployed = deploy(&stage, &manifest, "2", Fault::Fails(50));
    let (ended, ()) = tokio::join!(deployed, async { in_time("the reasons", source(&stage, says)).await });
    assert_eq!((ended.state.as_str(), ended.evidence.len()), ("succeeded", 0), "{ended:#?}\n{}", stage.last_words());
}
