//! Artifacts in, from operators; out, to the hosts whose specs name them.

use super::{Api, invalid};
use crate::artifact::{Stat, missing};
use baton_core::name::{Digest, HostName};
use baton_proto::identity::Identity;
use baton_proto::problem::to_status;
use baton_proto::tls::peer;
use baton_proto::v1::artifacts_server::Artifacts;
use baton_proto::v1::{ArtifactStat, ArtifactStatRequest, Chunk, FetchRequest, UploadMessage, upload_message};
use std::io::SeekFrom;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Large enough that the cost of a message does not matter, small enough that a stream of them takes little memory.
const CHUNK: usize = 256 * 1024;

/// Chunks read ahead of a slow line.
const AHEAD: usize = 2;

#[tonic::async_trait]
impl Artifacts for Api {
    type FetchStream = ReceiverStream<Result<Chunk, Status>>;

    async fn stat(&self, request: Request<ArtifactStatRequest>) -> Result<Response<ArtifactStat>, Status> {
        let digest = digest(&request.get_ref().digest)?;
        let stat = self.artifacts.verified(digest).await.map_err(to_status)?;
        Ok(Response::new(answer(digest, stat)))
    }

    async fn upload(&self, request: Request<Streaming<UploadMessage>>) -> Result<Response<ArtifactStat>, Status> {
        let mut messages = request.into_inner();
        let first = messages.message().await?.and_then(|message| message.kind);
        let Some(upload_message::Kind::Open(open)) = first else {
            return Err(invalid("open", "the first message must open the upload"));
        };
        let digest = digest(&open.digest)?;
        let before = self.artifacts.stat(digest).map_err(to_status)?;
        if before.complete {
            return Ok(Response::new(answer(digest, before)));
        }
        let mut upload = self.artifacts.upload(digest, open.size, open.offset).await.map_err(to_status)?;
        loop {
            // A connection that breaks leaves what arrived, for the next attempt.
            let message = match messages.message().await {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(status) => {
                    upload.finish().await.map_err(to_status)?;
                    return Err(status);
                }
            };
            let Some(upload_message::Kind::Chunk(chunk)) = message.kind else {
                return Err(invalid("chunk", "after the first message there are only chunks"));
            };
            upload.write(chunk.offset, &chunk.bytes).await.map_err(to_status)?;
        }
        let stat = upload.finish().await.map_err(to_status)?;
        Ok(Response::new(answer(digest, stat)))
    }

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let peer = peer(&request);
        let FetchRequest { digest: bytes, offset } = request.into_inner();
        let digest = digest(&bytes)?;
        // What is not for this host is not there for this host.
        match peer.identity {
            Identity::Host(host) if self.names(&host, digest) => {}
            _ => return Err(to_status(missing(digest))),
        }
        let (mut file, size) = self.artifacts.open_whole(digest).await.map_err(to_status)?;
        if offset > size {
            return Err(invalid("offset", format!("{offset} of {size} bytes")));
        }
        let (out, chunks) = mpsc::channel(AHEAD);
        tokio::spawn(async move {
            let broken = |error: std::io::Error| Status::data_loss(error.to_string());
            if let Err(error) = file.seek(SeekFrom::Start(offset)).await {
                let _ = out.send(Err(broken(error))).await;
                return;
            }
            let mut at = offset;
            while at < size {
                let mut bytes = Vec::with_capacity(CHUNK.min(usize::try_from(size - at).unwrap_or(CHUNK)));
                let chunk = match (&mut file).take(CHUNK as u64).read_to_end(&mut bytes).await {
                    Ok(0) => Err(Status::data_loss("the artifact ended early")),
                    Ok(read) => {
                        let offset = at;
                        at += read as u64;
                        Ok(Chunk { offset, bytes })
                    }
                    Err(error) => Err(broken(error)),
                };
                let ends = chunk.is_err();
                if out.send(chunk).await.is_err() || ends {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(chunks)))
    }
}

impl Api {
    /// Whether a host's own spec names an artifact, or its agent is to be upgraded to it.
    fn names(&self, host: &HostName, digest: Digest) -> bool {
        if self.upgrades.names(host, digest) {
            return true;
        }
        let picture = self.access.picture();
        let releases = picture.fleet.hosts.get(host).map(|host| &host.issued.releases);
        releases.is_some_and(|releases| releases.values().any(|release| release.artifact.digest == digest))
    }
}

fn digest(bytes: &[u8]) -> Result<Digest, Status> {
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| invalid("digest", format!("{} bytes instead of 32", bytes.len())))?;
    Ok(Digest::from_bytes(bytes))
}

fn answer(digest: Digest, stat: Stat) -> ArtifactStat {
    ArtifactStat { digest: digest.as_bytes().to_vec(), have: stat.have, complete: stat.complete }
}
