//! Reboots of hosts, told to sessions that are played by hand: who is out when, what a restart of the coordinator does not undo.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod site;

use baton_coordinator::config::Config;
use baton_coordinator::{Running, init, start};
use baton_core::fleet::spec::HostSpec;
use baton_core::problem::{Code, Problem};
use baton_proto::problem::from_status;
use baton_proto::tls::Credentials;
use baton_proto::v1::control_client::ControlClient;
use baton_proto::v1::{self, RebootRequest, RebootView, SteerRebootRequest, coordinator_message};
use site::{Line, PATIENCE, admin, config, deploy, dial, join, obeyed, rollout_state, token, until, upload, wish};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::Channel;

const ARCHIVE: &[u8] = b"what an archive would be";
const HOSTS: [&str; 3] = ["web1", "web2", "web3"];

/// A coordinator that can be stopped and started, three hosts, and a service on them.
struct Site {
    config: Config,
    running: Running,
    hosts: BTreeMap<&'static str, Credentials>,
    _folder: tempfile::TempDir,
}

/// What a host was told about rebooting, in order.
type Told = Arc<Mutex<Vec<String>>>;

/// A host that does what it is told: at an order for its boot its session ends, and it comes back in the next one.
struct Machine {
    told: Told,
    task: JoinHandle<()>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What becomes of a host that reboots.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Returns,
    /// It goes down and stays there.
    Dies,
}

impl Machine {
    fn switch_on(channel: Channel, boot: u32, refuses: Option<Problem>, fate: Fate) -> Self {
        let told = Told::default();
        let heard = Arc::clone(&told);
        let task = tokio::spawn(async move {
            let mut boot = boot;
            loop {
                let ability = v1::RebootAbility { refuses: refuses.as_ref().map(Into::into) };
                let Ok(mut line) = Line::rebooting(&channel, ability).await else {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                };
                while let Ok(Some(message)) = line.hear.message().await {
                    match message.kind {
                        Some(coordinator_message::Kind::Spec(spec)) => {
                            let spec = HostSpec::try_from(spec).unwrap();
                            let report =
                                baton_core::fleet::report::HostReport { boot: format!("boot{boot}"), ..obeyed(&spec) };
                            line.report(&report).await;
                        }
                        Some(coordinator_message::Kind::Reboot(order)) => {
                            heard.lock().unwrap().push(order.boot.clone());
                            if order.boot == format!("boot{boot}") {
                                boot += 1;
                                break;
                            }
                        }
                        _ => {}
                    }
                }
                if fate == Fate::Dies && boot > 1 {
                    return;
                }
            }
        });
        Self { told, task }
    }

    fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }
}

