//! From a balancer's counters to what happened since the last look, by release.
//!
//! Counters only ever grow while a balancer's process lives. One that restarted, went back, or forgot a member begins anew:
//! what it counted in between is nobody's, and that is said.

use super::counts::Counts;
use super::packed::Packed;
use super::proof::{Cut, Hole};
use super::rows::Rows;
use crate::fleet::MemberKey;
use crate::fleet::latency::Latency;
use crate::fleet::report::{MemberReport, PoolReport};
use crate::fleet::spec::MemberState;
use crate::name::HostName;
use crate::time::Moment;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Which release of a rollout answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    Old,
    New,
    /// Neither: left over from an earlier rollout.
    Other,
}

/// The last reading of every counter, and what was counted since the last [`Meters::take`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meters {
    balancers: BTreeMap<HostName, Panel>,
    #[serde(skip)]
    pending: Traffic,
}

/// One balancer's counters of one pool, as they were read: whoever keeps them shares them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Readings")]
struct Panel(Arc<Readings>);

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Readings {
    process: String,
    /// When.
    #[serde(default)]
    at: Moment,
    members: Rows<MemberKey, Reading>,
}

impl From<Readings> for Panel {
    fn from(readings: Readings) -> Self {
        Self(Arc::new(readings))
    }
}

impl Serialize for Panel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Row")]
struct Reading {
    requests: u64,
    errors: u64,
    cut: u64,
    whose: Whose,
    latency: Option<Packed>,
    /// Of the requests in flight.
    oldest: Option<Duration>,
}

/// There is one of each member of each service: its numbers are stored in their order, without their names.
type Row = (u64, u64, u64, Whose, Option<Packed>, Option<Duration>);

/// As it is written now, and as it once was.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Row(Row),
    Named {
        requests: u64,
        errors: u64,
        cut: u64,
        whose: Whose,
        #[serde(default)]
        latency: Option<Packed>,
        #[serde(default)]
        oldest: Option<Duration>,
    },
}

impl From<Stored> for Reading {
    fn from(stored: Stored) -> Self {
        let (Stored::Row((requests, errors, cut, whose, latency, oldest))
        | Stored::Named { requests, errors, cut, whose, latency, oldest }) = stored;
        Self { requests, errors, cut, whose, latency, oldest }
    }
}

impl From<Reading> for Row {
    fn from(it: Reading) -> Self {
        (it.requests, it.errors, it.cut, it.whose, it.latency, it.oldest)
    }
}

/// What was counted between two looks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    /// A slot each: a member and a look.
    pub slots: BTreeMap<(Whose, MemberKey), Counts>,
    /// How long the answers took, where the balancer counts that.
    pub latencies: BTreeMap<(Whose, MemberKey), Latency>,
    /// Requests cut at a drain's deadline.
    pub cut: u64,
    /// Of whom.
    pub cuts: BTreeMap<HostName, Cut>,
    /// How often a balancer's counters began anew.
    pub restarts: u32,
    /// Of which, and how long they had not been read for then.
    pub holes: BTreeMap<HostName, Hole>,
    /// The balancers that spoke: since when one cannot be read, or None where it could be.
    pub unread: BTreeMap<HostName, Option<Moment>>,
}

/// What one reading has brought of one side, by member.
struct Came {
    slots: Vec<((Whose, MemberKey), Counts)>,
    latencies: Vec<((Whose, MemberKey), Latency)>,
}

impl Came {
    const fn new() -> Self {
        Self { slots: Vec::new(), latencies: Vec::new() }
    }
}

impl Traffic {
    #[must_use]
    pub fn of(&self, whose: Whose) -> Vec<Counts> {
        self.slots.iter().filter(|((of, _), _)| *of == whose).map(|(_, counts)| *counts).collect()
    }

    #[must_use]
    pub fn sum(&self, whose: Whose) -> Counts {
        let mut sum = Counts::default();
        self.slots.iter().filter(|((of, _), _)| *of == whose).for_each(|(_, counts)| sum += *counts);
        sum
    }
}

