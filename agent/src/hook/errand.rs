//! One attempt of a hook, from its record to its end.

use super::{Record, Records};
use crate::allow::Allow;
use crate::runtime::{End, Exit, Launch, Running, Runtime, command};
use crate::{secrets, text};
use baton_core::fleet::InstanceKey;
use baton_core::fleet::hooks::{HookOutcome, HookSpec};
use baton_core::hook::{Hook, HookKey, Point};
use baton_core::name::Slot;
use baton_core::problem::{Code, Finding, Problem};
use baton_core::release::{Placeholders, Release, Signal, Stop};
use baton_core::rollout::hooks;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long all of a hook that outlived its time is asked politely.
const STOP: Stop = Stop { signal: Signal::Term, timeout: Duration::from_secs(5) };
/// Between two tries to write an end down.
const WRITE_RETRY: Duration = Duration::from_secs(1);

/// What is needed to run one attempt, or to see the end of one that runs.
#[derive(Debug, Clone)]
pub(crate) struct Errand {
    pub(crate) record: Record,
    pub(crate) records: Records,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) allow: Arc<Allow>,
    /// None once the release is not known here any more: then its time is not known either.
    pub(crate) release: Option<Arc<Release>>,
    pub(crate) folder: PathBuf,
}

/// Where its process comes from.
#[derive(Debug)]
pub(crate) enum Origin {
    Begin(HookSpec),
    /// An earlier agent started it.
    Found(Running),
    /// An earlier agent was about to, and no process of it is left.
    Lost,
}

/// The slot a hook runs in.
pub(crate) fn key_of_slot(key: &HookKey) -> InstanceKey {
    InstanceKey { service: key.service.clone(), slot: key.point.slot() }
}

impl Errand {
    /// Runs it, or watches it, and writes its end down. Dropping the future leaves the process alone.
    ///
    /// # Errors
    /// That it begins could not be written down, so it did not.
    pub(crate) async fn run(mut self, origin: Origin) -> Result<HookOutcome, Problem> {
        let outcome = match origin {
            Origin::Begin(spec) => {
                self.write().await.map_err(|error| unwritten(&self.record.key, &error))?;
                match self.begin(&spec).await {
                    Ok(running) => self.watch(&running).await,
                    Err(outcome) => outcome,
                }
            }
            Origin::Found(running) => self.watch(&running).await,
            Origin::Lost => HookOutcome::Unknown { problem: self.lost("no process of it is left") },
        };
        self.record.ended = Some(outcome.clone());
        while let Err(error) = self.write().await {
            tracing::warn!(hook = %self.record.key, %error, "how it ended could not be written down");
            tokio::time::sleep(WRITE_RETRY).await;
        }
        self.runtime.forget(&key_of_slot(&self.record.key)).await;
        Ok(outcome)
    }

    async fn write(&self) -> std::io::Result<()> {
        let (records, record) = (self.records.clone(), self.record.clone());
        let written = tokio::task::spawn_blocking(move || records.write(&record)).await;
        written.unwrap_or_else(|error| Err(std::io::Error::other(error)))
    }

    /// Starts its process. What is certain not to have run has failed; anything else nobody knows.
    async fn begin(&self, spec: &HookSpec) -> Result<Running, HookOutcome> {
        let failed = |problem: Problem| HookOutcome::Failed { problem: self.not_started(problem) };
        let (Some(release), Some(hook)) = (self.release.clone(), self.hook()) else {
            return Err(failed(Problem::new(Code(204), "its release is not known here")));
        };
        let (slot, port) = spec.instance.unwrap_or((Slot(0), 0));
        let placeholders = Placeholders { address: spec.address, port, slot, version: &release.version };
        let words: Vec<String> = hook.command.iter().map(|argument| placeholders.fill(argument)).collect();
        command::resolve(&words, &self.folder).map_err(failed)?;
        if let Some(user) = &release.run.user {
            command::user(user).map_err(failed)?;
        }
        let secrets = secrets::find(&release.run.secrets, &self.allow.files_of(&release.service)).await.map_err(failed)?;
        let launch = Launch {
            key: key_of_slot(&self.record.key),
            release: self.record.release,
            start: self.record.attempt,
            folder: self.folder.clone(),
            command: words,
            user: release.run.user.clone(),
            env: self.environment(&release, spec),
            secrets,
            stop: STOP,
            listen: Vec::new(),
        };
        tracing::info!(hook = %self.record.key, attempt = self.record.attempt, "begins");
        self.runtime.start(launch).await.map_err(|problem| HookOutcome::Unknown {
            problem: problem.seen.iter().fold(self.lost(&problem.what), |all, (label, seen)| all.saw(label, seen)),
        })
    }

