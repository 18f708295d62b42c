//! The session with the coordinator, through the link: a document comes in, reports go out.
//!
//! The link is not trusted: what it says was heard is checked as if a stranger had said it, and it can make this half neither
//! remember without end nor do what a coordinator could not ask for. When it is away nothing else on this host changes.

use crate::condition::Condition;
use crate::heads::Heads;
use crate::link::{Archives, HostEnd};
use crate::metrics::{Counters, Measured};
use crate::reboot;
use crate::reconciler::{Event, View};
use crate::scraper::Scraper;
use crate::text;
use crate::upgrade;
use backon::{BackoffBuilder, ExponentialBuilder};
use baton_core::fleet::spec::HostSpec;
use baton_core::problem::{Code, Finding, Problem};
use baton_proto::v1::{
    AgentHello, AgentMessage, CoordinatorMessage, HostMessage, LinkMessage, agent_message, coordinator_message,
    host_message, link_message,
};
use baton_proto::{PROTOCOL, v1};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::MissedTickBehavior;

/// A report goes out at least this often: the coordinator's proof that this host lives.
pub const HEARTBEAT: Duration = Duration::from_secs(2);
/// The first and the longest wait between two dials, before jitter, which at most doubles it.
const WAIT_MIN: Duration = Duration::from_millis(50);
pub const WAIT_MAX: Duration = Duration::from_millis(2_500);
/// Specs that may be on their way to whoever acts on them: until one is taken, nothing more is heard.
const SPECS_MAX: usize = 4;
/// Characters of a sentence from the link that are shown.
const SENTENCE_MAX: usize = 400;

/// What the coordinator is told first.
#[derive(Debug, Clone)]
pub struct Introduction {
    /// Where balancers reach this host; none: where the stream comes from.
    pub address: Option<IpAddr>,
    pub facts: BTreeMap<String, String>,
}

/// The ends between the session and the rest of the agent.
#[derive(Debug)]
pub struct Ends {
    pub events: mpsc::UnboundedSender<Event>,
    pub view: watch::Receiver<Arc<View>>,
    /// What is remembered for others.
    pub heads: Heads,
    /// What else is said of this machine, and what it is told of its connection.
    pub condition: Condition,
    pub counters: Arc<Counters>,
    /// The agent's own package.
    pub upgrade: upgrade::Ends,
    pub reboot: reboot::Ends,
    /// Whoever waits for archives.
    pub archives: Archives,
}

/// The waits between tries of anything that goes over the network: 50 ms growing to 5 s, with jitter, without end.
pub fn backoff() -> impl Iterator<Item = Duration> + Send {
    let growing = ExponentialBuilder::default().with_min_delay(WAIT_MIN).with_max_delay(WAIT_MAX).with_factor(1.7);
    growing.with_jitter().without_max_times().build()
}

/// The stream to the coordinator, as the link tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    None,
    Free,
    /// What was said last has not been sent yet. Whether the coordinator asked for a report meanwhile.
    Busy {
        asked: bool,
    },
}

/// Why a link is not listened to any more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// It ended.
    Ended,
    /// It said what a link never says.
    Broke(&'static str),
}

/// Speaks with the coordinator through one link after the other.
#[derive(Debug)]
pub struct Session {
    introduction: Introduction,
    ends: Ends,
    specs: Arc<Semaphore>,
    // What only reports need.
    measured: Measured,
    scraper: Scraper,
}

impl Session {
    #[must_use]
    pub fn new(introduction: Introduction, ends: Ends) -> Self {
        let specs = Arc::new(Semaphore::new(SPECS_MAX));
        Self { introduction, ends, specs, measured: Measured::default(), scraper: Scraper::default() }
    }

    /// Speaks through a link for as long as it is there.
    pub(crate) async fn through(&mut self, link: HostEnd) -> Left {
        let _attached = self.ends.archives.through(&link);
        let mut talk = Talk { stream: Stream::None, out: link.out, session: self };
        talk.exchange(link.heard).await.err().unwrap_or(Left::Ended)
    }

    /// There is no link, and it is a process of its own.
    pub(crate) fn alone(&self) {
        self.ends.counters.session_ended();
        let problem = Problem::new(Code(562), "the half of this agent that faces the network is not there")
            .help("systemctl status baton-agent-link; this host goes on with what it was told last");
        self.ends.condition.lost(&problem);
    }
}

struct Talk<'a> {
    stream: Stream,
    out: mpsc::Sender<HostMessage>,
    session: &'a mut Session,
}

