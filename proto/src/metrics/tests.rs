use super::{Exposition, Kind, serve};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[test]
fn what_a_name_may_hold_cannot_break_a_line() {
    let mut out = Exposition::default();
    out.family("baton_x", Kind::Gauge, "X.").sample("baton_x", &[("a", "q\"b\\\n")], 0.5);
    out.sample("baton_unannounced", &[], 1.0);
    assert_eq!(out.text(), "# HELP baton_x X.\n# TYPE baton_x gauge\nbaton_x{a=\"q\\\"b\\\\\\n\"} 0.5\n");
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn metrics_are_served_and_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(serve(listener, async || "baton_x 1\n".to_owned(), std::future::pending()));
    let answer = ask(address, "GET /metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nbaton_x 1\n"), "{answer}");
    for other in ["GET /", "POST /metrics", "GET /metrics/more"] {
        assert!(ask(address, other).await.starts_with("HTTP/1.1 404"), "{other}");
    }
    served.abort();
}

#[tokio::test]
async fn it_ends_when_it_is_told_to_although_nobody_leaves() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let until = async move { drop(ended.await) };
    let served = tokio::spawn(serve(listener, async || String::new(), until));
    let mut staying = Vec::new();
    for _ in 0..=super::serve::CONNECTIONS {
        staying.push(TcpStream::connect(address).await.unwrap());
    }
    end.send(()).unwrap();
    tokio::time::timeout(std::time::Duration::from_secs(5), served).await.expect("it went on").unwrap();
}
