use super::*;
use crate::heads::Heads;
use crate::link::{self, Network};
use baton_core::fleet::report::HostReport;
use baton_core::fleet::spec::{HostSpec, Stamp};
use baton_core::name::{Epoch, Generation};
use baton_proto::v1::agent_link_server::{AgentLink, AgentLinkServer};
use baton_proto::v1::{CoordinatorMessage, Ping};
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};

const DEADLINE: Duration = Duration::from_secs(10);

/// One agent's stream, as a coordinator has it.
struct Dialled {
    agent: tonic::Streaming<AgentMessage>,
    agent_hears: mpsc::UnboundedSender<Result<CoordinatorMessage, Status>>,
}

/// Hands every stream to the test.
struct Desk(mpsc::UnboundedSender<Dialled>);

#[tonic::async_trait]
impl AgentLink for Desk {
    type ConnectStream = UnboundedReceiverStream<Result<CoordinatorMessage, Status>>;

    async fn connect(
        &self,
        request: Request<tonic::Streaming<AgentMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let (agent_hears, outgoing) = mpsc::unbounded_channel();
        let _ = self.0.send(Dialled { agent: request.into_inner(), agent_hears });
        Ok(Response::new(UnboundedReceiverStream::new(outgoing)))
    }
}

/// A coordinator that only listens and speaks, on a runtime of its own that takes all its connections along.
struct Coordinator {
    address: SocketAddr,
    streams: mpsc::UnboundedReceiver<Dialled>,
    stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

/// No connection of anybody else comes from here: a port that was left for a moment is still free.
const ALONE: &str = "127.91.7.1:0";

fn coordinator(address: &str) -> Coordinator {
    let listener = std::net::TcpListener::bind(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, streams) = mpsc::unbounded_channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        executor.block_on(async {
            let listener = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
            let serving = Server::builder().add_service(AgentLinkServer::new(Desk(sender))).serve_with_incoming(listener);
            tokio::select! {
                _ = serving => {}
                _ = stopped => {}
            }
        });
    });
    Coordinator { address, streams, stop, thread }
}

impl Coordinator {
    async fn stream(&mut self) -> Dialled {
        tokio::time::timeout(DEADLINE, self.streams.recv()).await.expect("an agent dials").unwrap()
    }

    fn end(self) {
        drop(self.stop);
        self.thread.join().unwrap();
    }
}

impl Dialled {
    async fn message(&mut self) -> agent_message::Kind {
        let message = tokio::time::timeout(DEADLINE, self.agent.message()).await.expect("the agent speaks");
        message.unwrap().unwrap().kind.unwrap()
    }

    async fn report(&mut self) -> HostReport {
        match self.message().await {
            agent_message::Kind::Report(report) => report.try_into().unwrap(),
            agent_message::Kind::Upgrade(report) => panic!("nobody ordered an upgrade: {report:?}"),
            agent_message::Kind::Hello(hello) => panic!("a second hello: {hello:?}"),
        }
    }

    fn say(&self, kind: coordinator_message::Kind) {
        self.agent_hears.send(Ok(CoordinatorMessage { kind: Some(kind) })).unwrap();
    }
}

/// A session and its link without an agent behind them: the test is the agent.
struct Spoken {
    events: mpsc::UnboundedReceiver<Event>,
    view: watch::Sender<Arc<View>>,
    counters: Arc<Counters>,
    believed: watch::Receiver<Vec<[u8; 32]>>,
    task: tokio::task::JoinHandle<()>,
}

fn session(address: SocketAddr) -> Spoken {
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    let network = Network::plain(channel);
    let believed = network.believed();
    let (sender, events) = mpsc::unbounded_channel();
    let (view, viewed) = watch::channel(Arc::default());
    let introduction = Introduction {
        address: Some("10.0.0.7".parse().unwrap()),
        facts: BTreeMap::from([("os".to_owned(), "Linux".to_owned())]),
    };
    let counters: Arc<Counters> = Arc::default();
    let ends = Ends { counters: Arc::clone(&counters), ..ends(sender, viewed) };
    let task = tokio::spawn(async move {
        let (host, end) = link::pair();
        let mut session = Session::new(introduction, ends);
        tokio::join!(network.serve(end), session.through(host));
    });
    Spoken { events, view, counters, believed, task }
}

fn ends(events: mpsc::UnboundedSender<Event>, view: watch::Receiver<Arc<View>>) -> Ends {
    let (heads, condition) = (Heads::default(), Condition::new("/".into()));
    let (counters, archives) = (Arc::default(), Archives::default());
    Ends {
        events,
        view,
        heads,
        condition,
        counters,
        archives,
        upgrade: upgrade::tests::ends(),
        reboot: reboot::tests::ends(),
    }
}

