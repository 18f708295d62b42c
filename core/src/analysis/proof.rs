//! What the balancers counted while a rollout went on: the only thing "0 failed" may ever be said of.

use super::POLL;
use super::counts::Counts;
use super::judgement::is_default;
use super::meters::{Traffic, Whose};
use super::probes::Probes;
use crate::fleet::MemberKey;
use crate::name::HostName;
use crate::time::{Moment, millis};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// In so long every balancer has read its counters again.
const WHOLE: Duration = POLL.saturating_add(Duration::from_millis(150));

/// Counted by the balancers, from a rollout's begin to its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    pub old: Counts,
    pub new: Counts,
    /// Answered by neither release of the rollout.
    #[serde(default, skip_serializing_if = "is_default")]
    pub other: Counts,
    /// Requests cut at a drain's deadline.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cut: u64,
    /// The hosts they were at.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cuts: BTreeMap<HostName, Cut>,
    /// How many of them a balancer counted among the failures, too.
    #[serde(default, skip_serializing_if = "is_default")]
    cut_failed: u64,
    /// Cut in the look before, and not seen among the failures yet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    cut_last: BTreeMap<HostName, u64>,
    /// What had failed when somebody who knew of it tried again: it counts as before, and is not held against what is left.
    #[serde(default, skip_serializing_if = "is_default")]
    pub forgiven: u64,
    /// How often a balancer's counters began anew: what it answered in between is not in here.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restarts: u32,
    /// The balancers that was so with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub holes: BTreeMap<HostName, Hole>,
    /// Balancers that could not be read when they last spoke, and for how long by then.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unread: BTreeMap<HostName, Duration>,
    /// Members that were no longer among those of a balancer when it last spoke, though they may have answered more: for how long.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gone: BTreeMap<HostName, BTreeMap<MemberKey, Duration>>,
    /// Looks at the counters.
    pub polls: u32,
    /// When both releases were first seen to answer in one look, and when last.
    pub mixed_from: Option<Moment>,
    pub mixed_until: Option<Moment>,
    /// The longest time in which no request at all was counted, in steps of a look; more than one.
    #[serde(default, with = "millis", skip_serializing_if = "Duration::is_zero")]
    pub quiet: Duration,
    /// Since when none was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quiet_since: Option<Moment>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub capacity: Capacity,
    /// What somebody saw who asked through the balancer all the time, where somebody was to.
    #[serde(default, skip_serializing_if = "is_default")]
    pub probes: Probes,
}

/// What was cut at one host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    pub requests: u64,
    /// How long the oldest had been open when it was last seen, where a balancer can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<Duration>,
}

impl Cut {
    pub fn add(&mut self, more: Self) {
        self.requests = self.requests.saturating_add(more.requests);
        self.oldest = self.oldest.max(more.oldest);
    }
}

/// What one balancer did not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    /// How often its counters began anew.
    pub times: u32,
    /// From the last reading before to the first one after, added up: at most for so long nobody counted.
    #[serde(with = "millis")]
    pub missing: Duration,
}

impl Hole {
    pub fn add(&mut self, more: Self) {
        self.times = self.times.saturating_add(more.times);
        self.missing = self.missing.saturating_add(more.missing);
    }
}

/// How many of a service's hosts served while a rollout went on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// As it was when that last changed.
    last: Option<Serving>,
    /// The fewest that served at once, of how many; None: nobody looked.
    pub least: Option<(u32, u32)>,
    /// For how long hosts did not serve, added up over hosts.
    #[serde(with = "millis")]
    pub missed: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Serving {
    since: Moment,
    serving: u32,
    hosts: u32,
}

impl Capacity {
    /// Sees how many of the hosts serve now. Nothing changes while they stay as many.
    pub fn see(&mut self, serving: u32, hosts: u32, now: Moment) {
        if self.last.is_some_and(|last| (last.serving, last.hosts) == (serving, hosts)) {
            return;
        }
        self.close(now);
        self.last = Some(Serving { since: now, serving, hosts });
        let missing = |(serving, hosts): (u32, u32)| hosts.saturating_sub(serving);
        if self.least.is_none_or(|least| missing((serving, hosts)) > missing(least)) {
            self.least = Some((serving, hosts));
        }
    }

    /// Counts up to now what was seen last.
    pub fn close(&mut self, now: Moment) {
        let Some(Serving { since, serving, hosts }) = self.last.take() else { return };
        self.missed = self.missed.saturating_add(now.since(since).saturating_mul(hosts.saturating_sub(serving)));
    }
}

