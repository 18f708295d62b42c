//! The session: one stream to the coordinator, dialled by this host, for as long as there is one.
//!
//! A document comes in, reports go out. When the stream breaks nothing else on this host changes: it dials again.

use crate::condition::Condition;
use crate::heads::Heads;
use crate::metrics::{Counters, Measured};
use crate::reconciler::{Event, View};
use crate::scraper::Scraper;
use crate::text;
use crate::upgrade;
use backon::{BackoffBuilder, ExponentialBuilder};
use baton_core::problem::Problem;
use baton_proto::convert::InvalidMessage;
use baton_proto::v1::agent_link_client::AgentLinkClient;
use baton_proto::v1::{AgentHello, AgentMessage, CoordinatorMessage, agent_message, coordinator_message};
use baton_proto::{PROTOCOL, problem, v1};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// A report goes out at least this often: the coordinator's proof that this host lives.
pub const HEARTBEAT: Duration = Duration::from_secs(2);
/// The first and the longest wait between two dials, before jitter, which at most doubles it.
const WAIT_MIN: Duration = Duration::from_millis(50);
pub const WAIT_MAX: Duration = Duration::from_millis(2_500);
/// The longest wait when the coordinator's machine itself says that nobody listens: it is about to be back.
const WAIT_REFUSED_MAX: Duration = Duration::from_millis(700);
/// A stream that takes nothing for so long is broken.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Authorities that are believed at once: one, and one that takes its place.
const AUTHORITIES: usize = 8;

/// What the coordinator is told first.
#[derive(Debug, Clone)]
pub struct Introduction {
    /// Where balancers reach this host; none: where the stream comes from.
    pub address: Option<IpAddr>,
    pub facts: BTreeMap<String, String>,
}

/// The two ends between the session and the rest of the agent.
#[derive(Debug)]
pub struct Ends {
    pub events: mpsc::UnboundedSender<Event>,
    pub view: watch::Receiver<Arc<View>>,
    /// What is remembered for others.
    pub heads: Heads,
    /// What else is said of this machine, and what it is told of its connection.
    pub condition: Condition,
    pub counters: Arc<Counters>,
    /// Whom the coordinator says to believe: the hashes of the authorities' certificates. None while it said nothing.
    pub authorities: watch::Sender<Vec<[u8; 32]>>,
    /// The agent's own package.
    pub upgrade: upgrade::Ends,
}

/// The waits between tries of anything that goes over the network: 50 ms growing to 5 s, with jitter, without end.
pub fn backoff() -> impl Iterator<Item = Duration> + Send {
    let growing = ExponentialBuilder::default().with_min_delay(WAIT_MIN).with_max_delay(WAIT_MAX).with_factor(1.7);
    growing.with_jitter().without_max_times().build()
}

/// Keeps a session for ever.
pub async fn run(channel: Channel, introduction: Introduction, mut ends: Ends) {
    let mut waits = backoff();
    let mut told = None;
    let (mut measured, mut scraper) = (Measured::default(), Scraper::default());
    loop {
        let seen = (&mut measured, &mut scraper);
        let mut talk = Talk { introduction: &introduction, ends: &mut ends, seen, heard: false };
        let problem = talk.on(channel.clone()).await;
        talk.ends.counters.session_ended();
        if talk.heard {
            waits = backoff();
            told = None;
        }
        let problem = ends.condition.lost(problem);
        // Once for each reason: a coordinator that is away for a month fills no log.
        if told != Some(problem.code) {
            let seen = text::evidence(&problem);
            tracing::warn!(%problem, seen, "no session with the coordinator; this host goes on with what it was told last");
            told = Some(problem.code);
        }
        let wait = waits.next().unwrap_or(WAIT_MAX);
        tokio::time::sleep(if problem.code == problem::code::UNREACHABLE { wait.min(WAIT_REFUSED_MAX) } else { wait }).await;
    }
}

struct Talk<'a> {
    introduction: &'a Introduction,
    ends: &'a mut Ends,
    /// What only reports need.
    seen: (&'a mut Measured, &'a mut Scraper),
    /// Whether the coordinator said anything.
    heard: bool,
}