impl Drop for Spoken {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn stamp(generation: u64) -> Stamp {
    Stamp { epoch: Epoch(1), generation: Generation(generation) }
}

fn at(generation: u64) -> Arc<View> {
    Arc::new(View { observed: stamp(generation), ..View::default() })
}

#[tokio::test]
async fn a_session_begins_with_hello_and_a_report() {
    let mut coordinator = coordinator(ALONE);
    let session = session(coordinator.address);
    session.view.send_replace(at(4));
    let mut stream = coordinator.stream().await;
    let agent_message::Kind::Hello(hello) = stream.message().await else { panic!("no hello") };
    assert_eq!((hello.protocol, hello.address.as_str()), (PROTOCOL, "10.0.0.7"));
    assert_eq!(hello.facts["os"], "Linux");
    assert_eq!(stream.report().await.observed, stamp(4));
}

#[tokio::test]
async fn a_spec_is_handed_on_and_a_change_is_reported_at_once() {
    let mut coordinator = coordinator(ALONE);
    let mut session = session(coordinator.address);
    let mut stream = coordinator.stream().await;
    stream.message().await;
    stream.report().await;
    let spec = HostSpec { epoch: Epoch(1), generation: Generation(9), ..HostSpec::default() };
    stream.say(coordinator_message::Kind::Spec((&spec).into()));
    let event = tokio::time::timeout(DEADLINE, session.events.recv()).await.unwrap();
    assert!(matches!(event, Some(Event::Spec(taken, _)) if *taken == spec));
    let changed = Instant::now();
    session.view.send_replace(at(9));
    assert_eq!(stream.report().await.observed, stamp(9));
    assert!(changed.elapsed() < HEARTBEAT / 2, "not only with the next heartbeat: {:?}", changed.elapsed());
}

#[tokio::test]
async fn whom_to_believe_is_handed_on_and_what_is_no_hash_is_left_out() {
    let mut coordinator = coordinator(ALONE);
    let mut session = session(coordinator.address);
    let mut stream = coordinator.stream().await;
    stream.message().await;
    let pins = [&[1; 32][..], &[2; 31], &[3; 32]].map(<[u8]>::to_vec).to_vec();
    stream.say(coordinator_message::Kind::Authorities(v1::Authorities { pins }));
    tokio::time::timeout(DEADLINE, session.believed.changed()).await.unwrap().unwrap();
    assert_eq!(*session.believed.borrow(), [[1; 32], [3; 32]]);
}

#[tokio::test]
async fn a_ping_is_answered_and_silence_is_broken_by_heartbeats() {
    let mut coordinator = coordinator(ALONE);
    let _session = session(coordinator.address);
    let mut stream = coordinator.stream().await;
    stream.message().await;
    stream.report().await;
    let asked = Instant::now();
    stream.say(coordinator_message::Kind::Ping(Ping {}));
    stream.report().await;
    assert!(asked.elapsed() < HEARTBEAT / 2);
    stream.report().await;
    assert!(asked.elapsed() >= HEARTBEAT / 2, "a heartbeat, not a second answer");
}

#[tokio::test]
async fn a_coordinator_that_comes_back_is_found_and_told_what_changed_meanwhile() {
    let mut first = coordinator(ALONE);
    let address = first.address;
    let session = session(address);
    let mut stream = first.stream().await;
    // What it says after its hello it says in a session.
    stream.message().await;
    stream.report().await;
    assert!(session.counters.is_connected());
    drop(stream);
    first.end();
    session.view.send_replace(at(5));
    let mut second = coordinator(&address.to_string());
    let mut stream = second.stream().await;
    assert!(matches!(stream.message().await, agent_message::Kind::Hello(_)));
    assert_eq!(stream.report().await.observed, stamp(5));
    assert_eq!((session.counters.is_connected(), session.counters.sessions()), (true, 2));
}

#[tokio::test]
async fn a_message_that_makes_no_sense_ends_the_stream_and_changes_nothing() {
    let mut coordinator = coordinator(ALONE);
    let mut session = session(coordinator.address);
    let mut stream = coordinator.stream().await;
    stream.message().await;
    let mut spec: v1::HostSpec = (&HostSpec::default()).into();
    spec.instances.push(v1::InstanceSpec { key: "../../etc".to_owned(), ..v1::InstanceSpec::default() });
    stream.say(coordinator_message::Kind::Spec(spec));
    let mut again = coordinator.stream().await;
    assert!(matches!(again.message().await, agent_message::Kind::Hello(_)), "it dials again");
    assert!(session.events.try_recv().is_err());
}

#[tokio::test]
async fn a_link_that_floods_this_host_has_to_wait_and_one_that_talks_nonsense_is_cut_off() {
    let (sender, mut events) = mpsc::unbounded_channel();
    let (_view, viewed) = watch::channel(Arc::default());
    let (host, link) = link::pair();
    let mut session = Session::new(Introduction { address: None, facts: BTreeMap::new() }, ends(sender, viewed));
    let task = tokio::spawn(async move { session.through(host).await });
    let spec = |generation| {
        let spec = HostSpec { epoch: Epoch(1), generation: Generation(generation), ..HostSpec::default() };
        let heard = CoordinatorMessage { kind: Some(coordinator_message::Kind::Spec((&spec).into())) };
        LinkMessage { kind: Some(link_message::Kind::Heard(heard)) }
    };
    let mut said = 0;
    while tokio::time::timeout(Duration::from_millis(200), link.out.send(spec(said))).await.is_ok() {
        said += 1;
        assert!(said < 50, "nobody takes them, and it goes on");
    }
    assert_eq!(events.len(), SPECS_MAX);
    for generation in 0..said {
        let taken = tokio::time::timeout(DEADLINE, events.recv()).await.unwrap();
        assert!(matches!(taken, Some(Event::Spec(spec, _)) if spec.generation == Generation(generation)));
    }
    link.out.send(LinkMessage { kind: None }).await.unwrap();
    assert_eq!(tokio::time::timeout(DEADLINE, task).await.unwrap().unwrap(), UNKNOWN);
}

#[test]
fn waits_grow_to_the_longest_and_never_end() {
    let waits: Vec<_> = backoff().take(50).collect();
    assert!(waits[0] >= WAIT_MIN && waits[0] <= 2 * WAIT_MIN, "{:?}", waits[0]);
    assert!(waits.iter().all(|wait| *wait <= 2 * WAIT_MAX));
    assert!(waits[49] >= WAIT_MAX);
    assert!(
        link::WAIT_REFUSED_MAX <= Duration::from_millis(700),
        "a coordinator that comes back is found within about a second"
    );
    let others: Vec<_> = backoff().take(50).collect();
    assert_ne!(waits, others, "no two hosts come back in step");
}
