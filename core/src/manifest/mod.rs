//! `baton.toml`: text in, types out, with errors that name the place and the remedy.
//!
//! [`parse`] is the entry point; [`keys`] is the one table of everything a manifest may say.

mod balancer;
pub mod codes;
mod conflict;
mod counters;
pub mod keys;

mod diagnostic;
mod health;
mod hooks;
mod judging;
mod listen;
pub(crate) mod nearest;
mod preview;
pub(crate) mod reader;
mod rollout;
mod run;
mod secret;
pub(crate) mod source;
#[cfg(test)]
mod tests;
mod unknown;
mod users;
mod values;
mod withdraw;
mod words;

pub use conflict::at_its_line;
pub use diagnostic::{Diagnostic, Severity};

use crate::fleet::hooks::HookRuns;
use crate::fleet::{BalancerPool, Service};
use crate::hook::Hooks;
use crate::name::{HostName, ServiceName, Version};
use crate::release::{Artifact, Health, Release, Run};
use crate::strategy::{Placement, Strategy};
use reader::{Finding, Reader};
use serde::{Deserialize, Serialize};
use source::Source;
use std::ops::Range;
use toml::de::DeTable;

/// More is some other file: refused before it is read.
pub const LARGEST: usize = 256 * 1024;

/// A manifest that holds together: every key read, every default filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub service: ServiceName,
    /// In the order they are replaced.
    pub hosts: Vec<HostName>,
    /// With `{version}` in it: see [`Manifest::artifact_of`].
    pub artifact_path: String,
    pub run: Run,
    /// One slot a port.
    pub ports: Vec<u16>,
    pub health: Health,
    /// None: nothing routes to the service, so nothing drains.
    pub balancer: Option<BalancerPool>,
    pub strategy: Strategy,
    pub hooks: Hooks,
    /// What is allowed and probably not meant.
    pub warnings: Vec<Diagnostic>,
    settings: Vec<Setting>,
}

/// One key with the value it has, and where that comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Its place: `run.stop.signal`.
    pub key: &'static str,
    /// In the words of the manifest.
    pub value: String,
    pub origin: Origin,
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    Default,
    Manifest {
        /// From 1.
        line: usize,
    },
}

/// Reads a manifest. `path` is what diagnostics call the file.
///
/// # Errors
/// Everything that is wrong, in the order of the file, not only the first; warnings among it. At least one is an error.
pub fn parse(path: &str, text: &str) -> Result<Manifest, Vec<Diagnostic>> {
    let mut source = Source::new(path, text);
    if text.len() > LARGEST {
        let what = format!("{} KiB are too much for a manifest", text.len() / 1024);
        let finding = Finding::error(codes::TOO_LARGE, 0..0, what).label(format!("at most {} KiB", LARGEST / 1024));
        source = Source::new(path, "");
        return Err(vec![reader::diagnostic(&source, finding)]);
    }
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        source.masked = secret::ranges_in_text(text);
        return Err(syntax(&source, &errors));
    }
    source.masked = secret::ranges(root.get_ref());
    let mut reader = Reader::new(source, root.get_ref());
    unknown::check(&mut reader);
    let manifest = read(&mut reader);
    let (findings, settings) = reader.finish();
    match manifest {
        Some(manifest) if findings.iter().all(|finding| finding.severity == Severity::Warning) => {
            Ok(Manifest { warnings: findings, settings, ..manifest })
        }
        _ => Err(findings),
    }
}

/// The first places where the file stops being TOML: what comes after them is mostly their echo.
fn syntax(source: &Source<'_>, errors: &[toml::de::Error]) -> Vec<Diagnostic> {
    const SHOWN: usize = 3;
    let end = source.text.len();
    let mut places: Vec<_> = errors.iter().map(|error| (error.span().unwrap_or(end..end), error.message())).collect();
    places.sort_by_key(|(span, _)| span.start);
    if let Some(open) = places.first().and_then(|(span, _)| open_list(source.text, span.start)) {
        let finding =
            Finding::error(codes::SYNTAX, open..open + 1, "this is not valid TOML").label("this list is never closed");
        return vec![reader::diagnostic(source, finding.help("end it with `]`, before the next key or table"))];
    }
    let finding = |(span, message): (Range<usize>, &str)| {
        let message = message.replace('\n', ", ");
        let label = message.strip_suffix(", expected nothing").unwrap_or(&message);
        reader::diagnostic(source, Finding::error(codes::SYNTAX, span, "this is not valid TOML").label(label))
    };
    places.into_iter().take(SHOWN).map(finding).collect()
}

/// The list that is still open where a line begins that cannot be an item of it.
fn open_list(text: &str, until: usize) -> Option<usize> {
    let before = text.get(..until)?;
    let line_begin = before.rfind('\n').map_or(0, |at| at + 1);
    if !before[line_begin..].trim().is_empty() {
        return None;
    }
    let (mut open, mut quote, mut comment, mut value) = (Vec::new(), None, false, false);
    for (at, character) in before.char_indices() {
        match (character, quote) {
            ('\n', _) => (quote, comment, value) = (None, false, !open.is_empty()),
            _ if comment => {}
            (_, Some(until)) if character == until => quote = None,
            (_, Some(_)) => {}
            ('"' | '\'', None) => quote = Some(character),
            ('#', None) => comment = true,
            ('=', None) => value = true,
            ('[', None) if value => open.push(at),
            (']', None) => drop(open.pop()),
            _ => {}
        }
    }
    open.first().copied()
}