impl Talk<'_> {
    /// Talks until the stream breaks, and says why it did.
    async fn on(&mut self, channel: Channel) -> Problem {
        // One message at a time: what is sent is never older than the moment it can be sent.
        let (out, outgoing) = mpsc::channel(1);
        if let Err(problem) = send(&out, agent_message::Kind::Hello(self.hello())).await {
            return problem;
        }
        let mut client = AgentLinkClient::new(channel);
        let inbound = match client.connect(ReceiverStream::new(outgoing)).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return problem::from_status(&status),
        };
        self.ends.counters.session_began();
        tracing::info!("connected to the coordinator");
        self.exchange(inbound, &out).await.unwrap_or_else(|problem| problem)
    }

    async fn exchange(
        &mut self,
        mut inbound: Streaming<CoordinatorMessage>,
        out: &mpsc::Sender<AgentMessage>,
    ) -> Result<Problem, Problem> {
        // What became of an order is said on every stream.
        self.ends.upgrade.reports.mark_changed();
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = inbound.message() => match message {
                    Ok(Some(message)) => {
                        self.heard = true;
                        self.ends.condition.connected();
                        self.ends.upgrade.accepted();
                        if !self.take(message)? {
                            continue;
                        }
                    }
                    Ok(None) => return Err(ended()),
                    Err(status) => return Err(problem::from_status(&status)),
                },
                changed = self.ends.view.changed() => if changed.is_err() {
                    return Err(ended());
                },
                changed = self.ends.upgrade.reports.changed() => {
                    changed.map_err(|_| ended())?;
                    let report = self.ends.upgrade.reports.borrow_and_update().as_ref().map(v1::UpgradeReport::from);
                    if let Some(report) = report {
                        send(out, agent_message::Kind::Upgrade(report)).await?;
                    }
                    continue;
                }
                // The first tick is at once: a new stream begins with a report.
                _ = heartbeat.tick() => {}
            }
            heartbeat.reset();
            let view = Arc::clone(&self.ends.view.borrow_and_update());
            let mut report = view.report(Instant::now());
            report.memory = self.seen.0.of(&view).await;
            report.counters = self.seen.1.of(&view);
            report.problems.extend(self.ends.condition.problems());
            send(out, agent_message::Kind::Report(v1::HostReport::from(&report))).await?;
        }
    }

    /// Takes a message; true when it asks for a report now.
    fn take(&mut self, message: CoordinatorMessage) -> Result<bool, Problem> {
        match message.kind {
            Some(coordinator_message::Kind::Spec(spec)) => {
                let spec = spec.try_into().map_err(not_understood)?;
                // The echo is the report that the reconciler publishes once it is durable.
                let _ = self.ends.events.send(Event::Spec(Box::new(spec)));
                Ok(false)
            }
            Some(coordinator_message::Kind::Ping(_)) => Ok(true),
            Some(coordinator_message::Kind::AuditHead(head)) => {
                self.ends.heads.learn(&head);
                Ok(false)
            }
            Some(coordinator_message::Kind::Authorities(told)) => {
                let pins = told.pins.iter().take(AUTHORITIES).filter_map(|pin| pin.as_slice().try_into().ok());
                self.ends.authorities.send_replace(pins.collect());
                Ok(false)
            }
            Some(coordinator_message::Kind::Upgrade(order)) => {
                self.ends.upgrade.ordered(order);
                Ok(false)
            }
            // A newer coordinator may say more than this agent knows.
            None => Ok(false),
        }
    }

    fn hello(&self) -> AgentHello {
        let (ledger, told) = {
            let view = self.ends.view.borrow();
            (view.observed, view.told.clone())
        };
        AgentHello {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            address: self.introduction.address.map(|address| address.to_string()).unwrap_or_default(),
            ledger: Some((&ledger).into()),
            facts: self.introduction.facts.clone().into_iter().collect(),
            audit_heads: self.ends.heads.told().collect(),
            accepted: told.map(|spec| (&*spec).into()),
            package: Some(self.ends.upgrade.stated.clone()),
        }
    }
}

async fn send(out: &mpsc::Sender<AgentMessage>, kind: agent_message::Kind) -> Result<(), Problem> {
    out.send_timeout(AgentMessage { kind: Some(kind) }, SEND_TIMEOUT).await.map_err(|_| ended())
}

fn ended() -> Problem {
    Problem::new(problem::code::BROKEN, "the coordinator ended the stream")
}

fn not_understood(error: InvalidMessage) -> Problem {
    error.into()
}

#[cfg(test)]
mod tests;
