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

/// What is not accepted any more: looked at before every call, and waited for during every call.
#[derive(Debug, Clone)]
pub struct Revoked(Arc<watch::Sender<Refused>>);

#[derive(Debug, Default)]
struct Refused {
    /// Of certificates, one by one.
    serials: BTreeSet<String>,
    /// The names of authorities that were retired: also of what they signed and nobody wrote down.
    issuers: BTreeSet<Vec<u8>>,
}

impl Refused {
    fn has(&self, peer: &Peer) -> bool {
        self.issuers.contains(&peer.issuer) || peer.serial.as_ref().is_some_and(|serial| self.serials.contains(serial))
    }
}

impl Revoked {
    #[must_use]
    pub fn new(serials: BTreeSet<String>) -> Self {
        Self(Arc::new(watch::Sender::new(Refused { serials, issuers: BTreeSet::new() })))
    }

    pub fn extend(&self, serials: impl IntoIterator<Item = String>) {
        self.0.send_modify(|known| known.serials.extend(serials));
    }

    /// Refuses everything that an authority of this name signed.
    pub fn retire(&self, issuer: Vec<u8>) {
        self.0.send_modify(|known| known.issuers.extend([issuer]));
    }

    pub(super) fn has(&self, peer: &Peer) -> bool {
        self.0.borrow().has(peer)
    }

    /// Returns once this peer's certificate is revoked; for a peer without one, never.
    pub(super) async fn strikes(&self, peer: &Peer) {
        if peer.serial.is_none() {
            return std::future::pending().await;
        }
        // The sender is held here, so that the wait cannot end for another reason.
        let _ = self.0.subscribe().wait_for(|refused| refused.has(peer)).await;
    }

    /// What whoever shows a certificate that is not accepted is told. Of a retired authority's the connection is closed behind
    /// it: its owner may have another one by now, and shows that when it dials anew.
    pub(super) fn turn_away(&self, peer: &Peer) -> Problem {
        if !self.0.borrow().issuers.contains(&peer.issuer) {
            return refusal(&peer.identity);
        }
        peer.close();
        Problem::new(code::REFUSED, format!("the authority that signed this certificate of {} was retired", peer.identity))
            .help("join again with a token made for its name, or log in again with a new one")
    }

    /// An answer that ends when its peer's certificate is revoked, with the reason where a gRPC status belongs.
    pub(super) fn cut(self, body: Body, peer: Peer) -> Body {
        let frames = BodyStream::new(body);
        let struck = Box::pin(async move {
            self.strikes(&peer).await;
            let mut trailers = http::HeaderMap::new();
            // Only a status that is no text fails, and this one is ours.
            let _ = to_status(self.turn_away(&peer)).add_header(&mut trailers);
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
             to come back: baton token create --name {host}, and here \
             baton-agent join HOST:PORT --token-file FILE --replace"
        ),
        _ => {
            "it was revoked, or somebody joined under this name with a newer token; log in again with a new token".to_owned()
        }
    };
    Problem::new(code::REFUSED, format!("this certificate of {identity} is not accepted any more")).help(help)
}
