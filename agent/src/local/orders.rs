//! What a person on this host may ask of the agent, with or without a coordinator: one line each way.

use super::{connected, folder, listen};
use crate::reconciler::Event;
use baton_core::name::ServiceName;
use baton_core::problem::{Code, Problem};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

const SOCKET: &str = "orders.sock";

/// The longest line somebody may write.
const LINE_MAX: u64 = 4096;

/// How long somebody who connected may take to say what they want.
const PATIENCE: Duration = Duration::from_secs(5);

/// One order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Order {
    Rollback(ServiceName),
}

/// Takes orders from root and from the user the agent runs as.
pub(super) async fn serve(state: &Path, events: mpsc::UnboundedSender<Event>) {
    let Some(listener) = listen(&folder(state).join(SOCKET)) else { return std::future::pending().await };
    loop {
        let stream = connected(&listener).await;
        let events = events.clone();
        tokio::spawn(async move {
            let _ = timeout(PATIENCE, obey(stream, events)).await;
        });
    }
}

async fn obey(stream: UnixStream, events: mpsc::UnboundedSender<Event>) -> io::Result<()> {
    let by = stream.peer_cred().map(|peer| format!("user {} on this host", peer.uid()))?;
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    BufReader::new(reader.take(LINE_MAX)).read_line(&mut line).await?;
    let answer = match serde_json::from_str(&line) {
        Ok(Order::Rollback(service)) => {
            let (reply, answer) = oneshot::channel();
            let _ = events.send(Event::GoBack { service, by, reply });
            answer.await.unwrap_or_else(|_| Err(Problem::new(Code(542), "the agent is stopping").help("start it again")))
        }
        Err(error) => Err(Problem::new(Code(542), "the agent does not understand this").saw("seen", error.to_string())),
    };
    writer.write_all(&serde_json::to_vec(&answer)?).await
}

/// Asks the agent on this host to go back to the release a service had before. Returns the version that runs then.
///
/// # Errors
/// Outer: nobody answers. Inner: the agent refuses, and says why.
pub async fn go_back(state: &Path, service: &ServiceName) -> io::Result<Result<String, Problem>> {
    let mut stream = UnixStream::connect(folder(state).join(SOCKET)).await?;
    let mut line = serde_json::to_vec(&Order::Rollback(service.clone()))?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    Ok(serde_json::from_slice(&bytes)?)
}
