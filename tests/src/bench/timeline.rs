//! One host's part of a rollout, from three witnesses: the balancer, the instances' own logs, and the clock between them.

use super::milliseconds;
use super::sampler::Turns;
use anyhow::Context as _;
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// When an instance began, listened, was asked to stop, and ended, by its own log.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Life {
    start: Option<SystemTime>,
    listen: Option<SystemTime>,
    term: Option<SystemTime>,
    exit: Option<SystemTime>,
}

impl Life {
    pub(super) fn read(log: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(log).with_context(|| format!("cannot read {}", log.display()))?;
        let mut life = Self::default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let at = words.next().and_then(|at| at.parse().ok()).map(|at| UNIX_EPOCH + Duration::from_millis(at));
            match words.nth(2) {
                Some("start") => life.start = at,
                Some("listen") => life.listen = at,
                Some("term") => life.term = at,
                Some("exit") => life.exit = at,
                _ => {}
            }
        }
        Ok(life)
    }
}

/// Milliseconds one host took, step by step. The steps add up to `wall`.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Split {
    pub(super) host: String,
    pub(super) wall: f64,
    /// From the host before being in (or the command) to this one being out of the balancer.
    pub(super) turn: f64,
    /// Out, with requests in flight. Unavoidable.
    pub(super) drain: f64,
    /// From nothing in flight to the old process gone.
    pub(super) stop: f64,
    /// From the old process gone to the new one's first line.
    pub(super) launch: f64,
    /// The application's own start. Unavoidable.
    pub(super) start: f64,
    /// The release's `healthy_for`. Unavoidable.
    pub(super) healthy_for: f64,
    /// From when it could have been called healthy to the balancer sending it requests: the probe's delay and the enrolment.
    pub(super) probe_and_enroll: f64,
    pub(super) unavoidable: f64,
    pub(super) overhead: f64,
}

/// What is known of one host.
#[derive(Debug)]
pub(super) struct Witnesses {
    pub(super) host: String,
    /// When the host before was in, or the command was given.
    pub(super) from: SystemTime,
    pub(super) turns: Turns,
    pub(super) old: Life,
    pub(super) new: Life,
    pub(super) healthy_for: Duration,
}

impl Witnesses {
    pub(super) fn split(&self) -> anyhow::Result<Split> {
        let missing = |what: &str| format!("{}: nobody saw {what}", self.host);
        let out = self.turns.out.with_context(|| missing("it go out"))?;
        let drained = self.turns.drained.with_context(|| missing("it drained"))?;
        let back = self.turns.back.with_context(|| missing("it come back"))?;
        let gone = self.old.exit.or(self.old.term).with_context(|| missing("the old instance end"))?;
        let started = self.new.start.with_context(|| missing("the new instance start"))?;
        let listened = self.new.listen.with_context(|| missing("the new instance listen"))?;

        let turn = between(self.from, out);
        let drain = between(out, drained);
        let stop = between(drained, gone);
        let launch = between(gone, started);
        let start = between(started, listened);
        let healthy_for = milliseconds(self.healthy_for);
        let probe_and_enroll = between(listened + self.healthy_for, back);
        let wall = between(self.from, back);
        let unavoidable = drain + start + healthy_for;
        Ok(Split {
            host: self.host.clone(),
            wall,
            turn,
            drain,
            stop,
            launch,
            start,
            healthy_for,
            probe_and_enroll,
            unavoidable: rounded(unavoidable),
            overhead: rounded(wall - unavoidable),
        })
    }
}

/// Signed: two witnesses may differ by the few milliseconds between two looks.
pub(super) fn between(from: SystemTime, to: SystemTime) -> f64 {
    match to.duration_since(from) {
        Ok(duration) => milliseconds(duration),
        Err(error) => -milliseconds(error.duration()),
    }
}

pub(super) fn rounded(milliseconds: f64) -> f64 {
    (milliseconds * 100.0).round() / 100.0
}
