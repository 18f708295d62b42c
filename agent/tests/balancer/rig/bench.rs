//! A balancer, its driver and two applications; and the agent's loop around the driver.

use super::app::App;
use super::front::Front;
use super::place;
use baton_agent::balancer::{self, Balancer};
use baton_core::fleet::report::{MemberReport, PoolReport};
use baton_core::fleet::spec::{Exchange, MemberSpec, MemberState, PoolSpec};
use baton_core::fleet::split::Side;
use baton_core::name::PoolName;
use baton_core::release::Probe;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// For anything a test waits for.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) front: Front,
    pub(crate) driver: Box<dyn Balancer>,
    pub(crate) apps: Vec<App>,
    pub(crate) pools: BTreeMap<PoolName, PoolSpec>,
}

/// Two places for applications.
pub(crate) fn places() -> Vec<SocketAddr> {
    vec![place(), place()]
}

pub(crate) fn shop() -> PoolName {
    "shop".parse().expect("a name")
}

impl Bench {
    /// Applications that run, a pool that wants none of them in yet.
    pub(crate) fn new(front: Front, places: &[SocketAddr]) -> Self {
        let mut bench = Self::without_apps(front, places);
        bench.apps = places.iter().map(|address| App::at(*address)).collect();
        bench.apps.iter_mut().for_each(App::start);
        bench
    }

    /// The same for members that are somebody else's.
    pub(crate) fn without_apps(front: Front, places: &[SocketAddr]) -> Self {
        let members = (0..).zip(places).map(|(index, address): (usize, _)| {
            let probe = Probe::Http { path: "/health".into() };
            let member = MemberSpec { address: *address, state: MemberState::Out, weight: 1, side: Side::Stable, probe };
            (format!("web{index}/0").parse().expect("a key"), member)
        });
        let pool = PoolSpec {
            service: "shop".parse().expect("a name"),
            members: members.collect(),
            drain_deadline: Duration::from_secs(30),
            slow_start: Duration::ZERO,
            split: None,
            exchange: Exchange::Each,
        };
        let driver = open(&front);
        Self { front, driver, apps: Vec::new(), pools: BTreeMap::from([(shop(), pool)]) }
    }

    /// The same with both in.
    pub(crate) async fn serving(front: Front, places: &[SocketAddr]) -> Self {
        let mut bench = Self::new(front, places);
        bench.want(0, MemberState::Ready);
        bench.want(1, MemberState::Ready);
        bench.until("both are in", |pool| pool.members.values().all(MemberReport::is_in)).await;
        bench
    }

    pub(crate) fn pool(&mut self) -> &mut PoolSpec {
        self.pools.get_mut(&shop()).expect("the pool")
    }

    pub(crate) fn want(&mut self, index: usize, state: MemberState) {
        let key = format!("web{index}/0").parse().expect("a key");
        self.pool().members.get_mut(&key).expect("a member").state = state;
    }

    pub(crate) fn side(&mut self, index: usize, side: Side) {
        let key = format!("web{index}/0").parse().expect("a key");
        self.pool().members.get_mut(&key).expect("a member").side = side;
    }

    /// An agent that was killed and came back: it knows what is on disk.
    pub(crate) fn restart_agent(&mut self) {
        self.driver = open(&self.front);
    }

    /// The agent ends once its pass had so many turns, and another one comes. Returns whether the pass was through before.
    pub(crate) async fn ends_after(&mut self, mut turns: usize) -> bool {
        let mut pass = self.driver.reconcile(&self.pools);
        let turn = |context: &mut Context<'_>| match turns.checked_sub(1) {
            Some(left) => {
                turns = left;
                pass.as_mut().poll(context).map(|_| true)
            }
            None => Poll::Ready(false),
        };
        let through = std::future::poll_fn(turn).await;
        drop(pass);
        self.restart_agent();
        through
    }

    pub(crate) async fn pass(&mut self) -> PoolReport {
        self.driver.reconcile(&self.pools).await.remove(&shop()).expect("the pool's report")
    }

    /// Runs the agent's loop until the balancer can be believed and its report is as it should be.
    pub(crate) async fn until(&mut self, what: &str, condition: impl Fn(&PoolReport) -> bool) -> PoolReport {
        self.until_any(what, |pool| pool.problem.is_none() && condition(pool)).await
    }

    /// The same for `shop` and `till`.
    pub(crate) async fn until_both(
        &mut self,
        what: &str,
        condition: impl Fn(&PoolReport, &PoolReport) -> bool,
    ) -> BTreeMap<PoolName, PoolReport> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reports = self.driver.reconcile(&self.pools).await;
            let (shop, till) = (&reports[&shop()], &reports[&"till".parse().expect("a name")]);
            if shop.problem.is_none() && till.problem.is_none() && condition(shop, till) {
                return reports;
            }
            assert!(Instant::now() < deadline, "{what}: never; {reports:#?}");
            tokio::time::sleep(self.driver.poll_after()).await;
        }
    }

    /// One report in which the problem of a code stands, of the pool or of a member.
    pub(crate) async fn until_problem(&mut self, code: u16) -> PoolReport {
        self.until_any(&format!("B{code:04}"), |pool| codes(pool).contains(&code)).await
    }

    pub(crate) async fn until_any(&mut self, what: &str, condition: impl Fn(&PoolReport) -> bool) -> PoolReport {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let began = Instant::now();
            let report = self.pass().await;
            assert!(began.elapsed() < Duration::from_secs(2), "one pass took {:?}", began.elapsed());
            if condition(&report) {
                return report;
            }
            assert!(Instant::now() < deadline, "{what}: never; {report:#?}");
            tokio::time::sleep(self.driver.poll_after()).await;
        }
    }
}

/// What the reports of `web0` and `web1` are.
pub(crate) fn member(pool: &PoolReport, index: usize) -> &MemberReport {
    &pool.members[&format!("web{index}/0").parse().expect("a key")]
}

/// The codes of every problem in a report.
pub(crate) fn codes(pool: &PoolReport) -> Vec<u16> {
    let members = pool.members.values().filter_map(|member| member.problem.as_ref());
    pool.problem.iter().chain(members).map(|problem| problem.code.0).collect()
}

fn open(front: &Front) -> Box<dyn Balancer> {
    balancer::open(front.config.clone(), &front.path("agent")).expect("the driver opens")
}
