use super::*;
use crate::artifact::{Chunk, Chunks, FetchError, Source};
use crate::link::fetches::Fetches;
use crate::runtime::Answer;
use baton_core::name::Digest;
use baton_core::problem::{Code, Problem};
use baton_proto::v1::{LinkClock, LinkPiece, host_message, link_message, link_piece};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio_stream::StreamExt as _;

const DEADLINE: Duration = Duration::from_secs(10);

fn clock(seconds: i64) -> LinkMessage {
    LinkMessage { kind: Some(link_message::Kind::Clock(LinkClock { seconds })) }
}

fn me() -> u32 {
    rustix::process::geteuid().as_raw()
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("it takes too long")
}

#[tokio::test]
async fn what_one_half_says_over_the_socket_the_other_hears_and_an_end_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run/link.sock");
    let door = Door::open(&path, me()).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let (theirs, carrying) = carried::<LinkMessage, HostMessage>(UnixStream::connect(&path).await.unwrap());
    let carrying = tokio::spawn(carrying);
    let (mut mine, carried_here) = carried::<HostMessage, LinkMessage>(within(door.next()).await);
    let here = tokio::spawn(carried_here);
    for seconds in 0..100 {
        theirs.out.send(clock(seconds)).await.unwrap();
        assert_eq!(within(mine.heard.recv()).await, Some(clock(seconds)));
    }
    carrying.abort();
    assert_eq!(within(mine.heard.recv()).await, None);
    within(here).await.unwrap();
}

#[tokio::test]
async fn whoever_is_not_the_link_is_not_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("link.sock");
    // Root may give a socket to others, and is then nobody it lets in itself.
    let Ok(door) = Door::open(&path, me() + 1) else { return };
    let mut stranger = UnixStream::connect(&path).await.unwrap();
    let mut byte = [0; 1];
    let refused = tokio::select! {
        _ = door.next() => panic!("it was let in"),
        read = within(stranger.read(&mut byte)) => read,
    };
    assert_eq!(refused.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_link_that_talks_and_is_not_listened_to_has_to_wait() {
    let (mine, theirs) = UnixStream::pair().unwrap();
    let (_unheard, carrying) = carried::<HostMessage, LinkMessage>(mine);
    let carrying = tokio::spawn(carrying);
    let (end, theirs) = carried::<LinkMessage, HostMessage>(theirs);
    let theirs = tokio::spawn(theirs);
    let big = "x".repeat(1024 * 1024);
    let said = |n: usize| {
        let problem = baton_proto::v1::Problem { what: big.clone(), code: n as u32, ..Default::default() };
        LinkMessage { kind: Some(link_message::Kind::Lost(problem)) }
    };
    let mut taken = 0;
    // A sentence that is not taken within a second is not taken at all.
    while tokio::time::timeout(Duration::from_secs(1), end.out.send(said(taken))).await.is_ok() {
        taken += 1;
        assert!(taken < 4 * WAITING_MAX, "it goes on and on");
    }
    assert!(taken >= WAITING_MAX);
    carrying.abort();
    theirs.abort();
}

/// An archive of a hundred pieces; none of it where the digest is another.
#[derive(Debug)]
struct Hundred;

impl Source for Hundred {
    fn open(&self, digest: Digest, offset: u64) -> Answer<'_, Result<Chunks, FetchError>> {
        Box::pin(async move {
            if digest != Digest::of(b"hundred") {
                return Err(FetchError::Refused(Problem::new(Code(603), "no such artifact")));
            }
            let pieces = (offset..100).map(|offset| Ok(Chunk { offset, bytes: vec![7] }));
            Ok(Box::pin(tokio_stream::iter(pieces)) as Chunks)
        })
    }
}