impl Proof {
    pub fn take(&mut self, traffic: &Traffic, last: Option<Moment>, now: Moment) {
        let (old, new, other) = (traffic.sum(Whose::Old), traffic.sum(Whose::New), traffic.sum(Whose::Other));
        self.old += old;
        self.new += new;
        self.other += other;
        self.cut = self.cut.saturating_add(traffic.cut);
        for (host, cut) in &traffic.cuts {
            self.cuts.entry(host.clone()).or_default().add(*cut);
        }
        self.note_cut_failures(traffic);
        self.restarts = self.restarts.saturating_add(traffic.restarts);
        for (balancer, hole) in &traffic.holes {
            self.holes.entry(balancer.clone()).or_default().add(*hole);
        }
        for (balancer, since) in &traffic.unread {
            match since {
                Some(since) => self.unread.insert(balancer.clone(), now.since(*since)),
                None => self.unread.remove(balancer),
            };
            let gone = traffic.gone.get(balancer).into_iter().flatten();
            let gone = gone.map(|(member, since)| (member.clone(), now.since(*since))).collect::<BTreeMap<_, _>>();
            if !gone.is_empty() {
                self.gone.insert(balancer.clone(), gone);
            } else if since.is_none() {
                self.gone.remove(balancer);
            }
        }
        self.polls = self.polls.saturating_add(1);
        if old.requests > 0 && new.requests > 0 {
            self.mixed_from.get_or_insert(now);
            self.mixed_until = Some(now);
        }
        if old.requests + new.requests + other.requests > 0 {
            self.quiet_since = None;
        } else if let Some(last) = last {
            let quiet = now.since(*self.quiet_since.get_or_insert(last));
            // A look between two readings of the balancers' counters sees none, whatever was answered.
            if quiet >= WHOLE {
                self.quiet = self.quiet.max(quiet);
            }
        }
    }

    /// Every request; None when none was counted: then nothing is proven.
    #[must_use]
    pub fn all(&self) -> Option<Counts> {
        let mut all = self.old;
        all += self.new;
        all += self.other;
        (all.requests > 0).then_some(all)
    }

    /// What is cut often ends as an answer of the balancer's own, which counts it as a failure of that member: in this look, or in
    /// the next.
    fn note_cut_failures(&mut self, traffic: &Traffic) {
        let mut cuts = std::mem::take(&mut self.cut_last);
        for (host, cut) in &traffic.cuts {
            let before = cuts.entry(host.clone()).or_default();
            *before = before.saturating_add(cut.requests);
        }
        for (host, cut) in cuts {
            let there = traffic.slots.iter().filter(|((_, member), _)| member.host == host);
            let both = there.map(|(_, counts)| counts.errors).sum::<u64>().min(cut);
            self.cut_failed = self.cut_failed.saturating_add(both);
            if both < cut && traffic.cuts.contains_key(&host) {
                self.cut_last.insert(host, cut - both);
            }
        }
    }

    /// Every request that failed or was cut, each once.
    #[must_use]
    pub fn failed(&self) -> u64 {
        let counted = self.all().map_or(0, |all| all.errors);
        counted.saturating_add(self.cut.saturating_sub(self.cut_failed))
    }

    /// The same, or what somebody saw who asked all the time where that is more: what both saw is one failure. Before its first
    /// release a service answers nobody: `asked` is false.
    #[must_use]
    pub fn failed_or_seen(&self, asked: bool) -> u64 {
        self.failed().max(if asked { self.probes.failed } else { 0 })
    }

    /// Which balancers answered what nobody counted, and for how long; None: nobody knows of any.
    #[must_use]
    pub fn hole(&self) -> Option<String> {
        let holes = self.holes.iter().map(|(balancer, hole)| {
            let times = if hole.times == 1 { "once".to_owned() } else { format!("{} times", hole.times) };
            let missing = rounded(hole.missing);
            format!("the counters of {balancer} began anew {times}, and for up to {missing} nobody counted")
        });
        let unread = self.unread.iter().map(|(balancer, missing)| {
            format!("the counters of {balancer} could not be read at last, for {}", rounded(*missing))
        });
        let gone = self.gone.iter().filter_map(|(balancer, gone)| {
            let (member, longest) = gone.iter().max_by_key(|(_, missing)| **missing)?;
            let others = if gone.len() > 1 { format!(" and {} more", gone.len() - 1) } else { String::new() };
            let longest = rounded(*longest);
            Some(format!("{balancer} no longer says what {member}{others} answered, for {longest}"))
        });
        let mut all: Vec<String> = holes.chain(unread).chain(gone).collect();
        if all.is_empty() && self.restarts > 0 {
            all.push(format!("counters began anew {} times, and nobody counted meanwhile", self.restarts));
        }
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// Why it proves nothing, whatever was counted; None: it is whole.
    #[must_use]
    pub fn unproven(&self) -> Option<String> {
        let why = match self.all() {
            None => "no request was counted".to_owned(),
            Some(_) => self.hole()?,
        };
        Some(format!("{why}, so nothing is proven"))
    }

    /// How long both releases answered.
    #[must_use]
    pub fn mixed(&self) -> Option<Duration> {
        Some(self.mixed_until?.since(self.mixed_from?))
    }
}

/// In whole seconds, where there is one: nobody reads the rest of them.
fn rounded(missing: Duration) -> humantime::FormattedDuration {
    let up = |missing: Duration| Duration::from_secs(missing.as_secs() + u64::from(missing.subsec_nanos() > 0));
    humantime::format_duration(if missing < Duration::from_secs(1) { missing } else { up(missing) })
}
