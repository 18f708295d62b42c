//! From a balancer's counters to what happened since the last look, by release.
//!
//! Counters only ever grow while a balancer's process lives. One that restarted, went back, or forgot a member begins anew:
//! what it counted in between is nobody's, and that is said.

use super::bytes::{Reader, Writer};
use super::counts::Counts;
use super::mark::Mark;
use super::packed::Packed;
use super::proof::{Cut, Hole};
use super::rows::Rows;
use crate::fleet::MemberKey;
use crate::fleet::latency::Latency;
use crate::fleet::report::{MemberReport, PoolReport};
use crate::fleet::spec::MemberState;
use crate::name::HostName;
use crate::time::Moment;
use serde::{Deserialize, Serialize};
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
    balancers: Rows<HostName, Panel>,
    /// None: nothing was.
    #[serde(skip)]
    pending: Option<Box<Traffic>>,
}

static NOTHING: Traffic = Traffic::none();

/// One balancer's counters of one pool, as they were read: whoever keeps them shares them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Unpacked", into = "Unpacked")]
struct Panel(Arc<Readings>);

/// What is held of them, mostly of services at rest: numbers, and beside them whose they are.
#[derive(Debug, Default, PartialEq, Eq)]
struct Readings {
    process: Mark,
    /// When.
    at: Moment,
    /// The same from one reading to the next, while nobody comes or goes.
    members: Arc<[MemberKey]>,
    /// In the members' order.
    numbers: Box<[u8]>,
}

/// What is stored.
#[derive(Serialize, Deserialize)]
struct Unpacked {
    process: Mark,
    #[serde(default)]
    at: Moment,
    members: Rows<MemberKey, Reading>,
}

impl From<Unpacked> for Panel {
    fn from(Unpacked { process, at, members }: Unpacked) -> Self {
        let mut numbers = Writer::default();
        members.values().for_each(|reading| reading.write(&mut numbers));
        let (members, numbers) = (members.keys().cloned().collect(), numbers.done());
        Self(Arc::new(Readings { process, at, members, numbers }))
    }
}

impl From<Panel> for Unpacked {
    fn from(panel: Panel) -> Self {
        let Readings { process, at, members, numbers } = &*panel.0;
        let mut numbers = Reader::of(numbers);
        let members = members.iter().map(|key| (key.clone(), Reading::read(&mut numbers))).collect();
        Self { process: *process, at: *at, members }
    }
}

/// The readings of before, in the order of the members.
struct Known<'a> {
    members: &'a [MemberKey],
    numbers: Reader<'a>,
}

impl Known<'_> {
    /// What was read of a member. Who comes before it is passed over: it is no longer there.
    fn next(&mut self, key: &MemberKey) -> Option<Reading> {
        while let Some((first, rest)) = self.members.split_first().filter(|(first, _)| *first <= key) {
            self.members = rest;
            let reading = Reading::read(&mut self.numbers);
            if first == key {
                return Some(reading);
            }
        }
        None
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Row")]
struct Reading {
    requests: u64,
    errors: u64,
    cut: u64,
    whose: Whose,
    latency: Option<Latency>,
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
        Self { requests, errors, cut, whose, latency: latency.as_ref().map(Packed::latency), oldest }
    }
}

impl From<Reading> for Row {
    fn from(it: Reading) -> Self {
        (it.requests, it.errors, it.cut, it.whose, it.latency.as_ref().map(Packed::from), it.oldest)
    }
}

/// What was counted between two looks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    /// A slot each: a member and a look.
    pub slots: Rows<(Whose, MemberKey), Counts>,
    /// How long the answers took, where the balancer counts that.
    pub latencies: Rows<(Whose, MemberKey), Latency>,
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

/// Bytes that are there before they are needed: counters grow.
const ROOM: usize = 8;

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
    const fn none() -> Self {
        Self {
            slots: Rows::none(),
            latencies: Rows::none(),
            cut: 0,
            cuts: BTreeMap::new(),
            restarts: 0,
            holes: BTreeMap::new(),
            unread: BTreeMap::new(),
        }
    }

    #[must_use]
    pub fn of(&self, whose: Whose) -> Vec<Counts> {
        of(&self.slots, whose).iter().map(|(_, counts)| *counts).collect()
    }

    #[must_use]
    pub fn sum(&self, whose: Whose) -> Counts {
        let mut sum = Counts::default();
        of(&self.slots, whose).iter().for_each(|(_, counts)| sum += *counts);
        sum
    }

    /// How long each member's answers took.
    #[must_use]
    pub fn took(&self, whose: Whose) -> &[((Whose, MemberKey), Latency)] {
        of(&self.latencies, whose)
    }
}

