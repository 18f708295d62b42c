//! The generator against the demo's own service: each measures the other.

use super::{Config, Kind, Load, executions};
use crate::demo::app::{self, AppArgs};
use clap::Parser;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    app: AppArgs,
}

struct Instance {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn instance(more: &[&str]) -> Instance {
    let words = ["app", "--listen", "127.0.0.1:0"].iter().chain(more);
    let args = Line::parse_from(words).app;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async move { drop(stopped.await) };
    let task = tokio::spawn(async move { app::run_on(listener, args, stopped).await.unwrap() });
    Instance { address, stop, task }
}

fn log_in(folder: &Path) -> String {
    folder.join("app.log").to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_service_that_answers_has_no_failures_and_each_order_is_executed_once() {
    let folder = tempfile::tempdir().unwrap();
    let app = instance(&["--version-text", "7", "--log", &log_in(folder.path())]).await;
    let load = Load::start(Config::new(app.address, 200)).unwrap();
    tokio::time::sleep(Duration::from_millis(1000)).await;
    let report = load.mark().await.unwrap();
    assert_eq!(report.failed, 0, "{:?}", report.failures);
    assert!((150..=260).contains(&report.requests), "{}", report.requests);
    assert_eq!(report.versions.get("7"), Some(&report.requests));
    for kind in Kind::ALL {
        assert!(report.kinds[&kind].requests > 0, "{kind:?} was never sent");
    }
    assert!(report.kinds[&Kind::Slow].p50_ms >= 150.0);
    let joined = executions::join(&report.posts, folder.path()).unwrap();
    assert!(joined.sent > 0);
    assert_eq!((joined.acknowledged, joined.twice, joined.lost), (joined.sent, 0, 0));
}

#[tokio::test]
async fn a_service_that_is_gone_fails_every_request_and_the_gap_shows_how_long() {
    let app = instance(&[]).await;
    let load = Load::start(Config::new(app.address, 200)).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    app.task.abort();
    let _ = app.task.await;
    drop(app.stop);
    let before = load.mark().await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let after = load.stop().await.unwrap();
    assert!(before.requests > 0);
    // Connections that are open live on in their tasks; new ones are refused.
    let refused = &after.kinds[&Kind::NewConnection];
    assert!(refused.requests > 0 && refused.failed == refused.requests, "{after:?}");
    assert!(after.failures.iter().any(|failure| failure.text.contains("refused")), "{:?}", after.failures);
}

#[tokio::test]
async fn anything_but_200_is_a_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0u8; 2048];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await;
            });
        }
    });
    let load = Load::start(Config::new(address, 200)).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let report = load.stop().await.unwrap();
    assert!(report.requests > 0);
    assert_eq!(report.failed, report.requests);
    assert!(report.longest_gap_ms >= 150.0, "{}", report.longest_gap_ms);
    server.abort();
}

#[tokio::test]
async fn a_polite_stop_answers_what_is_under_way_and_then_ends() {
    let app = instance(&["--slow", "300ms"]).await;
    let url = app.address;
    let slow = tokio::spawn(async move { super::request::Target::new(url).request(Kind::Slow, None).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    app.stop.send(()).unwrap();
    let started = tokio::time::Instant::now();
    tokio::time::timeout(Duration::from_secs(5), app.task).await.unwrap().unwrap();
    assert!(started.elapsed() >= Duration::from_millis(150), "it did not wait for the request under way");
    assert_eq!(slow.await.unwrap(), Ok("1".to_owned()));
    assert!(TcpListener::bind(url).await.is_ok(), "its port is free again");
}

#[test]
fn an_order_executed_twice_and_one_executed_by_nobody_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let log = "1 v 1 post t-0\n2 v 1 post t-1\n3 v 2 post t-1\n4 v 2 post t-3\n5 v 2 end /orders\n";
    std::fs::write(folder.path().join("a.log"), log).unwrap();
    let posts =
        super::Posts { sent: 4, acknowledged: 3, tag: "t".into(), numbers: 0..4, unacknowledged: [3].into_iter().collect() };
    let joined = executions::join(&posts, folder.path()).unwrap();
    assert_eq!((joined.twice, joined.lost, joined.unheard), (1, 1, 1));
}