fn read(reader: &mut Reader<'_, '_>) -> Option<Manifest> {
    let service = reader.name::<ServiceName>("service");
    let hosts = reader.hosts("hosts");
    let artifact_path = run::artifact_path(reader);
    let run = run::run(reader);
    let ports = run::ports(reader);
    let health = health::health(reader);
    let balancer = balancer::balancer(reader, service.as_ref());
    let around = rollout::Surroundings {
        hosts: hosts.as_ref().map(Vec::len),
        ports: ports.as_ref().map(Vec::len),
        balanced: reader.has_table("balancer"),
    };
    let strategy = rollout::strategy(reader, around);
    let hooks = hooks::hooks(reader);
    let manifest = Manifest {
        service: service?,
        hosts: hosts?,
        artifact_path: artifact_path?,
        run: run?,
        ports: ports?,
        health: health?,
        balancer: balancer?,
        strategy: strategy?,
        hooks: hooks?,
        warnings: Vec::new(),
        settings: Vec::new(),
    };
    deadlines(reader, &manifest);
    clients(reader, &manifest);
    own_port(reader, &manifest);
    withdraw::fits(reader, &manifest);
    Some(manifest)
}

/// Warns of a second port that no client is led to.
fn clients(reader: &mut Reader<'_, '_>, manifest: &Manifest) {
    let led = manifest.balancer.is_some() || !manifest.run.listen.is_empty();
    if led || manifest.strategy.placement == Placement::InPlace || reader.found_errors() {
        return;
    }
    let what = "nothing moves the clients from the old port to the new one".to_owned();
    let finding = Finding::warning(codes::NOBODY_MOVES, reader.span("run.ports"), what);
    let help = "add [balancer], or run.listen for a hand-over of one socket; with one port in run.ports the release is replaced in place, \
         and its host does not serve meanwhile";
    reader.report(finding.label("each release listens on another one of these").help(help));
}

/// Warns of a program that nobody tells which port of several is its own.
fn own_port(reader: &mut Reader<'_, '_>, manifest: &Manifest) {
    /// What each instance finds in its environment, or is given in its place.
    const TELLS: [&str; 3] = ["{port}", "{slot}", "BATON_"];
    let told = manifest.run.command.iter().any(|word| TELLS.iter().any(|tells| word.contains(tells)));
    if told || manifest.ports.len() < 2 || reader.found_errors() {
        return;
    }
    let what = "the command is the same in every slot: nothing in it says which port to listen on";
    let finding = Finding::warning(codes::PORT_UNTOLD, reader.span("run.command"), what).label("no {port} here");
    reader.report(finding.help("pass {port} to the program, unless it reads the port from $BATON_PORT by itself"));
}

/// Warns of a deadline without an effect: whatever it says, a single host has the time for what it may do.
fn deadlines(reader: &mut Reader<'_, '_>, manifest: &Manifest) {
    let Manifest { strategy, health, run, .. } = manifest;
    let slowest = [
        ("health.start_timeout", health.start_timeout),
        ("health.healthy_for", health.healthy_for),
        ("rollout.drain", strategy.drain_deadline),
        ("run.stop.timeout", run.stop.timeout),
    ];
    if let Some((key, wait)) = slowest.into_iter().find(|(_, wait)| *wait >= strategy.progress_deadline) {
        let place = ["rollout.progress_deadline", key].into_iter().find(|path| reader.value(path).is_some());
        let what = format!(
            "progress_deadline has no effect before {key} ({}) is over: a host may take that long",
            humantime::format_duration(wait)
        );
        let deadline = humantime::format_duration(strategy.progress_deadline);
        let finding = Finding::warning(codes::TOO_LATE, reader.span(place.unwrap_or(key)), what);
        reader
            .report(finding.label(format!("progress_deadline is {deadline}")).help("make rollout.progress_deadline longer"));
    }
}

impl Manifest {
    /// The path of one version's archive.
    #[must_use]
    pub fn artifact_of(&self, version: &Version) -> String {
        self.artifact_path.replace("{version}", version.as_str())
    }

    /// The release that a version of the service is.
    #[must_use]
    pub fn release(&self, version: Version, artifact: Artifact) -> Release {
        let (service, run, health) = (self.service.clone(), self.run.clone(), self.health.clone());
        Release { service, version, artifact, run, health, hooks: self.hooks.clone() }
    }

    /// The service as it should be known to the fleet; which release it is at rest is not the manifest's to say.
    #[must_use]
    pub fn service(&self) -> Service {
        Service {
            hosts: self.hosts.clone(),
            ports: self.ports.clone(),
            balancer: self.balancer.clone(),
            strategy: self.strategy.clone(),
            committed: None,
            previous: None,
            warm: None,
            hooks: HookRuns::new(),
            orders: crate::fleet::orders::Orders::default(),
            past: Default::default(),
        }
    }

    /// Every key that has a value, where the value comes from, in the order of the reference.
    #[must_use]
    pub fn origins(&self) -> &[Setting] {
        &self.settings
    }
}