/// They are in the order of whose they are, and then in that of the members.
fn of<V>(rows: &Rows<(Whose, MemberKey), V>, whose: Whose) -> &[((Whose, MemberKey), V)] {
    let rows = rows.as_slice();
    let from = rows.partition_point(|((of, _), _)| *of < whose);
    let rows = rows.get(from..).unwrap_or_default();
    rows.get(..rows.partition_point(|((of, _), _)| *of == whose)).unwrap_or_default()
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
        let before = self.balancers.get(balancer).map(|before| Arc::clone(&before.0));
        let unread = report.problem.as_ref().map(|_| before.as_ref().map_or(at, |before| before.at));
        let pending = &mut **self.pending.get_or_insert_default();
        pending.unread.insert(balancer.clone(), unread);
        if unread.is_some() {
            return;
        }
        let process = Mark::of(&report.balancer);
        let anew = before.as_ref().is_none_or(|before| before.process != process);
        let mut restarts = u32::from(anew && before.is_some());
        let same = before.as_deref().filter(|_| !anew);
        let (members, numbers) = same.map_or((&[][..], &[][..]), |before| (&*before.members, &*before.numbers));
        let mut known = Known { members, numbers: Reader::of(numbers) };
        let mut came = [const { Came::new() }; 3];
        let (mut found, mut numbers) = (0, Writer::for_about(numbers.len() + ROOM));
        for (key, member) in &report.members {
            let last = known.next(key);
            let whose = match (&last, member.running) {
                (Some(last), MemberState::Out) => last.whose,
                (last, _) => whose(key).or(last.as_ref().map(|last| last.whose)).unwrap_or(Whose::Other),
            };
            let now = Reading::of(member, whose);
            if let Some(last) = last {
                found += 1;
                restarts += u32::from(!pending.add(&mut came[whose as usize], key, &last, &now));
            }
            now.write(&mut numbers);
        }
        pending.take_in(came);
        if let Some(before) = before.as_ref().filter(|_| restarts > 0) {
            pending.begins_anew(balancer, Hole { times: restarts, missing: at.since(before.at) });
        }
        let all = |before: &&Readings| before.members.len() == found && report.members.len() == found;
        let members = match same.filter(all) {
            Some(before) => Arc::clone(&before.members),
            None => report.members.keys().cloned().collect(),
        };
        let readings = Readings { process, at, members, numbers: numbers.done() };
        self.balancers.insert(balancer.clone(), Panel(Arc::new(readings)));
    }

    /// What was counted since the last time.
    #[must_use]
    pub fn pending(&self) -> &Traffic {
        self.pending.as_deref().unwrap_or(&NOTHING)
    }

    /// The readings alone: what was counted up to them was looked at.
    #[must_use]
    pub fn settled(&self) -> Self {
        Self { balancers: self.balancers.clone(), pending: None }
    }

    /// What was counted since the last time, and begins to count anew.
    pub fn take(&mut self) -> Traffic {
        self.pending.take().map_or_else(Traffic::default, |pending| *pending)
    }

    /// Whether anything was ever read of every one of these balancers.
    #[must_use]
    pub fn knows<'a>(&self, mut balancers: impl Iterator<Item = &'a HostName>) -> bool {
        balancers.all(|balancer| self.balancers.get(balancer).is_some())
    }

    /// From now on what is there is the old release: a rollout begins, or ended.
    pub fn relabel(&mut self) {
        for panel in self.balancers.values_mut() {
            let mut unpacked = Unpacked::from(panel.clone());
            unpacked.members.values_mut().for_each(|reading| reading.whose = Whose::Old);
            *panel = unpacked.into();
        }
    }
}

/// What is in the first number of a reading beside whose it is.
const LATENCY: u64 = 4;
const OLDEST: u64 = 8;

impl Reading {
    fn of(member: &MemberReport, whose: Whose) -> Self {
        let MemberReport { requests, errors, cut, ref latency, oldest, .. } = *member;
        Self { requests, errors, cut, whose, latency: latency.clone(), oldest }
    }

    fn write(&self, numbers: &mut Writer) {
        let has = |is: bool, what: u64| if is { what } else { 0 };
        numbers.number(self.whose as u64 | has(self.latency.is_some(), LATENCY) | has(self.oldest.is_some(), OLDEST));
        [self.requests, self.errors, self.cut].into_iter().for_each(|number| numbers.number(number));
        self.latency.iter().for_each(|latency| numbers.latency(latency));
        if let Some(oldest) = self.oldest {
            numbers.number(oldest.as_secs());
            numbers.number(oldest.subsec_nanos().into());
        }
    }

    fn read(numbers: &mut Reader<'_>) -> Self {
        let what = numbers.number();
        let whose = match what % LATENCY {
            0 => Whose::Old,
            1 => Whose::New,
            _ => Whose::Other,
        };
        let [requests, errors, cut] = [(); 3].map(|()| numbers.number());
        let latency = (what & LATENCY > 0).then(|| numbers.latency());
        let oldest = (what & OLDEST > 0).then(|| Duration::from_secs(numbers.number()));
        let oldest = oldest.map(|secs| secs.saturating_add(Duration::from_nanos(numbers.number())));
        Self { requests, errors, cut, whose, latency, oldest }
    }
}

impl Traffic {
    fn begins_anew(&mut self, balancer: &HostName, hole: Hole) {
        self.restarts = self.restarts.saturating_add(hole.times);
        self.holes.entry(balancer.clone()).or_default().add(hole);
    }

    /// Whether a member's counters went on from the last reading.
    fn add(&mut self, came: &mut Came, key: &MemberKey, last: &Reading, now: &Reading) -> bool {
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
        let took = now.latency.as_ref().zip(last.latency.as_ref()).and_then(|(now, last)| now.since(last));
        if let Some(took) = took.filter(|took| took.total() > 0) {
            came.latencies.push(((now.whose, key.clone()), took));
        }
        true
    }

    /// Takes in what one reading has brought, of each side in the members' order.
    fn take_in(&mut self, came: [Came; 3]) {
        let [mut all, new, other] = came;
        for came in [new, other] {
            all.slots.extend(came.slots);
            all.latencies.extend(came.latencies);
        }
        self.slots.merge(all.slots.into_iter().collect(), |counts, more| *counts += more);
        self.latencies.merge(all.latencies.into_iter().collect(), |took, more| *took += &more);
    }
}
