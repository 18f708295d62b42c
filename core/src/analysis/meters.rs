//! From a balancer's counters to what happened since the last look, by release.
//!
//! Counters only ever grow while a balancer's process lives. One that restarted, or went back, begins anew: what it counted in
//! between is nobody's, and that is said. So it is of a member that is gone from among the others; one that comes back with its
//! counters soon enough goes on.

use super::bytes::Writer;
use super::counts::Counts;
use super::mark::Mark;
use super::proof::{Cut, Hole};
use super::readings::{Gone, Known, Panel, Reading, Readings};
use super::rows::Rows;
use crate::fleet::MemberKey;
use crate::fleet::latency::Latency;
use crate::fleet::report::PoolReport;
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
    /// Members that these no longer spoke of though they may have answered more: since when.
    pub gone: BTreeMap<HostName, BTreeMap<MemberKey, Moment>>,
}

/// For so long a member that is gone may come back, and goes on from where it was.
pub const COMES_BACK: Duration = Duration::from_secs(600);
/// So many of one balancer are waited for.
const GONE_MOST: usize = 1000;

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
            gone: BTreeMap::new(),
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
        let before = self.balancers.get(balancer).map(|before| &*before.0);
        let unread = report.problem.as_ref().map(|_| before.map_or(at, |before| before.at));
        let pending = &mut **self.pending.get_or_insert_default();
        pending.unread.insert(balancer.clone(), unread);
        if unread.is_some() {
            return;
        }
        let process = Mark::of(&report.balancer);
        let anew = before.is_none_or(|before| before.process != process);
        let mut restarts = u32::from(anew && before.is_some());
        let same = before.filter(|_| !anew);
        let mut gone = same.and_then(|before| before.gone.as_deref().cloned()).unwrap_or_default();
        let mut known = Known::of(same);
        let mut came = [const { Came::new() }; 3];
        let room = same.map_or(0, |before| before.numbers.len()) + ROOM;
        let (mut found, mut there, mut numbers) = (0, Vec::new(), Writer::for_about(room));
        for (key, member) in &report.members {
            let last = known.next(key);
            let back = gone.get(key).filter(|_| last.is_none());
            let before = last.as_ref().or(back.map(|back| &back.last));
            if before.is_some_and(|before| before.is_missing_in(member)) {
                known.lost.extend(last.map(|last| (key.clone(), last)));
                continue;
            }
            let whose = match (before, member.running) {
                (Some(before), MemberState::Out) => before.whose,
                (before, _) => whose(key).or(before.map(|before| before.whose)).unwrap_or(Whose::Other),
            };
            let now = Reading::of(member, whose);
            if let Some(last) = &last {
                found += 1;
                restarts += u32::from(!pending.add(&mut came[whose as usize], key, last, &now));
            } else if let Some(back) = back {
                if !pending.goes_on(&mut came[whose as usize], key, back, &now) {
                    pending.begins_anew(balancer, Hole { times: 1, missing: at.since(back.at) });
                }
                gone.remove(key);
            }
            there.push(key);
            now.write(&mut numbers);
        }
        pending.take_in(came);
        if let Some(before) = before.filter(|_| restarts > 0) {
            pending.begins_anew(balancer, Hole { times: restarts, missing: at.since(before.at) });
        }
        for (key, last) in same.map_or_else(Vec::new, |before| known.end_at(before.at)) {
            gone.insert(key, last);
        }
        pending.wait_for(balancer, &mut gone, at);
        let gone = (!gone.is_empty()).then(|| Box::new(gone));
        let members = match same.filter(|before| [before.members.len(), there.len()] == [found; 2]) {
            Some(before) => Arc::clone(&before.members),
            None => there.into_iter().cloned().collect(),
        };
        self.balancers
            .entry(balancer.clone())
            .renew(Readings { process, at, members, numbers: Box::default(), gone }, numbers);
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
        self.balancers.values_mut().for_each(|panel| *panel = std::mem::take(panel).relabelled());
    }
}

impl Traffic {
    fn begins_anew(&mut self, balancer: &HostName, hole: Hole) {
        self.restarts = self.restarts.saturating_add(hole.times);
        self.holes.entry(balancer.clone()).or_default().add(hole);
    }

    /// Whether nothing was missed of a member that was gone and is there again.
    fn goes_on(&mut self, came: &mut Came, key: &MemberKey, back: &Gone, now: &Reading) -> bool {
        if back.earlier {
            // Nobody knows what of it is this rollout's.
            return back.last.quiet || (back.last.requests, back.last.errors) == (now.requests, now.errors);
        }
        self.add(came, key, &back.last, now) || back.last.quiet
    }

    /// Says which members are gone, and gives up those that were for too long, or are too many.
    fn wait_for(&mut self, balancer: &HostName, gone: &mut Rows<MemberKey, Gone>, now: Moment) {
        let all = gone.as_slice().len();
        let mut hole = Hole::default();
        gone.retain(|_, gone| {
            let missing = now.since(gone.at);
            let waits = all <= GONE_MOST && missing <= COMES_BACK;
            if !waits && gone.may_have_counted() {
                hole = Hole { times: 1, missing: hole.missing.max(missing) };
            }
            waits
        });
        if hole.times > 0 {
            self.begins_anew(balancer, hole);
        }
        let missed = gone.iter().filter(|(_, gone)| gone.may_have_counted());
        let missed: BTreeMap<_, _> = missed.map(|(key, gone)| (key.clone(), gone.at)).collect();
        if missed.is_empty() {
            self.gone.remove(balancer);
        } else {
            self.gone.insert(balancer.clone(), missed);
        }
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