impl Talk<'_> {
    async fn exchange(&mut self, mut heard: mpsc::Receiver<LinkMessage>) -> Result<(), Left> {
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let free = self.stream == Stream::Free;
            let reports_now = tokio::select! {
                message = heard.recv() => {
                    let Some(LinkMessage { kind: Some(kind) }) = message else { return message.map_or(Ok(()), |_| Err(UNKNOWN)) };
                    self.take(kind).await?
                }
                changed = self.session.ends.view.changed(), if free => {
                    changed.map_err(|_| Left::Ended)?;
                    true
                }
                changed = self.session.ends.upgrade.reports.changed(), if free => {
                    changed.map_err(|_| Left::Ended)?;
                    let report = self.session.ends.upgrade.reports.borrow_and_update().as_ref().map(v1::UpgradeReport::from);
                    if let Some(report) = report {
                        self.say(agent_message::Kind::Upgrade(report)).await?;
                    }
                    false
                }
                _ = heartbeat.tick(), if free => true,
            };
            match (reports_now, self.stream) {
                (true, Stream::Free) => {
                    heartbeat.reset();
                    let report = self.report().await;
                    self.say(agent_message::Kind::Report(report)).await?;
                }
                (true, Stream::Busy { .. }) => self.stream = Stream::Busy { asked: true },
                _ => {}
            }
        }
    }

    /// Takes what the link says; true when a report is to be sent now.
    async fn take(&mut self, kind: link_message::Kind) -> Result<bool, Left> {
        let ends = &mut self.session.ends;
        match kind {
            link_message::Kind::Dialling(_) => {
                self.stream = Stream::None;
                let hello = agent_message::Kind::Hello(self.hello());
                self.tell(host_message::Kind::Say(AgentMessage { kind: Some(hello) })).await?;
            }
            link_message::Kind::Connected(_) => {
                ends.counters.session_began();
                // What became of an order is said on every stream.
                ends.upgrade.reports.mark_changed();
                self.stream = Stream::Free;
                return Ok(true);
            }
            link_message::Kind::Lost(problem) => {
                self.stream = Stream::None;
                ends.counters.session_ended();
                if let Ok(problem) = Problem::try_from(problem) {
                    ends.condition.lost(&harmless(&problem));
                }
            }
            link_message::Kind::Heard(message) => {
                ends.condition.connected();
                ends.upgrade.accepted();
                return self.hear(message).await;
            }
            link_message::Kind::Sent(_) => {
                let asked = self.stream == Stream::Busy { asked: true };
                if matches!(self.stream, Stream::Busy { .. }) {
                    self.stream = Stream::Free;
                }
                return Ok(asked);
            }
            link_message::Kind::Piece(piece) => {
                ends.archives.take(piece).map_err(|_| Left::Broke("a piece of an archive that nobody asked for"))?;
            }
            link_message::Kind::Clock(clock) => ends.condition.compared(clock.seconds),
            link_message::Kind::Certificate(life) => ends.condition.certified(life.not_before, life.not_after),
        }
        Ok(false)
    }

    /// Takes what the coordinator said; true when it asks for a report now.
    async fn hear(&mut self, message: CoordinatorMessage) -> Result<bool, Left> {
        let ends = &mut self.session.ends;
        match message.kind {
            Some(coordinator_message::Kind::Spec(spec)) => match HostSpec::try_from(spec) {
                Ok(spec) => {
                    let permit = Arc::clone(&self.session.specs).acquire_owned().await.ok();
                    // The echo is the report that the reconciler publishes once it is durable.
                    let _ = ends.events.send(Event::Spec(Box::new(spec), permit));
                    Ok(false)
                }
                Err(error) => {
                    self.stream = Stream::None;
                    self.tell(host_message::Kind::HangUp((&Problem::from(error)).into())).await?;
                    Ok(false)
                }
            },
            Some(coordinator_message::Kind::Ping(_)) => Ok(true),
            Some(coordinator_message::Kind::AuditHead(head)) => {
                ends.heads.learn(&head);
                Ok(false)
            }
            Some(coordinator_message::Kind::Upgrade(order)) => {
                ends.upgrade.ordered(order);
                Ok(false)
            }
            Some(coordinator_message::Kind::Reboot(order)) => {
                ends.reboot.ordered(order);
                Ok(false)
            }
            // Whom to believe is the link's. And a newer coordinator may say more than this agent knows.
            Some(coordinator_message::Kind::Authorities(_)) | None => Ok(false),
        }
    }

    async fn report(&mut self) -> v1::HostReport {
        let Session { ends, measured, scraper, .. } = &mut *self.session;
        let view = Arc::clone(&ends.view.borrow_and_update());
        let mut report = view.report(Instant::now());
        report.memory = measured.of(&view).await;
        report.counters = scraper.of(&view);
        report.room = ends.condition.room();
        report.problems.extend(ends.condition.problems());
        v1::HostReport::from(&report)
    }

    fn hello(&self) -> AgentHello {
        let Session { introduction, ends, .. } = &*self.session;
        let (ledger, told) = {
            let view = ends.view.borrow();
            (view.observed, view.told.clone())
        };
        AgentHello {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            address: introduction.address.map(|address| address.to_string()).unwrap_or_default(),
            ledger: Some((&ledger).into()),
            facts: introduction.facts.clone().into_iter().collect(),
            audit_heads: ends.heads.told().collect(),
            accepted: told.map(|spec| (&*spec).into()),
            package: Some(ends.upgrade.stated.clone()),
            reboot: Some(ends.reboot.stated.clone()),
        }
    }

    /// Says something to the coordinator. The next thing is said when this one is on its way.
    async fn say(&mut self, kind: agent_message::Kind) -> Result<(), Left> {
        self.stream = Stream::Busy { asked: false };
        self.tell(host_message::Kind::Say(AgentMessage { kind: Some(kind) })).await
    }

    async fn tell(&self, kind: host_message::Kind) -> Result<(), Left> {
        self.out.send(HostMessage { kind: Some(kind) }).await.map_err(|_| Left::Ended)
    }
}

/// Both halves are one program: there is nothing a newer link might say.
const UNKNOWN: Left = Left::Broke("a message of no known kind");

/// A problem as the link tells it, fit for a terminal.
fn harmless(problem: &Problem) -> Problem {
    let line = |text: &str| text.lines().map(|line| text::line(line, SENTENCE_MAX)).collect::<Vec<_>>().join("\n");
    let finding = Finding {
        code: problem.code,
        what: line(&problem.what),
        seen: problem.seen.iter().take(8).map(|(label, seen)| (line(label), line(seen))).collect(),
        help: problem.help.as_deref().map(line),
    };
    finding.into()
}

#[cfg(test)]
mod tests;
