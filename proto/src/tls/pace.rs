//! How much a peer may ask of this side by frames that cost it next to nothing: pings, settings, calls that are taken back,
//! pieces of nothing.
//!
//! HTTP/2 answers or at least reads every one of them, so a single peer could keep a processor busy. Frames that carry no
//! content cost credit here; time gives it back, and so does what this side writes, because whoever fetches an artifact
//! acknowledges it piece by piece. Without credit the connection is not read until there is some: nothing is dropped, and who
//! sends too much waits for itself.

use super::credit::{Credit, Terms};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::time::{Instant, Sleep, sleep_until};

/// Frames that may come.
const TERMS: Terms = Terms { burst: 2_000, rate: 1_000 };
/// Bytes written for which one more frame may come.
const WRITTEN: u64 = 64;
/// A frame of data with at least so many bytes costs nothing.
const CONTENT: usize = 256;

/// What every HTTP/2 connection begins with.
const PREFACE: usize = 24;
const HEAD: usize = 9;
const DATA: u8 = 0;

/// The credit of one connection.
#[derive(Debug)]
pub(super) struct Pace {
    credit: Credit,
    /// Bytes written that are not a credit yet.
    written: u64,
    pause: Option<Pin<Box<Sleep>>>,
    frames: Frames,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            credit: Credit::new(TERMS, Instant::now()),
            written: 0,
            pause: None,
            frames: Frames { skip: PREFACE, head: [0; HEAD], have: 0 },
        }
    }

    /// Ready once there is credit to read.
    pub(super) fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while let Some(until) = self.credit.paid_at(Instant::now()) {
            let pause = self.pause.get_or_insert_with(|| Box::pin(sleep_until(until)));
            std::task::ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        Poll::Ready(())
    }

    /// These bytes were read.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        self.credit.spend(self.frames.count(bytes));
    }

    /// So many bytes were written.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.written += bytes as u64;
        let earned = self.written / WRITTEN;
        self.written %= WRITTEN;
        self.credit.earn(earned);
    }
}

/// Where in the stream of frames the reading stands.
#[derive(Debug)]
struct Frames {
    /// Bytes that belong to the frame before.
    skip: usize,
    head: [u8; HEAD],
    have: usize,
}

impl Frames {
    /// The frames without content that begin in these bytes.
    fn count(&mut self, mut bytes: &[u8]) -> u64 {
        let mut frames = 0;
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            let (taken, rest) = bytes.split_at((HEAD - self.have).min(bytes.len()));
            if let Some(place) = self.head.get_mut(self.have..self.have + taken.len()) {
                place.copy_from_slice(taken);
            }
            self.have += taken.len();
            bytes = rest;
            if self.have == HEAD {
                let [high, middle, low, kind, ..] = self.head;
                self.skip = u32::from_be_bytes([0, high, middle, low]) as usize;
                self.have = 0;
                frames += u64::from(kind != DATA || self.skip < CONTENT);
            }
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn frame(kind: u8, length: u32) -> Vec<u8> {
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend([kind, 0, 0, 0, 0, 1]);
        bytes.resize(bytes.len() + length as usize, 0xff);
        bytes
    }

    fn begun() -> Pace {
        let mut pace = Pace::new();
        pace.read(&[b'x'; PREFACE]);
        pace
    }

    #[test]
    fn frames_are_counted_however_they_are_cut() {
        let stream =
            [vec![b'x'; PREFACE], frame(4, 0), frame(1, 50), frame(DATA, 16_384), frame(DATA, 3), frame(6, 8)].concat();
        for piece in [1, 2, 7, 9, 10, 1000, stream.len()] {
            let mut frames = Frames { skip: PREFACE, head: [0; HEAD], have: 0 };
            let counted: u64 = stream.chunks(piece).map(|bytes| frames.count(bytes)).sum();
            assert_eq!(counted, 4, "in pieces of {piece}");
        }
    }

    #[test]
    fn who_sends_too_much_waits_and_is_then_read_again() {
        let mut pace = begun();
        let mut now = pace.credit.refilled();
        pace.read(&frame(6, 8).repeat(TERMS.burst as usize));
        assert_eq!(pace.credit.paid_at(now), None, "that may come at once");
        pace.read(&frame(6, 8).repeat(TERMS.rate as usize));
        let second = Duration::from_secs(1);
        assert_eq!(pace.credit.paid_at(now), Some(now + second));
        assert_eq!(pace.credit.paid_at(now + second / 2), Some(now + second), "also when asked meanwhile");
        now += second;
        for _ in 0..10 {
            assert_eq!(pace.credit.paid_at(now), None);
            pace.read(&frame(6, 8).repeat(TERMS.rate as usize));
            now += second;
        }
        assert_eq!(pace.credit.paid_at(now), None, "so much may come for ever");
    }

    #[test]
    fn who_is_sent_an_artifact_may_acknowledge_each_piece_and_who_sends_one_waits_for_nothing() {
        let mut pace = begun();
        let now = pace.credit.refilled();
        let answer = [frame(8, 4), frame(8, 4), frame(DATA, 16_384)].concat();
        for _ in 0..100_000 {
            pace.wrote(16_384);
            pace.read(&answer);
            assert_eq!(pace.credit.paid_at(now), None);
        }
    }
}
