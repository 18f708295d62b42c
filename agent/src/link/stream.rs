//! The stream to the coordinator, dialled by this host, for as long as there is one. It says and hears for the other half.

use super::waits::Waits;
use crate::text;
use baton_core::problem::Problem;
use baton_proto::problem;
use baton_proto::tls::{Credentials, with_dates};
use baton_proto::v1::agent_link_client::AgentLinkClient;
use baton_proto::v1::{
    AgentMessage, Authorities, CoordinatorMessage, LinkConnected, LinkDialling, LinkMessage, LinkSent, agent_message,
    coordinator_message, link_message,
};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// A stream that takes nothing for so long is broken.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Authorities that are believed at once: one, and one that takes its place.
const AUTHORITIES: usize = 8;

/// What the other half says of the stream.
#[derive(Debug)]
pub(super) enum Said {
    Say(Box<AgentMessage>),
    HangUp(Box<Problem>),
}

/// The stream's side of the way between the halves.
pub(super) struct Streams<'a> {
    pub(super) out: mpsc::Sender<LinkMessage>,
    pub(super) says: mpsc::Receiver<Said>,
    /// Whom the coordinator says to believe: the hashes of the authorities' certificates. None while it said nothing.
    pub(super) authorities: &'a watch::Sender<Vec<[u8; 32]>>,
    /// The folder of this host's certificate.
    pub(super) identity: &'a Path,
}

/// The other half is gone.
pub(super) struct Alone;

impl Streams<'_> {
    /// Keeps a stream for as long as the other half is there.
    pub(super) async fn keep(mut self, channel: Channel) -> Alone {
        let mut waits = Waits::new();
        let mut told = None;
        loop {
            let mut heard = false;
            let problem = match self.one(channel.clone(), &mut heard).await {
                Ok(problem) => problem,
                Err(alone) => return alone,
            };
            if heard {
                waits = Waits::new();
                told = None;
            }
            let problem = self.dated(problem);
            if let Err(alone) = self.tell(link_message::Kind::Lost((&problem).into())).await {
                return alone;
            }
            // Once for each reason: a coordinator that is away for a month fills no log.
            if told != Some(problem.code) {
                let seen = text::evidence(&problem);
                let help = problem.help.as_deref();
                tracing::warn!(%problem, seen, help, "no session with the coordinator; this host goes on with what it was told last");
                told = Some(problem.code);
            }
            // A stream that was ended is dialled anew at once: a coordinator that stops ends them all.
            let wait = if heard { waits.soon() } else { waits.after(&problem) };
            tokio::time::sleep(wait).await;
        }
    }

    /// Keeps one stream until it breaks, and says why it did.
    async fn one(&mut self, channel: Channel, heard: &mut bool) -> Result<Problem, Alone> {
        self.tell(link_message::Kind::Dialling(LinkDialling {})).await?;
        let hello = loop {
            match self.says.recv().await.ok_or(Alone)? {
                Said::Say(message) if matches!(message.kind, Some(agent_message::Kind::Hello(_))) => break *message,
                // It was for the stream before.
                _ => {}
            }
        };
        // One message at a time: what is sent is never older than the moment it can be sent.
        let (out, outgoing) = mpsc::channel(1);
        if let Err(problem) = send(&out, hello).await {
            return Ok(problem);
        }
        let inbound = match AgentLinkClient::new(channel).connect(ReceiverStream::new(outgoing)).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return Ok(problem::from_status(&status)),
        };
        tracing::info!("connected to the coordinator");
        self.tell(link_message::Kind::Connected(LinkConnected {})).await?;
        self.exchange(inbound, &out, heard).await
    }

    async fn exchange(
        &mut self,
        mut inbound: Streaming<CoordinatorMessage>,
        out: &mpsc::Sender<AgentMessage>,
        heard: &mut bool,
    ) -> Result<Problem, Alone> {
        loop {
            tokio::select! {
                message = inbound.message() => match message {
                    Ok(Some(message)) => {
                        *heard = true;
                        if let Some(coordinator_message::Kind::Authorities(told)) = &message.kind {
                            self.believe(told);
                        }
                        self.tell(link_message::Kind::Heard(message)).await?;
                    }
                    Ok(None) => return Ok(ended()),
                    Err(status) => return Ok(problem::from_status(&status)),
                },
                said = self.says.recv() => match said.ok_or(Alone)? {
                    Said::Say(message) => {
                        if let Err(problem) = send(out, *message).await {
                            return Ok(problem);
                        }
                        self.tell(link_message::Kind::Sent(LinkSent {})).await?;
                    }
                    Said::HangUp(problem) => return Ok(*problem),
                },
            }
        }
    }

    fn believe(&self, told: &Authorities) {
        let pins = told.pins.iter().take(AUTHORITIES).filter_map(|pin| pin.as_slice().try_into().ok());
        self.authorities.send_replace(pins.collect());
    }

    /// A problem with what this host alone knows of it: the dates of its certificate.
    fn dated(&self, problem: Problem) -> Problem {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        match Credentials::load(self.identity).and_then(|own| own.subject()) {
            Ok(own) => with_dates(problem, &own, now),
            Err(_) => problem,
        }
    }

    async fn tell(&self, kind: link_message::Kind) -> Result<(), Alone> {
        self.out.send(LinkMessage { kind: Some(kind) }).await.map_err(|_| Alone)
    }
}

async fn send(out: &mpsc::Sender<AgentMessage>, message: AgentMessage) -> Result<(), Problem> {
    out.send_timeout(message, SEND_TIMEOUT).await.map_err(|_| ended())
}

fn ended() -> Problem {
    Problem::new(problem::code::BROKEN, "the coordinator ended the stream")
}
