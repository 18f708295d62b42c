//! Artifacts on their way to the coordinator: named by their digest, sent from where the last attempt ended.

use crate::errors::code;
use crate::output::Output;
use crate::render::live::Live;
use crate::render::page::Page;
use crate::render::units::bytes;
use baton_core::name::Digest;
use baton_core::problem::{Code, Problem};
use baton_core::release::Artifact;
use baton_proto::problem::from_status;
use baton_proto::v1::artifacts_client::ArtifactsClient;
use baton_proto::v1::upload_message::Kind;
use baton_proto::v1::{ArtifactStat, ArtifactStatRequest, Chunk, UploadMessage, UploadOpen};
use futures_util::Stream;
use std::io::{Read, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::watch;
use tonic::transport::Channel;

/// Well below the message limit of gRPC, large enough that framing costs nothing.
const CHUNK: usize = 256 * 1024;

/// Attempts without a single byte of progress before the upload is given up.
const ATTEMPTS: u32 = 5;

/// The coordinator takes one upload of an artifact at a time.
const BUSY: Code = Code(605);

/// How often to look again while another upload of the same artifact makes no progress: half a minute.
const BUSY_ATTEMPTS: u32 = 60;

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// On a terminal, fast enough to look alive.
const REDRAW: Duration = Duration::from_millis(100);

/// Elsewhere, often enough that nobody thinks it hangs.
const LINE: Duration = Duration::from_secs(10);

/// An archive on disk and what it is called.
#[derive(Debug, Clone)]
pub struct Archive {
    pub path: PathBuf,
    pub artifact: Artifact,
}

impl Archive {
    /// Reads the archive once for its digest and size.
    ///
    /// # Errors
    /// When it cannot be read, or is empty.
    pub fn read(path: &Path) -> Result<Self, Problem> {
        // Opening a pipe would wait for whoever writes to it.
        if !std::fs::metadata(path).map_err(|error| unreadable(path, &error))?.is_file() {
            return Err(unreadable(path, &std::io::Error::other("it is no file")));
        }
        let mut file = std::fs::File::open(path).map_err(|error| unreadable(path, &error))?;
        let mut hash = blake3::Hasher::new();
        let mut buffer = vec![0; CHUNK];
        let mut size = 0;
        loop {
            match file.read(&mut buffer).map_err(|error| unreadable(path, &error))? {
                0 => break,
                read => {
                    hash.update(&buffer[..read]);
                    size += read as u64;
                }
            }
        }
        if size == 0 {
            return Err(Problem::new(code::ARTIFACT_FILE, format!("the artifact {} is empty", path.display()))
                .help("pack it again: tar --zstd -cf shop-2.1.0.tar.zst -C FOLDER ."));
        }
        let digest = Digest::from_bytes(*hash.finalize().as_bytes());
        Ok(Self { path: path.to_owned(), artifact: Artifact { digest, size } })
    }

    /// The same, of an archive that hosts will take: what they would refuse is known before anything is sent.
    ///
    /// # Errors
    /// When it cannot be read, or would be refused.
    pub fn checked(path: &Path) -> Result<Self, Problem> {
        let archive = Self::read(path)?;
        crate::archive::check(path)?;
        Ok(archive)
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problem {
    let what = match error.kind() {
        std::io::ErrorKind::NotFound => format!("there is no artifact at {}", path.display()),
        _ => format!("the artifact {} cannot be read", path.display()),
    };
    Problem::new(code::ARTIFACT_FILE, what)
        .saw("read", error.to_string())
        .help("build it first, or correct artifact.path in the manifest; `{version}` stands for the version")
}

/// Brings the archive to the coordinator, unless it is there already.
///
/// # Errors
/// When the coordinator refuses it, or the connection breaks again and again without any progress.
pub async fn upload(client: &mut ArtifactsClient<Channel>, archive: &Archive, output: &Output) -> Result<(), Problem> {
    let mut have = 0;
    let mut failed = 0;
    let mut busy = 0;
    loop {
        let stat = stat(client, &archive.artifact).await;
        let outcome = match stat {
            Ok(stat) if stat.complete => return Ok(()),
            Ok(stat) => {
                if stat.have > have {
                    (failed, busy) = (0, 0);
                }
                have = stat.have;
                send(client, archive, stat.have, output).await
            }
            Err(status) => Err(status),
        };
        match outcome {
            Ok(stat) if stat.complete => return Ok(()),
            // Taken and yet not whole: asking again says how far it is.
            Ok(_) => failed += 1,
            Err(status) if is_transient(&status) && failed + 1 < ATTEMPTS => failed += 1,
            // Somebody else uploads the same, or our own last attempt is not over for the coordinator yet.
            Err(status) if from_status(&status).code == BUSY && busy < BUSY_ATTEMPTS => busy += 1,
            Err(status) => return Err(from_status(&status)),
        }
        if failed >= ATTEMPTS {
            return Err(Problem::new(code::UPLOAD, "the coordinator did not take the whole artifact")
                .saw("artifact", archive.path.display().to_string())
                .saw("taken", format!("{} of {}", bytes(have), bytes(archive.artifact.size))));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether another attempt may do better: the connection broke, nobody refused.
fn is_transient(status: &tonic::Status) -> bool {
    matches!(status.code(), tonic::Code::Unavailable | tonic::Code::Unknown | tonic::Code::Cancelled)
}

/// What the coordinator has of an artifact.
///
/// # Errors
/// The call's status.
pub async fn stat(client: &mut ArtifactsClient<Channel>, artifact: &Artifact) -> Result<ArtifactStat, tonic::Status> {
    let request = ArtifactStatRequest { digest: artifact.digest.as_bytes().to_vec() };
    client.stat(request).await.map(tonic::Response::into_inner)
}

async fn send(
    client: &mut ArtifactsClient<Channel>,
    archive: &Archive,
    offset: u64,
    output: &Output,
) -> Result<ArtifactStat, tonic::Status> {
    let mut file = File::open(&archive.path).await?;
    file.seek(SeekFrom::Start(offset)).await?;
    let (sent, progress) = watch::channel(offset);
    let call = client.upload(messages(file, &archive.artifact, offset, sent));
    let shown = show(archive, progress, output);
    tokio::pin!(call, shown);
    tokio::select! {
        reply = &mut call => reply,
        () = &mut shown => call.await,
    }
    .map(tonic::Response::into_inner)
}

/// The upload's messages. A file that cannot be read any further ends them early, and the coordinator has too little then.
fn messages(
    file: File,
    artifact: &Artifact,
    offset: u64,
    sent: watch::Sender<u64>,
) -> impl Stream<Item = UploadMessage> + Send + use<> {
    let open = UploadOpen { digest: artifact.digest.as_bytes().to_vec(), size: artifact.size, offset };
    let first = futures_util::stream::iter([UploadMessage { kind: Some(Kind::Open(open)) }]);
    let rest = futures_util::stream::unfold((file, offset, sent), |(mut file, offset, sent)| async move {
        let mut buffer = vec![0; CHUNK];
        let read = file.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        buffer.truncate(read);
        let next = offset + read as u64;
        sent.send_replace(next);
        let chunk = UploadMessage { kind: Some(Kind::Chunk(Chunk { offset, bytes: buffer })) };
        Some((chunk, (file, next, sent)))
    });
    futures_util::StreamExt::chain(first, rest)
}

/// Shows how far it is until all is sent.
async fn show(archive: &Archive, mut progress: watch::Receiver<u64>, output: &Output) {
    let stream = output.progress();
    let redraws = output.redraws(stream);
    let mut live = Live::default();
    let name = archive.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let page = |sent: u64| {
        let mut page = Page::new();
        page.text(format!("uploading {name}  {} of {}", bytes(sent), bytes(archive.artifact.size)));
        page
    };
    let mut next = Instant::now();
    while progress.changed().await.is_ok() {
        let sent = *progress.borrow_and_update();
        if Instant::now() < next && sent < archive.artifact.size {
            continue;
        }
        if redraws {
            live.draw(stream, &page(sent));
            next = Instant::now() + REDRAW;
        } else {
            stream.page(&page(sent));
            next = Instant::now() + LINE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Archive, messages};
    use crate::errors::code;
    use baton_core::name::Digest;
    use baton_proto::v1::upload_message::Kind;
    use futures_util::StreamExt;
    use std::io::SeekFrom;
    use tokio::fs::File;
    use tokio::io::AsyncSeekExt;

    #[test]
    fn an_archive_is_named_by_the_digest_of_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.tar.zst");
        let content = vec![7; 700_000];
        std::fs::write(&path, &content).unwrap();
        let archive = Archive::read(&path).unwrap();
        assert_eq!(archive.artifact.digest, Digest::of(&content));
        assert_eq!(archive.artifact.size, 700_000);
        std::fs::write(&path, "").unwrap();
        assert_eq!(Archive::read(&path).unwrap_err().code, code::ARTIFACT_FILE);
        let missing = Archive::read(&folder.path().join("none")).unwrap_err();
        assert!(missing.what.contains("there is no artifact"), "{missing:?}");
    }

    #[tokio::test]
    async fn an_upload_goes_on_where_the_last_one_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.tar.zst");
        let content: Vec<u8> = (0..700_000_u32).map(|at| (at % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let artifact = Archive::read(&path).unwrap().artifact;
        let mut file = File::open(&path).await.unwrap();
        file.seek(SeekFrom::Start(300_000)).await.unwrap();
        let (sent, progress) = tokio::sync::watch::channel(0);
        let sent: Vec<_> = messages(file, &artifact, 300_000, sent).collect().await;
        let mut rebuilt = content[..300_000].to_vec();
        for (nth, message) in sent.into_iter().enumerate() {
            match message.kind.unwrap() {
                Kind::Open(open) => assert_eq!((nth, open.offset, open.size), (0, 300_000, 700_000)),
                Kind::Chunk(chunk) => {
                    assert_eq!(chunk.offset, rebuilt.len() as u64);
                    rebuilt.extend(chunk.bytes);
                }
            }
        }
        assert!(rebuilt == content);
        assert_eq!(*progress.borrow(), 700_000);
    }
}