impl Site {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        init(&config).await.unwrap();
        let running = start(&config).await.unwrap();
        let mut site = Self { config, running, hosts: BTreeMap::new(), _folder: folder };
        for host in HOSTS {
            let token = token(&site.admin(), "host", 1, &[host]).await;
            site.hosts.insert(host, join(site.running.listen, &token, host).await.unwrap());
        }
        upload(&site.admin(), ARCHIVE, 0).await.unwrap();
        site
    }

    fn admin(&self) -> Channel {
        admin(&self.config)
    }

    fn machine(&self, host: &str, boot: u32, refuses: Option<Problem>, fate: Fate) -> Machine {
        Machine::switch_on(dial(self.running.listen, &self.hosts[host]), boot, refuses, fate)
    }

    /// The service is live on every host, in place, so that one may be without.
    async fn served(&self) {
        deploy(&self.admin(), wish(&HOSTS, "1.0.0", ARCHIVE)).await.unwrap();
        until(&self.admin(), |view| rollout_state(view) == "succeeded").await;
    }

    async fn reboot(&self, request: RebootRequest) -> Result<RebootView, Problem> {
        let request = RebootRequest { at_once: 1, back_within_ms: request.back_within_ms.max(1_000), ..request };
        let reply = ControlClient::new(self.admin()).reboot_hosts(request).await;
        reply.map(tonic::Response::into_inner).map_err(|status| from_status(&status))
    }

    async fn steer(&self, to: &str) -> Result<RebootView, Problem> {
        let request = SteerRebootRequest { to: to.into(), why: String::new() };
        let reply = ControlClient::new(self.admin()).steer_reboot(request).await;
        reply.map(tonic::Response::into_inner).map_err(|status| from_status(&status))
    }

    async fn status(&self) -> RebootView {
        ControlClient::new(self.admin()).reboot_status(v1::RebootStatusRequest {}).await.unwrap().into_inner()
    }

    /// Waits until the reboots are so.
    async fn seen(&self, what: &str, fits: impl Fn(&RebootView) -> bool) -> RebootView {
        let asked = async {
            loop {
                let view = self.status().await;
                if fits(&view) {
                    return view;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        match timeout(PATIENCE, asked).await {
            Ok(view) => view,
            Err(_) => panic!("never {what}: {:?}", self.status().await),
        }
    }

    /// The hosts that are out of the balancers for work on them.
    async fn out(&self) -> Vec<String> {
        let view = ControlClient::new(self.admin()).status(v1::StatusRequest::default()).await.unwrap().into_inner();
        view.hosts.into_iter().filter(|host| host.maintenance.is_some()).map(|host| host.name).collect()
    }
}

fn named(hosts: &[&str]) -> RebootRequest {
    RebootRequest { hosts: hosts.iter().map(|host| (*host).to_owned()).collect(), ..RebootRequest::default() }
}

fn states(view: &RebootView) -> String {
    view.hosts.iter().map(|host| host.state.as_str()).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn the_hosts_of_a_service_reboot_one_after_the_other_also_when_the_coordinator_starts_anew() {
    let mut site = Site::new().await;
    let first = HOSTS.map(|host| site.machine(host, 1, None, Fate::Returns));
    site.served().await;
    let request = RebootRequest { service: "shop".into(), back_within_ms: 60_000, ..RebootRequest::default() };
    let would = site.reboot(RebootRequest { dry_run: true, ..request.clone() }).await.unwrap();
    assert_eq!((would.hosts.len(), site.status().await.id.as_str()), (3, ""), "asking is not beginning");
    site.reboot(request).await.unwrap();
    site.seen("one done", |view| states(view).contains("done")).await;
    drop(first);

    let Site { config, running, hosts, _folder } = site;
    running.stop().await.unwrap();
    let running = start(&config).await.unwrap();
    site = Site { config, running, hosts, _folder };
    // Whoever was told may be in its next boot or not: both are told what is true of them.
    let again = HOSTS.map(|host| site.machine(host, 7, None, Fate::Returns));
    let view = site.seen("succeeded", |view| view.state == "succeeded").await;
    assert_eq!((states(&view).as_str(), view.open, site.out().await.len()), ("done done done", false, 0));
    for machine in &again {
        let orders = machine.told();
        let told: Vec<&String> = orders.iter().filter(|boot| !boot.is_empty()).collect();
        assert!(told.len() <= 1 || told.iter().all(|boot| *boot == told[0]), "no boot but one is to be left: {told:?}");
    }
    let problem = site.steer("cancel").await.unwrap_err();
    assert_eq!((problem.code, problem.help.is_some()), (Code(745), true));
    site.running.stop().await.unwrap();
}

#[tokio::test]
async fn the_first_host_that_does_not_come_back_pauses_the_rest_and_stays_out() {
    let site = Site::new().await;
    let dead = site.machine("web1", 1, None, Fate::Dies);
    let others = ["web2", "web3"].map(|host| site.machine(host, 1, None, Fate::Returns));
    site.served().await;
    site.reboot(named(&HOSTS)).await.unwrap();
    let view = site.seen("paused", |view| view.state == "paused").await;
    assert_eq!((states(&view).as_str(), view.failed_host.as_str()), ("failed waiting waiting", "web1"));
    assert_eq!(view.problem.as_ref().map(|problem| problem.code), Some(565));
    assert_eq!((dead.told(), site.out().await), (vec!["boot1".to_owned()], vec!["web1".to_owned()]));
    assert!(others.iter().all(|machine| machine.told().is_empty()), "nobody else was told");
    let second = site.reboot(named(&["web2"])).await.unwrap_err();
    assert_eq!(second.code, Code(744));
    // It may go down at any moment: nobody brings it back before it is in another boot.
    let request = v1::HostRequest { host: "web1".into(), ..v1::HostRequest::default() };
    let undrained = ControlClient::new(site.admin()).undrain_host(request).await.unwrap_err();
    assert_eq!((from_status(&undrained).code, site.out().await), (Code(746), vec!["web1".to_owned()]));
    let hosts = ControlClient::new(site.admin()).status(v1::StatusRequest::default()).await.unwrap().into_inner().hosts;
    let reboots: Vec<&str> =
        hosts.iter().filter(|host| host.rebooting_ms.is_some()).map(|host| host.name.as_str()).collect();
    assert_eq!(reboots, ["web1"]);
    // It is there again: the same one is told nothing more, and all go on.
    let _back = site.machine("web1", 2, None, Fate::Returns);
    site.steer("resume").await.unwrap();
    let view = site.seen("succeeded", |view| view.state == "succeeded").await;
    assert_eq!((states(&view).as_str(), site.out().await.len()), ("done done done", 0));
    site.running.stop().await.unwrap();
}

#[tokio::test]
async fn what_may_not_be_rebooted_is_refused_before_anybody_is_drained() {
    let site = Site::new().await;
    let no = Problem::new(Code(567), "not here").help("reboot = true");
    let _refuses = site.machine("web1", 1, Some(no), Fate::Returns);
    let _allows = ["web2", "web3"].map(|host| site.machine(host, 1, None, Fate::Returns));
    site.served().await;
    for (request, code) in [
        (named(&["web1"]), 567),
        (RebootRequest::default(), 567),
        (named(&["web2", "web9"]), 703),
        (RebootRequest { service: "cart".into(), ..RebootRequest::default() }, 709),
    ] {
        let problem = site.reboot(request.clone()).await.unwrap_err();
        assert_eq!(problem.code, Code(code), "{request:?}: {problem}");
    }
    let freeze = v1::FreezeRequest { service: "shop".into(), why: "holidays".into(), ..v1::FreezeRequest::default() };
    ControlClient::new(site.admin()).freeze(freeze).await.unwrap();
    assert_eq!(site.reboot(named(&["web2"])).await.unwrap_err().code, Code(711));
    assert_eq!((site.out().await.len(), site.status().await.id.as_str()), (0, ""));
    assert_eq!(site.steer("sideways").await.unwrap_err().code, baton_proto::problem::code::USAGE);
    site.running.stop().await.unwrap();
}