    async fn watch(&self, running: &Running) -> HookOutcome {
        // An agent that takes one up gives it its whole time again: how long it has run, the one before knew.
        let timeout = self.hook().map_or(Duration::MAX, |hook| hook.timeout);
        let ended = tokio::time::timeout(timeout, self.runtime.ended(running)).await;
        let Ok(exit) = ended else {
            self.runtime.stop(running, &STOP).await;
            let problem = Problem::new(Code(802), format!("{} did not end within {}", self.name(), text::duration(timeout)));
            let problem = problem.saw("process", "it was killed, with everything it started");
            return HookOutcome::Failed { problem: self.with_output(problem, running).await };
        };
        match ended_well(exit) {
            Some(true) => HookOutcome::Succeeded { output: self.runtime.log(running).await },
            Some(false) => {
                let problem = Problem::new(Code(801), format!("{} failed: it {exit}", self.name()));
                HookOutcome::Failed { problem: self.with_output(problem, running).await }
            }
            None => HookOutcome::Unknown { problem: self.with_output(self.lost(&format!("it {exit}")), running).await },
        }
    }

    async fn with_output(&self, problem: Problem, running: &Running) -> Problem {
        let lines = self.runtime.log(running).await;
        let problem = lines.into_iter().fold(problem, |problem, line| problem.saw("output", line));
        problem.help(self.help())
    }

    fn hook(&self) -> Option<&Hook> {
        self.release.as_ref()?.hooks.at(self.record.key.point)
    }

    fn environment(&self, release: &Release, spec: &HookSpec) -> BTreeMap<String, String> {
        let mut env = release.run.env.clone();
        let key = &self.record.key;
        let mut ours = vec![
            ("BATON_HOOK", key.point.to_string()),
            ("BATON_SERVICE", key.service.to_string()),
            ("BATON_VERSION", release.version.to_string()),
            ("BATON_RELEASE", self.record.release.to_string()),
            ("BATON_ADDRESS", spec.address.to_string()),
        ];
        if let Some((slot, port)) = spec.instance {
            ours.extend([("BATON_SLOT", slot.to_string()), ("BATON_PORT", port.to_string())]);
        }
        env.extend(ours.into_iter().map(|(name, value)| (name.to_owned(), value)));
        env
    }

    /// `migrate of shop 2.1.0`.
    fn name(&self) -> String {
        let HookKey { point, service, .. } = &self.record.key;
        match &self.release {
            Some(release) => format!("{point} of {service} {}", release.version),
            None => format!("{point} of {service}"),
        }
    }

    fn not_started(&self, problem: Problem) -> Problem {
        let mine = Problem::new(Code(808), format!("{} could not be started: {}", self.name(), problem.what));
        let Finding { seen, help, .. } = problem.into();
        let mine = seen.into_iter().fold(mine, |mine, (label, seen)| mine.saw(label, seen));
        mine.help(help.unwrap_or_else(|| self.help()))
    }

    /// B0803: it was begun, and nobody saw its end.
    fn lost(&self, why: &str) -> Problem {
        hooks::lost(&self.record.key, &self.name(), why)
    }

    fn help(&self) -> String {
        hooks::way_on(&self.record.key)
    }
}

/// Whether it did what it should; None: nobody saw.
const fn ended_well(exit: Exit) -> Option<bool> {
    match exit.end {
        End::Status(0) => Some(true),
        End::Status(_) | End::Signal(_) => Some(false),
        End::Unseen => None,
    }
}

fn unwritten(key: &HookKey, error: &std::io::Error) -> Problem {
    let point: Point = key.point;
    Problem::new(Code(809), format!("that {point} begins could not be written down, so it does not"))
        .saw("records", text::io_error(error))
        .help("free space or repair the disk of the agent's state folder; it is tried again every second")
}
