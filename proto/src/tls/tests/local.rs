//! The unix socket.

use super::ask;
use super::conversation::serve;
use crate::identity::{Identity, Role};
use crate::problem::code;
use crate::tls::{local_channel, local_incoming};
use std::os::unix::fs::MetadataExt;
use tokio::net::UnixListener;

#[tokio::test]
async fn a_local_peer_is_who_its_user_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("coordinator.sock");
    let us = std::fs::metadata(folder.path()).unwrap();
    let (uid, gid) = (us.uid(), us.gid());
    let connections = local_incoming(UnixListener::bind(&path).unwrap(), move |peer_uid, peer_gid| {
        if (peer_uid, peer_gid) == (uid, gid) {
            Identity::Operator { role: Role::Admin, name: format!("uid-{peer_uid}").parse().unwrap() }
        } else {
            Identity::Anonymous
        }
    });
    let (stop, task) = serve(connections);
    let reply = ask(&local_channel(&path)).await.unwrap();
    assert_eq!(reply.identity, format!("admin/uid-{uid}"));
    assert_eq!((reply.certificate_pem.as_str(), reply.authority_pem.as_str()), ("", ""), "no certificate, no address");
    drop(stop);
    task.await.unwrap();
}

#[tokio::test]
async fn a_socket_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("coordinator.sock");
    let problem = ask(&local_channel(&path)).await.unwrap_err();
    assert_eq!(problem.code, code::UNREACHABLE);
    assert!(problem.what.contains(path.to_str().unwrap()), "{problem:?}");
}

#[test]
fn a_request_that_came_by_no_connection_of_ours_is_anonymous() {
    let peer = crate::tls::peer(&tonic::Request::new(()));
    assert_eq!(peer.identity, Identity::Anonymous);
    assert_eq!(crate::tls::peer_in(&http::Extensions::new()), peer);
}
