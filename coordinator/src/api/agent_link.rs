//! One stream per host: documents down, reports up.

use super::{Api, invalid};
use crate::audit::chain::Head;
use crate::driver::{Hello, LinkId, Reboots, SILENCE, Specs};
use crate::identity::rotation::Authorities;
use crate::reboots;
use crate::upgrades::{Shown, Stated};
use baton_core::fleet::fence::Told;
use baton_core::name::{Digest, HostName};
use baton_core::problem::Problem;
use baton_proto::convert::{UpgradeOrder, UpgradeReport};
use baton_proto::identity::Identity;
use baton_proto::problem::{code, to_status};
use baton_proto::tls::peer;
use baton_proto::v1::agent_link_server::AgentLink;
use baton_proto::v1::{self, AgentMessage, CoordinatorMessage, agent_message, coordinator_message};
use baton_proto::{OLDEST_PROTOCOL, PROTOCOL, understands};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// How long an agent may take to say who it is.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// After this long without a report the agent is asked for one.
const PING_AFTER: Duration = Duration::from_secs(5);

/// After this long the stream is ended, so that an agent that lives dials anew.
const END_AFTER: Duration = Duration::from_secs(30);
const _: () = assert!(END_AFTER.as_secs() > SILENCE.as_secs());

/// How long after the audit log grew its head goes out: those who join or deploy by the hundred are one head then.
const HEAD_AFTER: Duration = Duration::from_secs(2);

/// Heads taken from an agent's hello.
const AUDIT_HEADS: usize = 64;

/// What is kept of an agent's facts.
const FACTS: usize = 32;
const FACT_MAX: usize = 200;

#[tonic::async_trait]
impl AgentLink for Api {
    type ConnectStream = ReceiverStream<Result<CoordinatorMessage, Status>>;

