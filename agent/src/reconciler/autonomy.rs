//! What this host decides by itself, and remembers: which releases it gave up, and what it follows instead of its spec's letter.

use crate::durable;
use baton_core::fleet::spec::HostSpec;
use baton_core::host::fallback::{Because, GivenUp, Now, Verdict, followed, give_up, judge};
use baton_core::host::plan::Observed;
use baton_core::name::{ReleaseId, ServiceName};
use baton_core::problem::{Code, Problem};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Verdicts on disk, and the spec as it is followed under them.
#[derive(Debug)]
pub struct Autonomy {
    path: PathBuf,
    given_up: GivenUp,
    followed: Option<HostSpec>,
}

impl Autonomy {
    /// Reads what a state folder remembers. What cannot be read is forgotten: then the spec's letter is followed again.
    #[must_use]
    pub fn open(folder: &Path) -> Self {
        let path = folder.join("given-up.json");
        let given_up = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { path, given_up, followed: None }
    }

    /// Follows a spec from now on.
    pub(super) fn follow(&mut self, spec: Option<&HostSpec>) {
        self.followed = spec.map(|spec| followed(spec, &self.given_up));
    }

    /// The spec as this host follows it.
    pub(super) fn spec(&self) -> Option<&HostSpec> {
        self.followed.as_ref()
    }

    /// Draws the conclusions from what was seen. What could not be written down has no consequence yet.
    pub(super) fn judge(&mut self, spec: &HostSpec, observed: &Observed) {
        let next = judge(spec, observed, &self.given_up);
        if next == self.given_up {
            return;
        }
        for (key, verdict) in next.iter().filter(|(key, verdict)| self.given_up.get(*key) != Some(*verdict)) {
            tracing::warn!(instance = %key, ?verdict, "this host decides by itself");
        }
        if let Err(error) = self.remember(next, spec) {
            tracing::warn!(%error, "what this host decided could not be written down: it is not done");
        }
    }

    /// Gives up what a service runs here, because a person on this host says so. Returns the version that runs instead.
    ///
    /// # Errors
    /// There is nothing to go back to, or it could not be written down.
    pub(super) fn go_back(
        &mut self,
        spec: &HostSpec,
        observed: &Observed,
        name: &ServiceName,
        by: &str,
    ) -> Result<String, Problem> {
        let added = give_up(spec, observed, name, by);
        let Some(fallback) = added.keys().find_map(|key| spec.instances.get(key)?.fallback) else {
            return Err(nothing_there(spec, name));
        };
        let next = self.given_up.clone().into_iter().chain(added).collect();
        self.remember(next, spec).map_err(|error| {
            Problem::new(Code(541), "what was asked for could not be written down, and is not done")
                .saw("file", format!("{}: {}", self.path.display(), crate::text::io_error(&error)))
                .help("free space or repair the disk of the agent's state folder")
        })?;
        Ok(version(spec, fallback))
    }

    /// What the coordinator and people are told.
    pub(super) fn problem(&self, spec: &HostSpec) -> Option<Problem> {
        let (key, verdict) = self.given_up.iter().find(|(_, verdict)| verdict.now == Now::Fallback)?;
        let fallback = spec.instances.get(key)?.fallback?;
        let Verdict { release, because, .. } = verdict;
        let (given_up, runs) = (version(spec, *release), version(spec, fallback));
        let name = &key.service;
        let what = format!("{name} {given_up} was given up on this host, which runs {runs}");
        let problem = Problem::new(Code(216), what);
        let problem = match because {
            Because::CrashLoop(last) => problem.saw("last try", last.to_string()),
            Because::Person(by) => problem.saw("asked for by", by.clone()),
        };
        Some(
            problem.help(format!(
                "baton rollback {name} takes every host back; baton retry {name} tries {given_up} again here"
            )),
        )
    }

    fn remember(&mut self, next: GivenUp, spec: &HostSpec) -> io::Result<()> {
        durable::replace(&self.path, &serde_json::to_vec(&next)?)?;
        self.given_up = next;
        self.follow(Some(spec));
        Ok(())
    }
}

fn version(spec: &HostSpec, release: ReleaseId) -> String {
    spec.releases.get(&release).map_or_else(|| release.0.short(), |release| release.version.to_string())
}

fn nothing_there(spec: &HostSpec, name: &ServiceName) -> Problem {
    let here: Vec<String> = spec.instances.keys().map(|key| key.service.to_string()).collect();
    match spec.instances.keys().any(|key| key.service == *name) {
        true => Problem::new(Code(540), format!("{name} has nothing to go back to on this host"))
            .saw("possible", "once its release is live everywhere, and the one before is still here")
            .help("baton-agent status shows what this host has"),
        false => Problem::new(Code(540), format!("{name} does not run on this host"))
            .saw("runs", if here.is_empty() { "nothing".to_owned() } else { here.join(", ") })
            .help("baton-agent status shows what this host has"),
    }
}
