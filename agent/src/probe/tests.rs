use super::*;
use std::collections::BTreeMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn question(probe: Probe, address: SocketAddr) -> Question {
    Question { probe, address, timeout: Duration::from_secs(5), surroundings: None }
}

fn health() -> Probe {
    Probe::Http { path: "/healthz".into() }
}

/// A server that reads a request and answers every one with the same bytes.
async fn server(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer).await;
            });
        }
    });
    address
}

async fn refusal(answer: &'static [u8]) -> Refusal {
    question(health(), server(answer).await).ask().await.unwrap_err()
}

#[tokio::test]
async fn two_hundred_is_ready() {
    let address = server(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(question(health(), address).ask().await, Ok(()));
    let address = server(b"HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(question(health(), address).ask().await, Ok(()));
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_says_where_it_went() {
    let refusal = refusal(b"HTTP/1.1 301 Moved Permanently\r\nlocation: https://shop/\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(refusal, Refusal::new(Kind::Redirected, "answered 301 Moved Permanently to https://shop/"));
}

#[tokio::test]
async fn an_error_is_told_with_its_first_line() {
    let refusal = refusal(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 17\r\n\r\nno database\x1b\nmore").await;
    assert_eq!(refusal.kind, Kind::Status);
    assert_eq!(refusal.seen, "answered 500 Internal Server Error: \"no database\\u{1b}\"");
}

#[tokio::test]
async fn something_that_is_not_http_is_told_apart() {
    assert_eq!(refusal(b"SSH-2.0-OpenSSH_9.2\r\n").await.kind, Kind::Broken);
}

#[tokio::test]
async fn nobody_there_is_connection_refused() {
    for probe in [health(), Probe::Tcp] {
        let refusal = question(probe, crate::places::place()).ask().await.unwrap_err();
        assert_eq!(refusal, Refusal::new(Kind::Refused, "connection refused"));
    }
}

#[tokio::test]
async fn silence_ends_with_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut question = question(health(), listener.local_addr().unwrap());
    question.timeout = Duration::from_millis(30);
    assert_eq!(question.ask().await, Err(Refusal::new(Kind::Silent, "no answer within 30 ms")));
    question.probe = Probe::Tcp;
    assert_eq!(question.ask().await, Ok(()), "a connection is all that a tcp probe wants");
}

#[tokio::test]
async fn an_exec_probe_is_ready_when_it_exits_zero() {
    let folder = tempfile::tempdir().unwrap();
    let ask = async |script: &str| {
        let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let mut question = question(Probe::Exec { command }, crate::places::place());
        let env = BTreeMap::from([("WORD".to_owned(), "ready".to_owned())]);
        question.surroundings = Some(Surroundings { folder: folder.path().to_owned(), env, user: None, beside: None });
        question.timeout = Duration::from_secs(2);
        question.ask().await
    };
    assert_eq!(ask("test $WORD = ready").await, Ok(()));
    let refusal = ask("echo not yet >&2; exit 3").await.unwrap_err();
    assert_eq!(refusal, Refusal::new(Kind::Command, "exit status: 3: \"not yet\""));
}

#[test]
fn a_tally_reads_as_one_line() {
    let mut tally = Tally::default();
    assert_eq!(tally.evidence(), "no answer yet");
    tally.count(&Refusal::new(Kind::Refused, "connection refused"));
    assert_eq!(tally.evidence(), "1 try: connection refused");
    tally.count(&Refusal::new(Kind::Refused, "connection refused"));
    tally.count(&Refusal::new(Kind::Status, "answered 503"));
    assert_eq!(tally.evidence(), "3 tries: 2 × connection refused, then answered 503");
}