    async fn connect(&self, request: Request<Streaming<AgentMessage>>) -> Result<Response<Self::ConnectStream>, Status> {
        let peer = peer(&request);
        let Identity::Host(host) = peer.identity else {
            return Err(to_status(Problem::new(code::NOT_ALLOWED, format!("{} is no host", peer.identity))));
        };
        let (out, messages) = mpsc::channel(1);
        let (api, incoming) = (self.clone(), request.into_inner());
        let remote = peer.remote.map(|remote| remote.ip());
        // The answer's headers go out at once: many clients send nothing before they have seen them.
        tokio::spawn(async move {
            if let Err(status) = converse(api, host, remote, incoming, &out).await {
                tracing::warn!(status = %status.message(), "ended an agent's stream");
                let _ = out.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

type Out = mpsc::Sender<Result<CoordinatorMessage, Status>>;

async fn converse(
    api: Api,
    host: HostName,
    remote: Option<IpAddr>,
    mut incoming: Streaming<AgentMessage>,
    out: &Out,
) -> Result<(), Status> {
    let hello = read_hello(&mut incoming).await?;
    let address = address_of(&hello, remote)?;
    let accepted = hello.accepted.map(TryInto::try_into).transpose().map_err(|error| to_status(Problem::from(error)))?;
    let package = hello.package;
    let reboots = reboots_of(hello.reboot);
    let hello = Hello {
        agent_version: shortened(&hello.agent_version),
        ledger: hello.ledger.unwrap_or_default().try_into().map_err(|error| to_status(Problem::from(error)))?,
        audit_heads: hello.audit_heads.iter().take(AUDIT_HEADS).filter_map(head).collect(),
        facts: hello.facts.iter().take(FACTS).map(|(key, value)| (shortened(key), shortened(value))).collect(),
        reboots,
    };
    let stated = Stated::read(package, &hello.agent_version);
    let told = Told { stamp: hello.ledger, spec: accepted };
    api.access.connects(host.clone(), address, told).await.map_err(to_status)?;
    tracing::info!(%host, %address, version = %hello.agent_version, "connected");
    let (link, specs) = api.access.links().connect(&host, hello);
    // Registered before it is looked at: an order that comes in between is a change that is seen.
    let upgrades = api.upgrades.changes();
    api.upgrades.opened(&host, link, stated);
    let (heads, authorities) = (api.audit.heads(), api.issuance.changes());
    let reboots = api.reboots.changes();
    let mut talk =
        Talk { api, host, link, specs, heads, authorities, upgrades, ordered: None, reboots, told: None, incoming, out };
    let ended = talk.run().await;
    talk.api.access.links().disconnect(&talk.host, link);
    talk.api.upgrades.closed(&talk.host, link);
    let why = ended?;
    tracing::info!(host = %talk.host, why, "disconnected");
    Ok(())
}

async fn read_hello(incoming: &mut Streaming<AgentMessage>) -> Result<v1::AgentHello, Status> {
    let first = timeout(HELLO_WITHIN, incoming.message());
    let first = first.await.map_err(|_| invalid("hello", format!("nothing for {} s", HELLO_WITHIN.as_secs())))??;
    let Some(agent_message::Kind::Hello(hello)) = first.and_then(|message| message.kind) else {
        return Err(invalid("hello", "the first message must be one"));
    };
    if !understands(hello.protocol) {
        let problem =
            Problem::new(code::NOT_UNDERSTOOD, "the versions of this agent and this coordinator are too far apart")
                .saw("agent", format!("version {}, protocol {}", shortened(&hello.agent_version), hello.protocol))
                .saw(
                    "coordinator",
                    format!("version {}, protocols {OLDEST_PROTOCOL} to {}", env!("CARGO_PKG_VERSION"), PROTOCOL + 1),
                )
                .help("upgrade the older of the two, one version at a time; what runs goes on serving meanwhile");
        return Err(to_status(problem));
    }
    Ok(hello)
}

/// Where balancers reach the host: what it says, else where its stream comes from.
fn address_of(hello: &v1::AgentHello, remote: Option<IpAddr>) -> Result<IpAddr, Status> {
    if hello.address.is_empty() {
        return remote.map(|ip| ip.to_canonical()).ok_or_else(|| invalid("address", "a local connection must say one"));
    }
    let address: IpAddr = hello.address.parse().map_err(|_| invalid("address", shortened(&hello.address)))?;
    if address.is_unspecified() || address.is_multicast() {
        return Err(invalid("address", format!("no balancer can reach {address}")));
    }
    Ok(address)
}

/// One open stream after its hello.
struct Talk<'a> {
    api: Api,
    host: HostName,
    link: LinkId,
    specs: Specs,
    heads: watch::Receiver<Head>,
    authorities: watch::Receiver<Arc<Authorities>>,
    upgrades: watch::Receiver<Arc<Shown>>,
    /// The order for the agent's own package that was sent last.
    ordered: Option<UpgradeOrder>,
    reboots: watch::Receiver<Arc<reboots::Shown>>,
    /// The boot it was told last to leave.
    told: Option<String>,
    incoming: Streaming<AgentMessage>,
    /// Room for one message: while it waits, a newer spec replaces an older one.
    out: &'a Out,
}

impl Talk<'_> {
    /// Talks until the stream ends; says why.
    async fn run(&mut self) -> Result<&'static str, Status> {
        let (mut heard, mut asked) = (Instant::now(), false);
        // Whom to believe comes first: it may be what the next connection depends on.
        let (mut untold, mut unsent) = (true, false);
        // An agent that just came hears of the head too.
        let (mut unordered, mut untold_reboot) = (true, true);
        let mut head_at = Some(Instant::now() + HEAD_AFTER);
        loop {
            tokio::select! {
                message = self.incoming.message() => match message {
                    Ok(Some(message)) => {
                        (heard, asked) = (Instant::now(), false);
                        self.take(message)?;
                    }
                    Ok(None) => return Ok("the agent ended the stream"),
                    Err(_) => return Ok("the connection broke"),
                },
                changed = self.specs.changed() => match changed {
                    Ok(()) => unsent = true,
                    Err(_) => return Err(to_status(replaced(&self.host))),
                },
                changed = self.authorities.changed(), if !untold => match changed {
                    Ok(()) => untold = true,
                    Err(_) => return Err(to_status(replaced(&self.host))),
                },
                permit = self.out.reserve(), if untold => {
                    let Ok(permit) = permit else { return Ok("the agent went away") };
                    untold = false;
                    let pins = self.authorities.borrow_and_update().pins();
                    let pins = v1::Authorities { pins: pins.into_iter().map(Vec::from).collect() };
                    permit.send(Ok(CoordinatorMessage { kind: Some(coordinator_message::Kind::Authorities(pins)) }));
                }
                changed = self.heads.changed(), if head_at.is_none() => {
                    if changed.is_ok() {
                        head_at = Some(Instant::now() + HEAD_AFTER);
                    }
                }
                () = sleep_until(head_at.unwrap_or(heard)), if head_at.is_some() && !unsent => {
                    let Ok(permit) = self.out.try_reserve() else {
                        head_at = Some(Instant::now() + HEAD_AFTER);
                        continue;
                    };
                    head_at = None;
                    let head = *self.heads.borrow_and_update();
                    if head.number > 0 {
                        let head = v1::AuditHead { number: head.number, hash: head.hash.as_bytes().to_vec() };
                        permit.send(Ok(CoordinatorMessage { kind: Some(coordinator_message::Kind::AuditHead(head)) }));
                    }
                }
                permit = self.out.reserve(), if unsent && !untold => {
                    let Ok(permit) = permit else { return Ok("the agent went away") };
                    let spec = self.specs.borrow_and_update().as_ref().map(|spec| v1::HostSpec::from(&**spec));
                    unsent = false;
                    if let Some(spec) = spec {
                        permit.send(Ok(CoordinatorMessage { kind: Some(coordinator_message::Kind::Spec(spec)) }));
                    }
                }
                changed = self.upgrades.changed(), if !unordered => match changed {
                    Ok(()) => unordered = true,
                    Err(_) => return Err(to_status(replaced(&self.host))),
                },
                permit = self.out.reserve(), if unordered && !untold && !unsent => {
                    let Ok(permit) = permit else { return Ok("the agent went away") };
                    unordered = false;
                    let order = self.upgrades.borrow_and_update().orders.get(&self.host).cloned();
                    if order != self.ordered {
                        let said = order.as_ref().map(v1::UpgradeOrder::from).unwrap_or_default();
                        permit.send(Ok(CoordinatorMessage { kind: Some(coordinator_message::Kind::Upgrade(said)) }));
                        self.ordered = order;
                    }
                }
                changed = self.reboots.changed(), if !untold_reboot => match changed {
                    Ok(()) => untold_reboot = true,
                    Err(_) => return Err(to_status(replaced(&self.host))),
                },
                // Only after the newest spec: what a host is told first is what it should be.
                permit = self.out.reserve(), if untold_reboot && !untold && !unsent => {
                    let Ok(permit) = permit else { return Ok("the agent went away") };
                    untold_reboot = false;
                    let order = self.reboots.borrow_and_update().orders.get(&self.host).cloned();
                    if order != self.told {
                        let said = v1::RebootOrder { boot: order.clone().unwrap_or_default() };
                        permit.send(Ok(CoordinatorMessage { kind: Some(coordinator_message::Kind::Reboot(said)) }));
                        self.told = order;
                    }
                }
                () = self.out.closed() => return Ok("the agent went away"),
                () = sleep_until(heard + if asked { END_AFTER } else { PING_AFTER }) => {
                    if asked {
                        return Ok("nothing was heard of the agent");
                    }
                    asked = true;
                    let ping = CoordinatorMessage { kind: Some(coordinator_message::Kind::Ping(v1::Ping {})) };
                    let _ = self.out.try_send(Ok(ping));
                }
            }
        }
    }

    fn take(&self, message: AgentMessage) -> Result<(), Status> {
        let report = match message.kind {
            Some(agent_message::Kind::Report(report)) => report,
            Some(agent_message::Kind::Upgrade(report)) => {
                match UpgradeReport::try_from(report) {
                    Ok(report) => self.api.upgrades.reported(&self.host, self.link, report),
                    Err(error) => {
                        tracing::warn!(host = %self.host, %error, "what an agent says of its upgrade cannot be understood");
                    }
                }
                return Ok(());
            }
            Some(agent_message::Kind::Hello(_)) => return Err(invalid("hello", "it was said already")),
            // A kind this version does not know: a newer agent may say more.
            None => return Ok(()),
        };
        let report = report.try_into().map_err(|error| to_status(Problem::from(error)))?;
        if self.api.access.links().report(&self.host, self.link, report) {
            return Ok(());
        }
        Err(to_status(replaced(&self.host)))
    }
}

/// What a host says of being rebooted; what cannot be understood of it must not cost its session.
fn reboots_of(said: Option<v1::RebootAbility>) -> Reboots {
    match said.map(|said| said.refuses.map(Problem::try_from)) {
        None | Some(Some(Err(_))) => Reboots::Unsaid,
        Some(None) => Reboots::Allowed,
        Some(Some(Ok(problem))) => Reboots::Refused(problem),
    }
}

fn replaced(host: &HostName) -> Problem {
    let what = format!("this stream of {host} was ended: another one took its place, or the coordinator stops");
    Problem::new(code::REFUSED, what).help("if it happens again and again, two agents run with one identity")
}

fn head(head: &v1::AuditHead) -> Option<Head> {
    let hash: [u8; 32] = head.hash.as_slice().try_into().ok()?;
    Some(Head { number: head.number, hash: Digest::from_bytes(hash) })
}

fn shortened(text: &str) -> String {
    text.chars().take(FACT_MAX).collect()
}
