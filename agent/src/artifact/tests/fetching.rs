use super::*;
use crate::artifact::{Chunk, Chunks, FetchError, Source, fetch};
use crate::runtime::Answer;
use baton_core::problem::Code;
use baton_core::release::Artifact;
use futures_util::stream;
use std::sync::Mutex;

/// A coordinator that breaks off after so many bytes, once for each entry, and may hold other bytes than asked for.
#[derive(Debug, Default)]
struct Flaky {
    bytes: Vec<u8>,
    breaks: Mutex<Vec<usize>>,
    /// The offsets it was asked for.
    asked: Mutex<Vec<u64>>,
    missing: bool,
}

impl Source for Flaky {
    fn open(&self, _digest: Digest, offset: u64) -> Answer<'_, Result<Chunks, FetchError>> {
        Box::pin(async move {
            self.asked.lock().unwrap().push(offset);
            if self.missing {
                return Err(FetchError::Refused(Problem::new(Code(603), "no such artifact")));
            }
            let rest = &self.bytes[usize::try_from(offset).unwrap()..];
            let length = self.breaks.lock().unwrap().pop().unwrap_or(rest.len()).min(rest.len());
            let mut at = offset;
            let mut items = Vec::new();
            for piece in rest[..length].chunks(100) {
                items.push(Ok(Chunk { offset: at, bytes: piece.to_vec() }));
                at += piece.len() as u64;
            }
            if length < rest.len() {
                items.push(Err(FetchError::Unreachable("cut".to_owned())));
            }
            Ok(Box::pin(stream::iter(items)) as Chunks)
        })
    }
}

fn archive() -> Vec<u8> {
    Forge::default().file("noise", &forge::noise(5000)).done()
}

fn artifact(bytes: &[u8]) -> Artifact {
    Artifact { digest: Digest::of(bytes), size: bytes.len() as u64 }
}

#[tokio::test]
async fn a_fetch_that_breaks_off_goes_on_where_it_was() {
    let (store, bytes) = (store(), archive());
    let source = Flaky { breaks: Mutex::new(vec![1500, 0, 700]), bytes: bytes.clone(), ..Flaky::default() };
    let mut told = Vec::new();
    fetch(&source, &store.folder, artifact(&bytes), |done| told.push(done)).await.unwrap();
    assert_eq!(*source.asked.lock().unwrap(), [0, 700, 700, 2200]);
    assert!(told.is_sorted() && told.last() == Some(&(bytes.len() as u64)), "progress only grows");
    assert!(store.folder.path(&Digest::of(&bytes)).join("noise").exists());
}

#[tokio::test]
async fn a_part_from_before_a_restart_is_used() {
    let (store, bytes) = (store(), archive());
    fs::write(store.folder.gathering(&Digest::of(&bytes)), &bytes[..1000]).unwrap();
    let source = Flaky { bytes: bytes.clone(), ..Flaky::default() };
    fetch(&source, &store.folder, artifact(&bytes), |_| {}).await.unwrap();
    assert_eq!(*source.asked.lock().unwrap(), [1000]);
}

#[tokio::test]
async fn a_part_with_a_flipped_bit_is_fetched_anew_once() {
    let (store, bytes) = (store(), archive());
    let mut part = bytes[..1000].to_vec();
    part[500] ^= 1;
    fs::write(store.folder.gathering(&Digest::of(&bytes)), part).unwrap();
    let source = Flaky { bytes: bytes.clone(), ..Flaky::default() };
    fetch(&source, &store.folder, artifact(&bytes), |_| {}).await.unwrap();
    assert_eq!(*source.asked.lock().unwrap(), [1000, 0]);
}

#[tokio::test]
async fn other_bytes_than_asked_for_are_refused_and_not_kept() {
    let (store, bytes) = (store(), archive());
    let mut other = bytes.clone();
    other[700] ^= 1;
    let source = Flaky { bytes: other, ..Flaky::default() };
    let problem = fetch(&source, &store.folder, artifact(&bytes), |_| {}).await.unwrap_err();
    assert_eq!(problem.code, Code(602));
    assert_eq!(store.names(), Vec::<String>::new());
}

#[tokio::test]
async fn more_bytes_than_announced_are_refused_at_once() {
    let (store, bytes) = (store(), archive());
    let source = Flaky { bytes: [bytes.clone(), vec![0; 5000]].concat(), ..Flaky::default() };
    let problem = fetch(&source, &store.folder, artifact(&bytes), |_| {}).await.unwrap_err();
    assert_eq!(problem.code, Code(602));
    assert_eq!(store.names(), Vec::<String>::new());
}

#[tokio::test]
async fn what_the_coordinator_does_not_have_is_not_asked_for_again() {
    let store = store();
    let source = Flaky { missing: true, ..Flaky::default() };
    let problem = fetch(&source, &store.folder, artifact(b"gone"), |_| {}).await.unwrap_err();
    assert_eq!((problem.code, source.asked.lock().unwrap().len()), (Code(603), 1));
    assert_eq!(store.names(), Vec::<String>::new());
}

#[tokio::test]
async fn an_artifact_larger_than_the_disk_is_refused_before_the_first_byte() {
    let store = store();
    let source = Flaky::default();
    let huge = Artifact { digest: Digest::of(b"huge"), size: u64::MAX / 2 };
    let problem = fetch(&source, &store.folder, huge, |_| {}).await.unwrap_err();
    assert_eq!(problem.code, Code(604));
    assert!(problem.seen.iter().any(|(label, _)| label == "needed"), "{problem:?}");
    assert!(source.asked.lock().unwrap().is_empty());
    assert_eq!(store.names(), Vec::<String>::new());
}
