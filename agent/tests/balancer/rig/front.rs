//! A balancer under test: where it listens, what its agent is told, and what people do to its program.

use super::{builtin, envoy, haproxy, nginx};
use baton_agent::balancer::{BalancerConfig, Drift};
use baton_core::fleet::spec::MemberState;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::path::PathBuf;
use tempfile::TempDir;

/// The program of a balancer, as its owner handles it.
pub(crate) trait Program: Debug + Send {
    /// Starts it, and comes back when it listens. A program that its driver starts does nothing here.
    fn start(&mut self) {}

    /// `kill -9` of everything of it that runs; `identity` is what its driver reported.
    fn kill(&mut self, identity: &str);

    /// As its owner reloads it.
    fn reload(&self) {}

    /// What a person tells it about a member of `shop`, past Baton.
    fn by_hand(&self, address: SocketAddr, state: MemberState);
}

/// What a balancer can do beyond what all of them can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Abilities {
    /// Requests and errors of each member.
    pub(crate) counts: bool,
    /// A change closes no connection that a client keeps.
    pub(crate) keeps_idle: bool,
    /// Its driver starts it.
    pub(crate) starts_itself: bool,
}

#[derive(Debug)]
pub(crate) struct Front {
    // Before the folder: the program ends before its files go.
    pub(crate) program: Box<dyn Program>,
    pub(crate) folder: TempDir,
    /// Where `shop` is served.
    pub(crate) listen: SocketAddr,
    /// Where `till` is served.
    pub(crate) till: SocketAddr,
    pub(crate) config: BalancerConfig,
    pub(crate) abilities: Abilities,
}

/// Makes a balancer that knows these places in both of its pools; `None` where it is not installed.
pub(crate) type Make = fn(&[SocketAddr]) -> Option<Front>;

impl Front {
    /// `command`: what starts the built-in proxy.
    pub(crate) fn builtin(command: Vec<String>) -> Self {
        builtin::front(command)
    }

    pub(crate) fn haproxy(servers: &[SocketAddr]) -> Option<Self> {
        let lines = servers.iter().enumerate().map(|(index, address)| format!("    server s{index} {address} disabled\n"));
        Self::haproxy_with(&lines.collect::<String>(), |config| config)
    }

    /// The same, prepared for dividing requests.
    pub(crate) fn haproxy_split(servers: &[SocketAddr]) -> Option<Self> {
        Self::haproxy_split_with(servers, |config| config)
    }

    pub(crate) fn haproxy_split_with(servers: &[SocketAddr], edit: impl Fn(String) -> String) -> Option<Self> {
        let lines = servers.iter().enumerate().map(|(index, address)| format!("    server s{index} {address} disabled\n"));
        let lines = lines.collect::<String>();
        let sample = include_str!("../../../examples/haproxy-split.cfg");
        let (frontend, backend) = sample.split_once("# beside").expect("two parts");
        let plain = |part: &str| part.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
        let backend = backend.split_once('\n').expect("a comment line").1.replace("@SERVERS@", &lines);
        Self::haproxy_with(&lines, |config| edit(config.replace("@DIVIDE@", &plain(frontend)).replace("@TRIAL@", &backend)))
    }

    /// HAProxy with the sample configuration, after an edit.
    pub(crate) fn haproxy_with(servers: &str, edit: impl Fn(String) -> String) -> Option<Self> {
        haproxy::front(servers, edit)
    }

    /// The distribution's nginx.
    pub(crate) fn nginx(_: &[SocketAddr]) -> Option<Self> {
        nginx::front("nginx", "BATON_NGINX", |config| config)
    }

    /// One of 1.27.4 or later, which can keep idle connections.
    pub(crate) fn nginx_new(_: &[SocketAddr]) -> Option<Self> {
        nginx::front("nginx-new", "BATON_NGINX_NEW", |config| {
            config.replace("http {", "http {\n    keepalive_min_timeout 5s;")
        })
    }

    pub(crate) fn envoy(_: &[SocketAddr]) -> Option<Self> {
        envoy::front(|config, _| config, |_| ())
    }

    /// The same, prepared for dividing requests.
    pub(crate) fn envoy_split(_: &[SocketAddr]) -> Option<Self> {
        envoy::split_front()
    }

    pub(crate) fn envoy_with(edit: impl Fn(String) -> String) -> Option<Self> {
        envoy::front(|config, _| edit(config), |_| ())
    }

    pub(crate) fn nginx_with(edit: impl Fn(String) -> String) -> Option<Self> {
        nginx::front("nginx", "BATON_NGINX", edit)
    }

    /// Its agent is to leave alone what people change by hand.
    #[allow(dead_code, reason = "for the tests")]
    pub(crate) fn leaves_drift(&mut self) {
        *match &mut self.config {
            BalancerConfig::Haproxy(config) => &mut config.drift,
            BalancerConfig::Nginx(config) => &mut config.drift,
            BalancerConfig::Envoy(config) => &mut config.drift,
            BalancerConfig::Builtin(config) => &mut config.drift,
        } = Drift::Leave;
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn start(&mut self) {
        self.program.start();
    }

    pub(crate) fn kill(&mut self, identity: &str) {
        self.program.kill(identity);
    }

    pub(crate) fn reload(&self) {
        self.program.reload();
    }
}
