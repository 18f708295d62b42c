//! A release: everything that makes one version of a service behave as it does, under one digest.

use crate::hook::Hooks;
use crate::name::{Digest, ReleaseId, ServiceName, Slot, Version};
use crate::secret::Secret;
use crate::time::millis;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// An immutable version of a service: artifact, how to run it, how to know that it is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    pub service: ServiceName,
    pub version: Version,
    pub artifact: Artifact,
    pub run: Run,
    pub health: Health,
    /// Commands that are run beside its instances.
    #[serde(default, skip_serializing_if = "Hooks::is_empty")]
    pub hooks: Hooks,
}

/// The archive a release is unpacked from: a zstd-compressed tar, named by the digest of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    pub digest: Digest,
    pub size: u64,
}

/// How an instance of a release is started and stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The program and its arguments. `{port}`, `{address}`, `{slot}`, `{version}` are filled in on the host; a relative
    /// program is looked up in the release's folder.
    pub command: Vec<String>,
    /// The user to run as; the agent's own where none is named.
    pub user: Option<String>,
    pub env: BTreeMap<String, String>,
    /// By name, where each host finds them. Their values are no part of a release.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, Secret>,
    pub stop: Stop,
    /// Sockets its host holds for the service, across releases and restarts, and hands to every instance.
    #[serde(default)]
    pub listen: Vec<SocketAddr>,
}

/// How an instance is asked to finish, and when it is made to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    pub signal: Signal,
    #[serde(with = "millis")]
    pub timeout: Duration,
}

/// The signals an application may want as its polite stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signal {
    #[serde(rename = "SIGTERM")]
    Term,
    #[serde(rename = "SIGINT")]
    Int,
    #[serde(rename = "SIGQUIT")]
    Quit,
    #[serde(rename = "SIGUSR1")]
    Usr1,
    #[serde(rename = "SIGUSR2")]
    Usr2,
}

/// How an instance shows that it is ready, and how long it may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub probe: Probe,
    /// Between two probes of an instance that is ready. While it starts, probes come faster.
    #[serde(with = "millis")]
    pub interval: Duration,
    /// For one probe.
    #[serde(with = "millis")]
    pub timeout: Duration,
    /// How long it must have been ready without a break before it may serve.
    #[serde(with = "millis")]
    pub healthy_for: Duration,
    /// From its start to its first ready; later it has failed.
    #[serde(with = "millis")]
    pub start_timeout: Duration,
}

/// A question whose answer is "ready".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// `GET path` on the instance's port answers 200 to 299. Redirects are not followed: 301 is not ready. Each member of a pool has
    /// one, and pools of thousands are copied whole: a short path is no memory of its own.
    Http { path: SmolStr },
    /// The instance's port accepts a connection.
    Tcp,
    /// The command exits 0. Placeholders as in [`Run::command`].
    Exec { command: Vec<String> },
}

impl Release {
    /// The digest over everything here: two releases with one id behave alike.
    ///
    /// Fields are fed with their length, so that no two releases can read as the same bytes.
    #[must_use]
    pub fn id(&self) -> ReleaseId {
        let mut hash = Fields::new("baton release v1");
        hash.text(self.service.as_str()).text(self.version.as_str());
        hash.bytes(self.artifact.digest.as_bytes()).number(self.artifact.size);
        hash.list(&self.run.command).text(self.run.user.as_deref().unwrap_or(""));
        hash.number(self.run.env.len() as u64);
        for (key, value) in &self.run.env {
            hash.text(key).text(value);
        }
        // Only where there are any: releases from before there were keep their id.
        if !self.run.secrets.is_empty() {
            hash.text("secrets").number(self.run.secrets.len() as u64);
            for (name, secret) in &self.run.secrets {
                hash.text(name).text(&secret.to_string());
            }
        }
        hash.text(self.run.stop.signal.name()).duration(self.run.stop.timeout);
        match &self.health.probe {
            Probe::Http { path } => hash.text("http").text(path),
            Probe::Tcp => hash.text("tcp"),
            Probe::Exec { command } => hash.text("exec").list(command),
        };
        hash.duration(self.health.interval).duration(self.health.timeout);
        hash.duration(self.health.healthy_for).duration(self.health.start_timeout);
        // Releases without such sockets keep the identity they had before there were any.
        if !self.run.listen.is_empty() {
            let listen: Vec<String> = self.run.listen.iter().map(ToString::to_string).collect();
            hash.text("listen").list(&listen);
        }
        // And so do those without hooks.
        if !self.hooks.is_empty() {
            hash.text("hooks").number(self.hooks.0.len() as u64);
            for (point, hook) in &self.hooks.0 {
                hash.text(point.word()).list(&hook.command).duration(hook.timeout).number(hook.no_way_back.into());
            }
        }
        ReleaseId(hash.finish())
    }
}

impl Signal {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Term => "SIGTERM",
            Self::Int => "SIGINT",
            Self::Quit => "SIGQUIT",
            Self::Usr1 => "SIGUSR1",
            Self::Usr2 => "SIGUSR2",
        }
    }

    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Term, Self::Int, Self::Quit, Self::Usr1, Self::Usr2].into_iter().find(|signal| signal.name() == name)
    }
}

/// What placeholders of a command stand for on one host.
#[derive(Debug, Clone, Copy)]
pub struct Placeholders<'a> {
    pub address: IpAddr,
    pub port: u16,
    pub slot: Slot,
    pub version: &'a Version,
}

impl Placeholders<'_> {
    /// The words a manifest may write between braces.
    pub const NAMES: [&'static str; 4] = ["address", "port", "slot", "version"];

    /// Fills the placeholders of one argument in; other braces stay as they are.
    #[must_use]
    pub fn fill(&self, argument: &str) -> String {
        argument
            .replace("{address}", &self.address.to_string())
            .replace("{port}", &self.port.to_string())
            .replace("{slot}", &self.slot.to_string())
            .replace("{version}", self.version.as_str())
    }
}

struct Fields(blake3::Hasher);

impl Fields {
    fn new(kind: &str) -> Self {
        let mut fields = Self(blake3::Hasher::new());
        fields.text(kind);
        fields
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    fn list(&mut self, items: &[String]) -> &mut Self {
        self.number(items.len() as u64);
        items.iter().for_each(|item| {
            self.text(item);
        });
        self
    }

    fn number(&mut self, number: u64) -> &mut Self {
        self.0.update(&number.to_le_bytes());
        self
    }

    fn duration(&mut self, duration: Duration) -> &mut Self {
        self.number(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    fn finish(&self) -> Digest {
        Digest::from_bytes(*self.0.finalize().as_bytes())
    }
}
