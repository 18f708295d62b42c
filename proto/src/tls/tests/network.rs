//! What else can be at the other end: nothing, somebody mute, another protocol, an old TLS.

use super::conversation::ask_for;
use super::{Authority, Server, ask, connect};
use crate::problem::code;
use crate::tls::channel::{Limits, channel_within};
use crate::tls::{channel, client_config, hot};
use rustls::HandshakeKind;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tonic::transport::Channel;

fn to(address: SocketAddr) -> Channel {
    channel(&address.to_string(), hot(client_config(&Authority::new().sign("host/web1")).unwrap())).unwrap()
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    // Whoever has a port and does not listen there keeps it free.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let free = nobody.local_addr().unwrap();
    let problem = ask(&to(free)).await.unwrap_err();
    assert_eq!(problem.code, code::UNREACHABLE, "{problem:?}");
    assert!(problem.what.contains(&free.to_string()), "{problem:?}");
}

#[tokio::test]
async fn somebody_who_never_answers_is_given_up() {
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = mute.local_addr().unwrap().to_string();
    let config = hot(client_config(&Authority::new().sign("host/web1")).unwrap());
    let limits = Limits { connect: Duration::from_secs(5), handshake: Duration::from_millis(50) };
    let problem = ask(&channel_within(&address, config, limits).unwrap()).await.unwrap_err();
    assert_eq!(problem.code, code::NO_ANSWER, "{problem:?}");
    assert!(problem.seen.iter().any(|(_, seen)| seen.contains("TLS handshake")), "{problem:?}");
}

#[tokio::test]
async fn another_protocol_or_a_closed_door_is_not_tls() {
    for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b""] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut hello = [0; 4096];
            assert!(stream.read(&mut hello).await.unwrap() > 0);
            stream.write_all(answer).await.unwrap();
        });
        let problem = ask(&to(address)).await.unwrap_err();
        assert_eq!(problem.code, code::TLS_FAILED, "{problem:?}");
        task.await.unwrap();
    }
}

#[tokio::test]
async fn what_is_not_host_and_port_is_not_an_address() {
    let config = hot(client_config(&Authority::new().sign("host/web1")).unwrap());
    for wrong in [
        "",
        "coord",
        "coord:",
        "coord:0",
        "coord:99999",
        ":7443",
        "http://coord:7443",
        "ana@coord:7443",
        "coord:7443/x",
        "a b:1",
    ] {
        assert_eq!(channel(wrong, config.clone()).unwrap_err().code, code::UNREACHABLE, "{wrong}");
    }
    for right in ["coord.example.net:7443", "127.0.0.1:7443", "[::1]:7443"] {
        assert!(channel(right, config.clone()).is_ok(), "{right}");
    }
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let server = Server::start(&Authority::new().sign("coordinator/main")).await;
    let mut hello = vec![0x03, 0x03];
    hello.extend([7; 32]);
    hello.push(0);
    hello.extend([0, 2, 0xc0, 0x2b, 1, 0]);
    // supported_groups and signature_algorithms: a complete TLS 1.2 hello, without `supported_versions`.
    hello.extend([0, 16, 0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3]);
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
    let handshake = [&[1, 0, 0, length(&hello)], &hello[..]].concat();
    let record = [&[22, 3, 1, 0, length(&handshake)], &handshake[..]].concat();

    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&record).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let (alert, fatal, protocol_version) = (21, 2, 70);
    assert_eq!((answer[0], answer[5], answer[6]), (alert, fatal, protocol_version), "{answer:?}");
}

#[tokio::test]
async fn no_session_outlives_its_connection() {
    let authority = Authority::new();
    let server = Server::start(&authority.sign("coordinator/main")).await;
    // A client that would resume if it could.
    let mut config = client_config(&authority.sign("host/web1")).unwrap().as_ref().clone();
    config.resumption = Resumption::in_memory_sessions(8);
    config.enable_early_data = true;
    let connector = TlsConnector::from(Arc::new(config));
    for _ in 0..3 {
        let tcp = TcpStream::connect(server.address).await.unwrap();
        let name = ServerName::try_from("coordinator").unwrap();
        let mut stream = connector.connect(name, tcp).await.unwrap();
        assert!(!stream.fill_buf().await.unwrap().is_empty(), "the server speaks first");
        let (_, session) = stream.get_ref();
        assert_eq!(session.tls13_tickets_received(), 0);
        assert_eq!(session.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
        assert!(!session.is_early_data_accepted());
    }
}

#[tokio::test]
async fn a_problem_arrives_whole_and_one_that_is_too_big_arrives_shortened() {
    let authority = Authority::new();
    let server = Server::start(&authority.sign("coordinator/main")).await;
    let channel = connect(&server, &authority.sign("admin/ana"));
    for evidence in [10, 5_000, 100_000, 3_000_000] {
        let problem = ask_for(&channel, &evidence.to_string()).await.unwrap_err();
        assert_eq!(problem.code.to_string(), "B0210");
        assert_eq!(problem.what, "shop did not become ready");
        assert_eq!(problem.help.as_deref(), Some("look at its log"));
        let (label, log) = &problem.seen[0];
        assert_eq!(label, "log");
        assert!(
            log.len() == evidence || (evidence > 5_000 && log.len() > 500 && log.ends_with('…')),
            "{} of {evidence}",
            log.len()
        );
        assert_eq!(problem.seen[1], ("probe".to_owned(), "503".to_owned()));
    }
}
