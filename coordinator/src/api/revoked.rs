//! Certificates that are not accepted any more, and the end of what is open with them.

use baton_core::problem::Problem;
use baton_proto::identity::Identity;
use baton_proto::problem::{code, to_status};
use baton_proto::tls::Peer;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use http_body::Frame;
use http_body_util::{BodyStream, StreamBody};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::watch;
use tonic::body::Body;

/// Serial numbers of revoked certificates: looked at before every call, and waited for during every call.
#[derive(Debug, Clone)]
pub struct Revoked(Arc<watch::Sender<BTreeSet<String>>>);

impl Revoked {
    #[must_use]
    pub fn new(serials: BTreeSet<String>) -> Self {
        Self(Arc::new(watch::Sender::new(serials)))
    }

    pub fn extend(&self, serials: impl IntoIterator<Item = String>) {
        self.0.send_modify(|known| known.extend(serials));
    }

    pub(super) fn has(&self, peer: &Peer) -> bool {
        peer.serial.as_ref().is_some_and(|serial| self.0.borrow().contains(serial))
    }

    /// Returns once this peer's certificate is revoked; for a peer without one, never.
    pub(super) async fn strikes(&self, peer: &Peer) {
        let Some(serial) = &peer.serial else { return std::future::pending().await };
        // The sender is held here, so that the wait cannot end for another reason.
        let _ = self.0.subscribe().wait_for(|revoked| revoked.contains(serial)).await;
    }

    /// An answer that ends when its peer's certificate is revoked, with the reason where a gRPC status belongs.
    pub(super) fn cut(self, body: Body, peer: Peer) -> Body {
        let frames = BodyStream::new(body);
        let struck = Box::pin(async move {
            self.strikes(&peer).await;
            let mut trailers = http::HeaderMap::new();
            // Only a status that is no text fails, and this one is ours.
            let _ = to_status(refusal(&peer.identity)).add_header(&mut trailers);
            trailers
        });
        Body::new(StreamBody::new(unfold(Some((frames, struck)), |open| async {
            let (mut frames, mut struck) = open?;
            tokio::select! {
                frame = frames.next() => frame.map(|frame| (frame, Some((frames, struck)))),
                trailers = &mut struck => Some((Ok(Frame::trailers(trailers)), None)),
            }
        })))
    }
}

/// What whoever shows a revoked certificate is told.
pub(super) fn refusal(identity: &Identity) -> Problem {
    let help = match identity {
        Identity::Host(host) => format!(
            "{host} was removed (baton hosts remove), its certificate revoked, or another machine joined under this name; \
             to come back: baton token create --name {host}, and here baton-agent join HOST:PORT --token-file FILE"
        ),
        _ => {
            "it was revoked, or somebody joined under this name with a newer token; log in again with a new token".to_owned()
        }
    };
    Problem::new(code::REFUSED, format!("this certificate of {identity} is not accepted any more")).help(help)
}
