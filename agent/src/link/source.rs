//! Archives through the link. What it brings is believed by nobody: whoever gathers it compares the digest.

use super::HostEnd;
use crate::artifact::{Chunk, Chunks, FetchError, Source};
use crate::runtime::Answer;
use crate::text;
use baton_core::name::Digest;
use baton_core::problem::Problem;
use baton_proto::v1::{FetchRequest, HostFetch, HostMessage, HostMore, LinkPiece, host_message, link_piece};
use futures_util::stream;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// Characters of a reason that are passed on.
const REASON_MAX: usize = 300;

/// Where archives come from while there is a link. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Archives(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    link: Option<mpsc::Sender<HostMessage>>,
    newest: u64,
    /// Whoever waits for a piece, by the fetch's number.
    waiting: BTreeMap<u64, mpsc::Sender<link_piece::Kind>>,
}

/// A piece came that nobody had asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unasked;

impl Archives {
    /// Fetches go through this link from now on, for as long as what is returned lives.
    pub(crate) fn through(&self, link: &HostEnd) -> Attached {
        self.known().link = Some(link.out.clone());
        Attached(self.clone())
    }

    /// Hands a piece to whoever asked for it. A fetch that was given up may still have been about to get one.
    pub(crate) fn take(&self, piece: LinkPiece) -> Result<(), Unasked> {
        let (known, Some(kind)) = (self.known(), piece.kind) else { return Ok(()) };
        let Some(waiting) = known.waiting.get(&piece.fetch) else { return Ok(()) };
        match waiting.try_send(kind) {
            Err(mpsc::error::TrySendError::Full(_)) => Err(Unasked),
            _ => Ok(()),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> Result<Fetch, FetchError> {
        let mut known = self.known();
        let link = known.link.clone().ok_or_else(away)?;
        known.newest += 1;
        let number = known.newest;
        // One piece is asked for at a time.
        let (sender, pieces) = mpsc::channel(1);
        known.waiting.insert(number, sender);
        Ok(Fetch { number, pieces, link, archives: self.clone() })
    }
}

/// That there is a link. Dropped, every fetch through it breaks off.
#[derive(Debug)]
pub(crate) struct Attached(Archives);

impl Drop for Attached {
    fn drop(&mut self) {
        let mut known = self.0.known();
        known.link = None;
        known.waiting.clear();
    }
}

impl Source for Archives {
    fn open(&self, digest: Digest, offset: u64) -> Answer<'_, Result<Chunks, FetchError>> {
        Box::pin(async move {
            let fetch = self.begin()?;
            let request = FetchRequest { digest: digest.as_bytes().to_vec(), offset };
            fetch.ask(host_message::Kind::Fetch(HostFetch { fetch: fetch.number, request: Some(request) })).await?;
            let rest = stream::unfold(Some((fetch, Asked::Yes)), |under_way| async {
                let (mut fetch, asked) = under_way?;
                match fetch.next(asked).await {
                    Ok(Some(chunk)) => Some((Ok(chunk), Some((fetch, Asked::No)))),
                    Ok(None) => None,
                    Err(error) => Some((Err(error), None)),
                }
            });
            Ok(Box::pin(rest) as Chunks)
        })
    }
}

/// Whether the next piece is on its way already.
#[derive(PartialEq)]
enum Asked {
    Yes,
    No,
}

struct Fetch {
    number: u64,
    pieces: mpsc::Receiver<link_piece::Kind>,
    link: mpsc::Sender<HostMessage>,
    archives: Archives,
}

impl Fetch {
    async fn ask(&self, kind: host_message::Kind) -> Result<(), FetchError> {
        self.link.send(HostMessage { kind: Some(kind) }).await.map_err(|_| away())
    }

    async fn next(&mut self, asked: Asked) -> Result<Option<Chunk>, FetchError> {
        if asked == Asked::No {
            self.ask(host_message::Kind::More(HostMore { fetch: self.number })).await?;
        }
        match self.pieces.recv().await.ok_or_else(away)? {
            link_piece::Kind::Chunk(chunk) => Ok(Some(Chunk { offset: chunk.offset, bytes: chunk.bytes })),
            link_piece::Kind::End(_) => Ok(None),
            link_piece::Kind::Unreachable(why) => Err(FetchError::Unreachable(text::line(&why, REASON_MAX))),
            link_piece::Kind::Refused(problem) => Err(match Problem::try_from(problem) {
                Ok(problem) => FetchError::Refused(problem),
                Err(error) => FetchError::Unreachable(error.to_string()),
            }),
        }
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.archives.known().waiting.remove(&self.number);
    }
}

fn away() -> FetchError {
    FetchError::Unreachable("the part of this agent that faces the network is away".to_owned())
}
