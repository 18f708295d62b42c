//! Upgrades of agents, told to sessions that are played by hand: who hears when, what a failure does, what a restart does not.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod site;

use baton_coordinator::config::Config;
use baton_coordinator::{Running, init, start};
use baton_core::problem::{Code, Problem};
use baton_proto::problem::from_status;
use baton_proto::tls::Credentials;
use baton_proto::v1;
use baton_proto::v1::control_client::ControlClient;
use baton_proto::v1::upgrade_report::State;
use baton_proto::v1::{AgentsView, SteerAgentsRequest, UpgradeAgentsRequest, UpgradeOrder, agent_message};
use site::{Line, PATIENCE, admin, config, dial, fetch, join, token, upload};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::timeout;
use tonic::transport::Channel;

const DEB: &[u8] = b"what a package would be";

/// A coordinator that can be stopped and started, and hosts that joined it.
struct Site {
    config: Config,
    running: Running,
    hosts: BTreeMap<&'static str, Credentials>,
    _folder: tempfile::TempDir,
}

impl Site {
    async fn with(hosts: &[&'static str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        init(&config).await.unwrap();
        let running = start(&config).await.unwrap();
        let mut site = Self { config, running, hosts: BTreeMap::new(), _folder: folder };
        for host in hosts {
            let token = token(&site.admin(), "host", 1, &[]).await;
            site.hosts.insert(host, join(site.running.listen, &token, host).await.unwrap());
        }
        upload(&site.admin(), DEB, 0).await.unwrap();
        site
    }

    async fn restarted(self) -> Self {
        let Self { config, running, hosts, _folder } = self;
        running.stop().await.unwrap();
        let running = start(&config).await.unwrap();
        Self { config, running, hosts, _folder }
    }

    fn admin(&self) -> Channel {
        admin(&self.config)
    }

    fn channel(&self, host: &str) -> Channel {
        dial(self.running.listen, &self.hosts[host])
    }

    /// The session of a host whose agent runs from a package.
    async fn agent(&self, host: &str, version: &str) -> Line {
        let package = v1::AgentPackage { version: version.into(), architecture: "amd64".into(), refuses: None };
        let line = Line::packaged(&self.channel(host), package).await;
        self.seen(|view| view.hosts.iter().any(|seen| seen.host == host && seen.connected && seen.package == version)).await;
        line
    }

    /// Waits until the coordinator sees the agents so: a stream is open before its hello was read.
    async fn seen(&self, fits: impl Fn(&AgentsView) -> bool) {
        let asked = async {
            while !fits(&self.status().await) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, asked).await.expect("never seen");
    }

    async fn upgrade(&self, wish: UpgradeAgentsRequest) -> Result<AgentsView, Problem> {
        let reply = ControlClient::new(self.admin()).upgrade_agents(wish).await;
        reply.map(tonic::Response::into_inner).map_err(|status| from_status(&status))
    }

    async fn status(&self) -> AgentsView {
        ControlClient::new(self.admin()).agents_status(v1::AgentsStatusRequest {}).await.unwrap().into_inner()
    }

    /// Waits until the hosts' states are these, in the hosts' order.
    async fn until(&self, words: &str) -> AgentsView {
        let asked = async {
            loop {
                let view = self.status().await;
                if states(&view) == words {
                    return view;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match timeout(PATIENCE, asked).await {
            Ok(view) => view,
            Err(_) => panic!("never `{words}`: `{}`", states(&self.status().await)),
        }
    }
}

fn states(view: &AgentsView) -> String {
    view.hosts.iter().map(|host| host.state.as_str()).collect::<Vec<_>>().join(" ")
}

fn wish() -> UpgradeAgentsRequest {
    UpgradeAgentsRequest {
        digest: blake3::hash(DEB).as_bytes().to_vec(),
        size: DEB.len() as u64,
        version: "2.0.0".into(),
        architecture: "amd64".into(),
        healthy_for_ms: 200,
        back_within_ms: 60_000,
        ..UpgradeAgentsRequest::default()
    }
}

fn state(view: &AgentsView) -> &str {
    view.upgrade.as_ref().map_or("", |upgrade| &upgrade.state)
}

async fn says(line: &Line, order: &UpgradeOrder, state: State) {
    let report = v1::UpgradeReport { id: order.id.clone(), attempt: order.attempt, state: Some(state) };
    line.say.send(v1::AgentMessage { kind: Some(agent_message::Kind::Upgrade(report)) }).await.unwrap();
}

/// What was seen where a package's agent did not come up.
fn fell_back() -> State {
    State::Failed((&Problem::new(Code(553), "the agent 2.0.0 did not come up").saw("journal", "no such option")).into())
}

#[tokio::test]
async fn rings_follow_each_other_and_a_host_that_is_away_is_taken_when_it_returns() {
    let site = Site::with(&["web1", "web2", "web3", "web4"]).await;
    let (mut one, mut two, mut three) =
        (site.agent("web1", "1.0.0").await, site.agent("web2", "1.0.0").await, site.agent("web3", "1.0.0").await);
    let view = site.upgrade(UpgradeAgentsRequest { rings: vec!["1".into(), "2".into()], ..wish() }).await.unwrap();
    assert_eq!((states(&view).as_str(), state(&view)), ("told waiting waiting away", "running"));
    let order = one.upgrade().await;
    assert_eq!((order.version.as_str(), order.attempt, order.back_within_ms), ("2.0.0", 0, 60_000));
    assert_eq!(fetch(&site.channel("web1"), DEB, 0).await.unwrap(), DEB);
    assert_eq!(fetch(&site.channel("web2"), DEB, 0).await.unwrap_err().code, Code(601), "it was told nothing");
    says(&one, &order, State::Installing(v1::UpgradeInstalling {})).await;
    site.until("installing waiting waiting away").await;

    drop(one);
    let one = site.agent("web1", "2.0.0").await;
    says(&one, &order, State::Done(v1::UpgradeDone {})).await;
    site.until("done told waiting away").await;
    two.upgrade().await;
    drop(two);
    let _two = site.agent("web2", "2.0.0").await;
    site.until("done done told away").await;
    three.upgrade().await;
    drop(three);
    let _three = site.agent("web3", "2.0.0").await;
    assert_eq!(state(&site.until("done done done away").await), "running", "it waits for the one that is away");

    let mut four = site.agent("web4", "1.0.0").await;
    four.upgrade().await;
    drop(four);
    let _four = site.agent("web4", "2.0.0").await;
    assert_eq!(state(&site.until("done done done done").await), "succeeded");
    site.running.stop().await.unwrap();
}

#[tokio::test]
async fn a_failing_host_pauses_it_takes_the_others_orders_back_and_a_resume_tries_once_more() {
    let site = Site::with(&["web1", "web2", "web3"]).await;
    let _proven = site.agent("web1", "2.0.0").await;
    let (mut two, mut three) = (site.agent("web2", "1.0.0").await, site.agent("web3", "1.0.0").await);
    site.upgrade(wish()).await.unwrap();
    let (order, other) = (two.upgrade().await, three.upgrade().await);
    says(&two, &order, fell_back()).await;
    let view = site.until("done failed told").await;
    let upgrade = view.upgrade.as_ref().unwrap();
    assert_eq!((state(&view), upgrade.failed_host.as_str()), ("paused", "web2"));
    assert_eq!(upgrade.problem.as_ref().unwrap().seen[0].evidence, "no such option");
    assert_eq!(three.upgrade().await.id, "", "what it had not begun is not to be");
    assert_eq!(fetch(&site.channel("web3"), DEB, 0).await.unwrap_err().code, Code(601));

    let mut control = ControlClient::new(site.admin());
    control.resume_agents(SteerAgentsRequest { why: "mended".into() }).await.unwrap();
    assert_eq!(three.upgrade().await, other, "the same attempt goes on");
    assert_eq!(two.upgrade().await.id, "");
    let again = two.upgrade().await;
    assert_eq!((again.id.as_str(), again.attempt), (order.id.as_str(), 1));
    // What is said of the attempt before counts no more.
    says(&two, &order, fell_back()).await;
    says(&two, &again, State::Installing(v1::UpgradeInstalling {})).await;
    site.until("done installing told").await;
    site.running.stop().await.unwrap();
}

#[tokio::test]
async fn a_coordinator_that_is_started_again_goes_on_where_it_was() {
    let site = Site::with(&["web1", "web2"]).await;
    let (mut one, two) = (site.agent("web1", "1.0.0").await, site.agent("web2", "1.0.0").await);
    site.upgrade(wish()).await.unwrap();
    let order = one.upgrade().await;
    drop((one, two));
    let site = site.restarted().await;
    let mut two = site.agent("web2", "1.0.0").await;
    site.until("returning waiting").await;
    let mut one = site.agent("web1", "1.0.0").await;
    assert_eq!(one.upgrade().await, order, "told once more, the same");
    drop(one);
    let site = site.restarted().await;
    drop(two);
    let _one = site.agent("web1", "2.0.0").await;
    two = site.agent("web2", "1.0.0").await;
    two.upgrade().await;
    site.until("done told").await;
    site.running.stop().await.unwrap();
}

#[tokio::test]
async fn an_abort_ends_it_where_it_stands_and_another_may_begin() {
    let site = Site::with(&["web1", "web2"]).await;
    let (mut one, _two) = (site.agent("web1", "1.0.0").await, site.agent("web2", "1.0.0").await);
    site.upgrade(wish()).await.unwrap();
    one.upgrade().await;
    let other = UpgradeAgentsRequest { version: "3.0.0".into(), ..wish() };
    assert_eq!(site.upgrade(other.clone()).await.unwrap_err().code, Code(740));
    let attached = site.upgrade(wish()).await.unwrap();
    assert_eq!(attached.upgrade.unwrap().id, "u-1", "the same package again is the same upgrade");

    let mut control = ControlClient::new(site.admin());
    let aborted = control.abort_agents(SteerAgentsRequest::default()).await.unwrap().into_inner();
    assert_eq!(state(&aborted), "aborted");
    assert_eq!(one.upgrade().await.id, "");
    let refused = control.abort_agents(SteerAgentsRequest::default()).await.unwrap_err();
    assert_eq!(from_status(&refused).code, Code(741));
    assert_eq!(site.upgrade(other).await.unwrap().upgrade.unwrap().id, "u-2");
    assert_eq!(one.upgrade().await.version, "3.0.0");
    let audited = control.list_audit(v1::ListAuditRequest::default()).await.unwrap().into_inner();
    let entries: Vec<_> = tokio_stream::StreamExt::collect::<Vec<_>>(audited).await;
    let text = |entry: &Result<v1::AuditEntry, tonic::Status>| entry.as_ref().unwrap().text.clone();
    assert!(entries.iter().map(text).any(|text| text.contains("AbortAgents") && text.contains("agents")));
    site.running.stop().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_the_reason_and_a_dry_run_begins_nothing() {
    let site = Site::with(&["web1", "web2"]).await;
    let refused = async |wish| site.upgrade(wish).await.unwrap_err().code;
    let strange = UpgradeAgentsRequest { hosts: vec!["web9".into()], ..wish() };
    assert_eq!(refused(strange).await, Code(743));
    assert_eq!(refused(UpgradeAgentsRequest { rings: vec!["0".into()], ..wish() }).await, Code(151));
    assert_eq!(refused(UpgradeAgentsRequest { version: "no version".into(), ..wish() }).await, Code(151));
    let absent = UpgradeAgentsRequest { digest: vec![7; 32], ..wish() };
    assert_eq!(refused(absent).await, Code(601), "it was not uploaded");

    let strange = v1::AgentPackage { version: "no version".into(), ..Default::default() };
    let odd = Line::packaged(&site.channel("web1"), strange).await;
    site.seen(|view| view.hosts.iter().any(|host| host.problem.as_ref().is_some_and(|it| it.code == 560))).await;
    drop(odd);
    let refuses = Some((&Problem::new(Code(550), "this host refuses")).into());
    let _one = Line::packaged(&site.channel("web1"), v1::AgentPackage { refuses, ..Default::default() }).await;
    // An agent from before there were upgrades says nothing of its package.
    let _two = Line::open(&site.channel("web2")).await.unwrap();
    site.seen(|view| view.hosts.iter().all(|host| host.connected && host.problem.is_some())).await;
    let problem = site.upgrade(wish()).await.unwrap_err();
    assert_eq!((problem.code, problem.seen.len()), (Code(742), 2), "{problem:?}");
    assert!(problem.seen[1].1.contains("too old"), "{problem:?}");

    let three = token(&site.admin(), "host", 1, &[]).await;
    let three = dial(site.running.listen, &join(site.running.listen, &three, "web3").await.unwrap());
    let package = v1::AgentPackage { version: "1.0.0".into(), architecture: "amd64".into(), refuses: None };
    let _three = Line::packaged(&three, package).await;
    site.seen(|view| view.hosts.iter().any(|host| host.connected && host.package == "1.0.0")).await;
    let would = site.upgrade(UpgradeAgentsRequest { dry_run: true, digest: vec![7; 32], ..wish() }).await.unwrap();
    assert_eq!(states(&would), "left-out left-out told");
    assert_eq!(would.hosts[2].ring, 1, "the first ring is of one that takes the package");
    assert!(site.status().await.upgrade.is_none());
    site.running.stop().await.unwrap();
}
