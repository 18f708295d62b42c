//! Archives for the other half: each fetch a task of its own, which brings a piece when it is asked for one.

use crate::artifact::{FetchError, Source};
use baton_core::name::Digest;
use baton_proto::v1::{Chunk, FetchRequest, HostFetch, LinkEnd, LinkMessage, LinkPiece, link_message, link_piece};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::StreamExt;

/// A fetch nobody has asked a piece of for so long was given up.
const ASKED_WITHIN: Duration = Duration::from_secs(30);

/// The fetches under way. Dropped, they end.
pub(super) struct Fetches {
    source: Arc<dyn Source>,
    out: mpsc::Sender<LinkMessage>,
    asked: BTreeMap<u64, mpsc::Sender<()>>,
    tasks: JoinSet<()>,
}

impl Fetches {
    pub(super) fn new(source: Arc<dyn Source>, out: mpsc::Sender<LinkMessage>) -> Self {
        Self { source, out, asked: BTreeMap::new(), tasks: JoinSet::new() }
    }

    pub(super) fn begin(&mut self, asked: HostFetch) {
        self.asked.retain(|_, asked| !asked.is_closed());
        while self.tasks.try_join_next().is_some() {}
        let (more, asks) = mpsc::channel(1);
        self.asked.insert(asked.fetch, more);
        let fetch = Fetch { number: asked.fetch, out: self.out.clone(), asks };
        self.tasks.spawn(fetch.bring(Arc::clone(&self.source), asked.request.unwrap_or_default()));
    }

    pub(super) fn more(&mut self, number: u64) {
        if let Some(asked) = self.asked.get(&number) {
            // One that waits already is enough: it is asked for one piece at a time.
            let _ = asked.try_send(());
        }
    }
}

struct Fetch {
    number: u64,
    out: mpsc::Sender<LinkMessage>,
    asks: mpsc::Receiver<()>,
}

impl Fetch {
    async fn bring(mut self, source: Arc<dyn Source>, request: FetchRequest) {
        let last = match self.pieces(source.as_ref(), request).await {
            Ok(()) => link_piece::Kind::End(LinkEnd {}),
            Err(FetchError::Unreachable(why)) => link_piece::Kind::Unreachable(why),
            Err(FetchError::Refused(problem)) => link_piece::Kind::Refused((&problem).into()),
        };
        self.say(last).await;
    }

    async fn pieces(&mut self, source: &dyn Source, request: FetchRequest) -> Result<(), FetchError> {
        let digest = <[u8; 32]>::try_from(request.digest.as_slice()).map(Digest::from_bytes);
        let digest = digest.map_err(|_| FetchError::Unreachable("this is no digest".to_owned()))?;
        let mut chunks = source.open(digest, request.offset).await?;
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            self.say(link_piece::Kind::Chunk(Chunk { offset: chunk.offset, bytes: chunk.bytes })).await;
            if !matches!(timeout(ASKED_WITHIN, self.asks.recv()).await, Ok(Some(()))) {
                return Err(FetchError::Unreachable("nobody asked for more".to_owned()));
            }
        }
        Ok(())
    }

    async fn say(&self, kind: link_piece::Kind) {
        let piece = LinkPiece { fetch: self.number, kind: Some(kind) };
        // The other half may be gone; then so is this task, in a moment.
        let _ = self.out.send(LinkMessage { kind: Some(link_message::Kind::Piece(piece)) }).await;
    }
}
