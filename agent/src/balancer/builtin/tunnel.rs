//! A connection that switched protocols, such as a WebSocket: bytes both ways until one side is done.

use super::client::Client;
use super::members::Lease;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

/// Carries a tunnel. It counts as one request in flight for as long as it lasts.
pub(super) async fn run(lease: Lease, of: Client, client: OnUpgrade, member: OnUpgrade) {
    let carried = async {
        let (Ok(client), Ok(member)) = tokio::join!(client, member) else { return };
        // Either side may vanish at any time; that ends the tunnel and is nobody's error.
        let _ = copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(member)).await;
    };
    tokio::select! {
        () = carried => {}
        () = lease.cut() => {}
    }
    // Until here it had its client's place, although the connection is not HTTP's any more.
    drop(of);
}
