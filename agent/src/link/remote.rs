//! Archives from the coordinator, over the connection the session has.

use crate::artifact::{Chunk, Chunks, FetchError, Source};
use crate::runtime::Answer;
use baton_core::name::Digest;
use baton_proto::problem::from_status;
use baton_proto::v1::FetchRequest;
use baton_proto::v1::artifacts_client::ArtifactsClient;
use futures_util::StreamExt;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// The coordinator's artifacts.
#[derive(Debug, Clone)]
pub(super) struct Remote(pub(super) Channel);

impl Source for Remote {
    fn open(&self, digest: Digest, offset: u64) -> Answer<'_, Result<Chunks, FetchError>> {
        Box::pin(async move {
            let request = FetchRequest { digest: digest.as_bytes().to_vec(), offset };
            let stream =
                ArtifactsClient::new(self.0.clone()).fetch(request).await.map_err(|status| sort(&status))?.into_inner();
            let chunks = stream.map(|chunk| match chunk {
                Ok(chunk) => Ok(Chunk { offset: chunk.offset, bytes: chunk.bytes }),
                Err(status) => Err(sort(&status)),
            });
            Ok(Box::pin(chunks) as Chunks)
        })
    }
}

/// Which answers a later try may change.
fn sort(status: &Status) -> FetchError {
    let problem = from_status(status);
    match status.code() {
        Code::NotFound
        | Code::InvalidArgument
        | Code::OutOfRange
        | Code::PermissionDenied
        | Code::Unimplemented
        | Code::DataLoss => FetchError::Refused(problem),
        _ => FetchError::Unreachable(problem.to_string()),
    }
}
