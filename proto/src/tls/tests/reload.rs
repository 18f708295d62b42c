//! New credentials without a restart.

use super::{Authority, Server, ask, connect};
use crate::problem::code;
use crate::tls::{channel, client_config, hot, server_config};

#[tokio::test]
async fn a_server_shows_new_credentials_to_new_connections_and_keeps_the_old_ones_open() {
    let (old, new) = (Authority::new(), Authority::new());
    let server = Server::start(&old.sign("coordinator/main")).await;
    let open = connect(&server, &old.sign("host/web1"));
    ask(&open).await.unwrap();

    server.config.store(server_config(&new.sign("coordinator/main")).unwrap());

    assert_eq!(ask(&open).await.unwrap().identity, "host/web1");
    assert_eq!(ask(&connect(&server, &new.sign("host/web2"))).await.unwrap().identity, "host/web2");
    let problem = ask(&connect(&server, &old.sign("host/web1"))).await.unwrap_err();
    assert_eq!(problem.code, code::UNKNOWN_AUTHORITY, "{problem:?}");
}

#[tokio::test]
async fn a_channel_shows_new_credentials_when_it_connects_again() {
    let authority = Authority::new();
    let credentials = authority.sign("coordinator/main");
    let server = Server::start(&credentials).await;
    let config = hot(client_config(&authority.sign("host/web1")).unwrap());
    let channel = channel(&server.address.to_string(), config.clone()).unwrap();
    assert_eq!(ask(&channel).await.unwrap().identity, "host/web1");

    config.store(client_config(&authority.sign("host/web9")).unwrap());
    assert_eq!(ask(&channel).await.unwrap().identity, "host/web1", "an open connection stays what it is");

    // The connection ends, the channel goes on with the next one.
    let address = server.stop().await;
    let server = Server::on(address, &credentials).await;
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    let reply = loop {
        match ask(&channel).await {
            Ok(reply) => break reply,
            Err(problem) => assert!(tokio::time::Instant::now() < deadline, "{problem:?}"),
        }
    };
    assert_eq!(reply.identity, "host/web9");
    drop(server);
}
