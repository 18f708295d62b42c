//! Handshakes that do not come to an end.

use super::{Limits, serve};
use crate::tls::tests::{Authority, connect_to};
use crate::tls::{hot, server_config};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::StreamExt;

const LIMITS: Limits = Limits { handshakes: 8, patience: Duration::from_secs(60) };

/// Long enough for one honest handshake on a busy machine.
const PATIENCE: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_slow_handshake_holds_up_nobody_and_is_given_up() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = hot(server_config(&authority.sign("coordinator/main")).unwrap());
    let mut connections = Box::pin(serve(listener, config, Limits { patience: PATIENCE, ..LIMITS }));

    let began = Instant::now();
    let mut mute = TcpStream::connect(address).await.unwrap();
    let trickle = tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut answer = [0; 1];
        loop {
            // A byte now and then, of a hello that never ends: the limit is on the whole, not on the silence.
            let wrote = stream.write_all(&[22]).await;
            let read = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut answer)).await;
            if wrote.is_err() || matches!(read, Ok(Ok(0) | Err(_))) {
                return began.elapsed();
            }
        }
    });
    let quick = tokio::spawn(connect_to(address, authority.sign("host/web1")));
    let connection = connections.next().await.unwrap().unwrap();
    assert_eq!(connection.peer().identity.to_string(), "host/web1");
    let still_open = mute.try_read(&mut [0; 1]).unwrap_err();
    assert_eq!(still_open.kind(), std::io::ErrorKind::WouldBlock, "the slow one was not waited for");
    quick.await.unwrap();

    assert_eq!(mute.read(&mut [0; 1]).await.unwrap(), 0, "closed");
    assert!(began.elapsed() >= PATIENCE, "{:?}", began.elapsed());
    let trickled = trickle.await.unwrap();
    assert!(trickled < Duration::from_secs(30), "{trickled:?}");
}

#[tokio::test]
async fn a_crowd_of_slow_handshakes_keeps_nobody_out() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = hot(server_config(&authority.sign("coordinator/main")).unwrap());
    let mut connections = Box::pin(serve(listener, config, LIMITS));

    let mut crowd = Vec::new();
    for _ in 0..3 * LIMITS.handshakes {
        crowd.push(TcpStream::connect(address).await.unwrap());
    }
    let quick = tokio::spawn(connect_to(address, authority.sign("host/web1")));
    let connection = tokio::time::timeout(LIMITS.patience / 2, connections.next()).await.expect("kept out");
    assert_eq!(connection.unwrap().unwrap().peer().identity.to_string(), "host/web1");
    // Those who came first made place for it, and not only in the end.
    assert_eq!(crowd[0].read(&mut [0; 1]).await.unwrap(), 0, "closed");
    let still_open = crowd.last().unwrap().try_read(&mut [0; 1]).unwrap_err();
    assert_eq!(still_open.kind(), std::io::ErrorKind::WouldBlock);
    quick.await.unwrap();
}

#[tokio::test]
async fn the_listener_closes_with_the_stream() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = serve(listener, hot(server_config(&authority.sign("coordinator/main")).unwrap()), LIMITS);
    TcpStream::connect(address).await.unwrap();
    drop(connections);
    let deadline = Instant::now() + Duration::from_secs(5);
    while TcpStream::connect(address).await.is_ok() {
        assert!(Instant::now() < deadline, "still listening");
        tokio::task::yield_now().await;
    }
}
