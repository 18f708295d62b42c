//! How clients speak to the built-in proxy: HTTP/2 and 1.1, in plain text and over TLS, while its certificate is renewed.

use crate::builtin;
use crate::rig::bench::{Bench, codes, member, places};
use baton_agent::balancer::BalancerConfig;
use baton_agent::balancer::builtin::TlsFiles;
use baton_core::fleet::spec::MemberState::{Out, Ready};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const NAME: &str = "shop.example";

/// A certificate that somebody made for himself, and its key.
struct Pair {
    certificate: String,
    key: String,
}

impl Pair {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("a certificate");
        Self { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    fn put(&self, files: &TlsFiles) {
        std::fs::write(&files.certificate, &self.certificate).expect("a file");
        std::fs::write(&files.key, &self.key).expect("a file");
    }

    /// A connection of somebody who trusts only this.
    async fn dial(&self, address: SocketAddr, protocol: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("PEM")).expect("a root");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().expect("versions");
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(NAME).expect("a name"), stream).await
    }

    async fn until_served(&self, address: SocketAddr) -> TlsStream<TcpStream> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match self.dial(address, b"h2").await {
                Ok(stream) => return stream,
                Err(error) => assert!(Instant::now() < deadline, "never served: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

pub(crate) async fn h2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> SendRequest<Full<Bytes>> {
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

async fn post(sender: &mut SendRequest<Full<Bytes>>, body: Vec<u8>) -> Vec<u8> {
    let request = Request::post("http://shop.example/echo").body(Full::from(body)).expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.expect("a body").to_bytes().to_vec()
}

#[tokio::test]
async fn http2_without_tls_carries_many_requests_at_once_and_a_drain_counts_them() {
    let places = places();
    let mut bench = Bench::serving(builtin(), &places).await;
    let sender = h2(TcpStream::connect(bench.front.listen).await.expect("a connection")).await;
    let requests = (0..40u8).map(|number| {
        let mut sender = sender.clone();
        async move {
            let body = vec![number; 100_000];
            assert!(post(&mut sender, body.clone()).await == body, "another body came back");
        }
    });
    futures_util::future::join_all(requests).await;
    assert!(bench.apps.iter().all(|app| app.served() == 20), "each its half");

    bench.want(0, Out);
    bench.until("drained", |pool| member(pool, 0).is_drained(Duration::MAX)).await;
    let mut slow = sender.clone();
    let request = Request::get("http://shop.example/slow").body(Full::default()).expect("a request");
    let before = bench.apps[1].served();
    let answer = tokio::spawn(async move { slow.send_request(request).await });
    bench.apps[1].until_has_more_than(before).await;
    bench.want(0, Ready);
    bench.until("in again", |pool| member(pool, 0).is_in()).await;
    bench.want(1, Out);
    let seen = bench.until("drained", |pool| member(pool, 1).is_drained(Duration::MAX)).await;
    assert_eq!((member(&seen, 1).cut, bench.apps[1].log.in_flight.load(Ordering::SeqCst)), (0, 0));
    assert_eq!(answer.await.expect("a task").expect("an answer").status(), 200);
}

#[tokio::test]
async fn a_beginning_in_pieces_is_understood_either_way() {
    let places = places();
    let bench = Bench::serving(builtin(), &places).await;
    for (pieces, answer) in [
        (vec!["P", "RI * HTTP/2.0\r\n\r\nSM", "\r\n\r\n", "\0\0\0\x04\0\0\0\0\0"], &b"\0\0"[..]),
        (vec!["P", "OST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", "x"], b"HTTP/1.1 200"),
    ] {
        let mut stream = TcpStream::connect(bench.front.listen).await.expect("a connection");
        stream.set_nodelay(true).expect("an option");
        for piece in pieces {
            stream.write_all(piece.as_bytes()).await.expect("a piece");
            // Another piece must not be glued to it: it is looked at alone at least once.
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
        let mut seen = vec![0; answer.len()];
        stream.read_exact(&mut seen).await.expect("an answer");
        assert_eq!(seen, answer);
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_served_and_no_connection_notices() {
    let places = places();
    let mut front = builtin();
    let files = TlsFiles { certificate: front.path("chain.pem"), key: front.path("key.pem") };
    if let BalancerConfig::Builtin(config) = &mut front.config {
        config.tls.insert("shop".parse().expect("a name"), files.clone());
    }
    // Without a certificate nobody is served, and the pool says so.
    let mut bench = Bench::new(front, &places);
    bench.want(0, Ready);
    bench.want(1, Ready);
    let report = bench.until_problem(447).await;
    assert!(report.problem.expect("a problem").seen[0].1.contains("chain.pem"));

    let [old, new] = [Pair::new(), Pair::new()];
    old.put(&files);
    bench.until("in", |pool| codes(pool).is_empty() && pool.members.values().all(|one| one.is_in())).await;
    let listen = bench.front.listen;
    let mut kept = h2(old.until_served(listen).await).await;
    assert_eq!(post(&mut kept, b"a".to_vec()).await, b"a");

    // A tunnel over TLS, which is HTTP/1.1's.
    let mut tunnel = old.dial(listen, b"http/1.1").await.expect("TLS");
    let asked = b"GET /tunnel HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    tunnel.write_all(asked).await.expect("a question");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tunnel.read_u8().await.expect("a head"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));

    // The key first, as it happens: until both are there, the old pair is served, and what is wrong is told.
    std::fs::write(&files.key, &new.key).expect("a file");
    let deadline = Instant::now() + Duration::from_secs(10);
    while bench.driver.notes().first().map(|note| note.code.0) != Some(447) {
        assert!(Instant::now() < deadline, "nothing is told");
        let report = bench.pass().await;
        assert!(codes(&report).is_empty(), "{report:?}");
    }
    old.dial(listen, b"h2").await.expect("the old one is served on");
    new.put(&files);
    let mut fresh = h2(new.until_served(listen).await).await;
    bench.until("nothing to tell", |pool| codes(pool).is_empty()).await;
    assert!(bench.driver.notes().is_empty() && old.dial(listen, b"h2").await.is_err());
    for sender in [&mut kept, &mut fresh] {
        assert_eq!(post(sender, b"b".to_vec()).await, b"b");
    }
    tunnel.write_all(b"x").await.expect("the tunnel");
    assert_eq!(tunnel.read_u8().await.expect("the tunnel"), b'x');
}

#[tokio::test]
async fn a_certificate_for_a_pool_that_is_not_served_is_refused() {
    let mut front = builtin();
    let files = TlsFiles { certificate: front.path("chain.pem"), key: front.path("key.pem") };
    if let BalancerConfig::Builtin(config) = &mut front.config {
        config.tls.insert("shoop".parse().expect("a name"), files);
    }
    let problem = baton_agent::balancer::open(front.config.clone(), &front.path("agent")).expect_err("a refusal");
    assert_eq!(problem.code.0, 406, "{problem:?}");
}