/// Both halves of fetching, without a network.
fn fetching() -> (Archives, tokio::task::JoinHandle<()>) {
    let (host, end): (HostEnd, NetworkEnd) = pair();
    let archives = Archives::default();
    let attached = archives.through(&host);
    let (take, mut heard) = (archives.clone(), host.heard);
    let task = tokio::spawn(async move {
        let _attached = attached;
        let mut asked = end.heard;
        let mut fetches = Fetches::new(Arc::new(Hundred), end.out);
        loop {
            tokio::select! {
                Some(message) = asked.recv() => match message.kind {
                    Some(host_message::Kind::Fetch(asked)) => fetches.begin(asked),
                    Some(host_message::Kind::More(asked)) => fetches.more(asked.fetch),
                    other => panic!("{other:?}"),
                },
                Some(message) = heard.recv() => match message.kind {
                    Some(link_message::Kind::Piece(piece)) => take.take(piece).unwrap(),
                    other => panic!("{other:?}"),
                },
            }
        }
    });
    (archives, task)
}

#[tokio::test]
async fn an_archive_comes_through_the_link_piece_by_piece_and_from_where_it_broke_off() {
    let (archives, task) = fetching();
    for offset in [0, 40, 100] {
        let pieces = archives.open(Digest::of(b"hundred"), offset).await.unwrap();
        let pieces: Vec<u64> = within(pieces.map(|piece| piece.unwrap().offset).collect()).await;
        assert_eq!(pieces, (offset..100).collect::<Vec<_>>());
    }
    let mut refused = archives.open(Digest::of(b"another"), 0).await.unwrap();
    let refused = within(refused.next()).await.unwrap().unwrap_err();
    assert!(matches!(refused, FetchError::Refused(problem) if problem.code == Code(603)));
    // One that is given up does not hinder the next.
    let mut given_up = archives.open(Digest::of(b"hundred"), 0).await.unwrap();
    within(given_up.next()).await.unwrap().unwrap();
    drop(given_up);
    let pieces = archives.open(Digest::of(b"hundred"), 98).await.unwrap();
    assert_eq!(within(pieces.collect::<Vec<_>>()).await.len(), 2);

    let mut cut = archives.open(Digest::of(b"hundred"), 0).await.unwrap();
    within(cut.next()).await.unwrap().unwrap();
    task.abort();
    let _ = task.await;
    assert!(matches!(within(cut.next()).await, Some(Err(FetchError::Unreachable(_)))), "the link is gone");
    assert!(matches!(archives.open(Digest::of(b"hundred"), 0).await, Err(FetchError::Unreachable(_))));
}

#[tokio::test]
async fn a_piece_that_nobody_asked_for_is_noticed() {
    let (host, end): (HostEnd, NetworkEnd) = pair();
    let archives = Archives::default();
    let _attached = archives.through(&host);
    let _fetch = archives.open(Digest::of(b"hundred"), 0).await.unwrap();
    let mut heard = end.heard;
    let Some(host_message::Kind::Fetch(asked)) = heard.recv().await.unwrap().kind else { panic!("no fetch") };
    let piece = |fetch| LinkPiece { fetch, kind: Some(link_piece::Kind::Chunk(Default::default())) };
    assert!(archives.take(piece(asked.fetch)).is_ok());
    assert!(archives.take(piece(asked.fetch)).is_err(), "one was asked for");
    assert!(archives.take(piece(asked.fetch + 1)).is_ok(), "it may have been given up");
}

#[test]
fn the_identity_is_given_away_and_nothing_that_only_lies_beside_it() {
    if me() != 0 {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let identity = folder.path().join("identity");
    hand_over(&identity, 65_534, 65_534).unwrap();
    std::fs::create_dir(&identity).unwrap();
    let (key, elsewhere) = (identity.join("key.pem"), folder.path().join("ledger.json"));
    for path in [&key, &elsewhere] {
        std::fs::write(path, "x").unwrap();
    }
    symlink(&elsewhere, identity.join("certificate.pem")).unwrap();
    std::fs::hard_link(&elsewhere, identity.join("authority.pem")).unwrap();
    for _ in 0..2 {
        hand_over(&identity, 65_534, 65_534).unwrap();
        let owner = |path| std::fs::metadata(path).unwrap().uid();
        assert_eq!((owner(&identity), owner(&key), owner(&elsewhere)), (65_534, 65_534, 0));
    }
}