impl Meters {
    /// Reads one pool of one balancer, as it was at a moment. `whose` says whose release a member is now, where that is known.
    ///
    /// What a member answered while it was out was on its way before: it belongs to whoever was there then.
    pub fn read(
        &mut self,
        balancer: &HostName,
        report: &PoolReport,
        at: Moment,
        whose: impl Fn(&MemberKey) -> Option<Whose>,
    ) {
        let before = self.balancers.get(balancer).cloned();
        let unread = report.problem.as_ref().map(|_| before.as_ref().map_or(at, |before| before.0.at));
        self.pending.unread.insert(balancer.clone(), unread);
        if unread.is_some() {
            return;
        }
        let anew = before.as_ref().is_none_or(|before| before.0.process != report.balancer);
        let mut restarts = u32::from(anew && before.is_some());
        // Both are in the same order: who is no longer there is passed over, and forgotten.
        let mut known = before.iter().filter(|_| !anew).flat_map(|before| before.0.members.iter()).peekable();
        let mut came = [const { Came::new() }; 3];
        let (pending, mut members) = (&mut self.pending, Vec::with_capacity(report.members.len()));
        for (key, member) in &report.members {
            while known.next_if(|(other, _)| *other < key).is_some() {}
            let last = known.next_if(|(other, _)| *other == key).map(|(_, last)| last);
            let whose = match (last, member.running) {
                (Some(last), MemberState::Out) => last.whose,
                (last, _) => whose(key).or(last.map(|last| last.whose)).unwrap_or(Whose::Other),
            };
            let now = Reading::of(member, whose);
            if let Some(last) = last {
                let came = &mut came[whose as usize];
                restarts += u32::from(!pending.add(came, key, last, &now, member.latency.as_ref()));
            }
            members.push((key.clone(), now));
        }
        pending.take_in(came);
        if let Some(before) = before.as_ref().filter(|_| restarts > 0) {
            pending.begins_anew(balancer, Hole { times: restarts, missing: at.since(before.0.at) });
        }
        let readings = Readings { process: report.balancer.clone(), at, members: members.into_iter().collect() };
        self.balancers.insert(balancer.clone(), readings.into());
    }

    /// What was counted since the last time.
    #[must_use]
    pub const fn pending(&self) -> &Traffic {
        &self.pending
    }

    /// The readings alone: what was counted up to them was looked at.
    #[must_use]
    pub fn settled(&self) -> Self {
        Self { balancers: self.balancers.clone(), pending: Traffic::default() }
    }

    /// What was counted since the last time, and begins to count anew.
    pub fn take(&mut self) -> Traffic {
        std::mem::take(&mut self.pending)
    }

    /// Whether anything was ever read of every one of these balancers.
    #[must_use]
    pub fn knows<'a>(&self, mut balancers: impl Iterator<Item = &'a HostName>) -> bool {
        balancers.all(|balancer| self.balancers.contains_key(balancer))
    }

    /// From now on what is there is the old release: a rollout begins, or ended.
    pub fn relabel(&mut self) {
        for reading in self.balancers.values_mut().flat_map(|panel| Arc::make_mut(&mut panel.0).members.values_mut()) {
            reading.whose = Whose::Old;
        }
    }
}

impl Reading {
    fn of(member: &MemberReport, whose: Whose) -> Self {
        let latency = member.latency.as_ref().map(Packed::from);
        let oldest = member.oldest;
        Self { requests: member.requests, errors: member.errors, cut: member.cut, whose, latency, oldest }
    }
}

impl Traffic {
    fn begins_anew(&mut self, balancer: &HostName, hole: Hole) {
        self.restarts = self.restarts.saturating_add(hole.times);
        self.holes.entry(balancer.clone()).or_default().add(hole);
    }

    /// Whether a member's counters went on from the last reading.
    fn add(&mut self, came: &mut Came, key: &MemberKey, last: &Reading, now: &Reading, latency: Option<&Latency>) -> bool {
        let cut = now.cut.checked_sub(last.cut).unwrap_or(now.cut);
        self.cut = self.cut.saturating_add(cut);
        if cut > 0 {
            // As old as they were when they were last seen.
            self.cuts.entry(key.host.clone()).or_default().add(Cut { requests: cut, oldest: last.oldest });
        }
        let counted = now.requests.checked_sub(last.requests).zip(now.errors.checked_sub(last.errors));
        let Some((requests, errors)) = counted else { return false };
        if requests > 0 || errors > 0 {
            came.slots.push(((now.whose, key.clone()), Counts::new(requests, errors)));
        }
        let took = latency.zip(last.latency.as_ref()).and_then(|(now, last)| now.since(&last.latency()));
        if let Some(took) = took.filter(|took| took.total() > 0) {
            came.latencies.push(((now.whose, key.clone()), took));
        }
        true
    }

    /// Takes in what one reading has brought, of each side in the members' order: where it is the first since the last look, as
    /// it mostly is, nothing has to be looked for.
    fn take_in(&mut self, came: [Came; 3]) {
        let (mut slots, mut latencies) = (Vec::new(), Vec::new());
        for came in came {
            slots.extend(came.slots);
            latencies.extend(came.latencies);
        }
        if self.slots.is_empty() {
            self.slots = slots.into_iter().collect();
        } else {
            slots.into_iter().for_each(|(key, counts)| *self.slots.entry(key).or_default() += counts);
        }
        if self.latencies.is_empty() {
            self.latencies = latencies.into_iter().collect();
        } else {
            latencies.into_iter().for_each(|(key, took)| *self.latencies.entry(key).or_default() += &took);
        }
    }
}
