//! The members of a pool, who is next, and what each has in flight.

use super::Balance;
use super::check::Health;
use super::control::{Divided, Told, Wish};
use super::division::{Division, Sending};
use super::upstream::Idle;
use baton_core::fleet::latency::{BUCKETS, Latency, bucket};
use baton_core::fleet::spec::MemberState;
use baton_core::fleet::split::{Asking, Side, TrafficSplit};
use baton_core::release::Probe;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// One pool. Everything that decides where a request goes is behind one lock, so that once a member was set out, no request
/// can be on its way to it that its gauge does not count.
#[derive(Debug, Default)]
pub(super) struct Pool {
    balance: Balance,
    /// Checks that a member fails in a row before it gets no new requests; None: it is not checked.
    fall: Option<NonZeroU32>,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    members: BTreeMap<SocketAddr, Slot>,
    /// None: all members are one side.
    division: Option<Division>,
    checks: BTreeMap<SocketAddr, Probe>,
}

#[derive(Debug)]
struct Slot {
    member: Arc<Member>,
    wish: Wish,
    out_since: Option<Instant>,
    /// Of the smooth weighted round robin: who waited longest for its share is next.
    credit: i64,
    health: Health,
}

/// One member's gauges and its idle connections.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) address: SocketAddr,
    in_flight: AtomicU64,
    /// Those in flight, by when they came.
    open: Mutex<Open>,
    requests: AtomicU64,
    errors: AtomicU64,
    cut: AtomicU64,
    /// By bucket of how long the answer's head took.
    latency: [AtomicU64; BUCKETS],
    /// Counts cuts: whoever has a request here watches it.
    cuts: watch::Sender<u64>,
    pub(super) idle: Mutex<Vec<Idle>>,
}

/// Requests in flight by a number that grows, so that the first is the oldest.
#[derive(Debug, Default)]
struct Open {
    last: u64,
    since: BTreeMap<u64, Instant>,
}

/// A request's place at a member: counted until it is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) member: Arc<Member>,
    number: u64,
    cuts: watch::Receiver<u64>,
}

impl Pool {
    pub(super) fn new(balance: Balance, fall: Option<NonZeroU32>) -> Self {
        Self { balance, fall, inside: Mutex::default() }
    }

    /// Says where a request belongs; nowhere in particular as long as all members are one side.
    pub(super) fn send(&self, request: &impl Asking) -> Option<Sending> {
        lock(&self.inside).division.as_mut().map(|division| division.send(request))
    }

    /// The next member that is in and was not tried, with the request already counted there. Of the other side only when
    /// its own has none: a request is worth more than its share.
    pub(super) fn lease(&self, tried: &[SocketAddr], sending: Option<Sending>) -> Option<Lease> {
        let Inside { members, division, .. } = &mut *lock(&self.inside);
        let is_any_up = is_any_up(members, self.fall);
        let may = |slot: &Slot| {
            slot.wish.state == MemberState::Ready
                && !(is_any_up && slot.health.is_down(self.fall))
                && !tried.contains(&slot.member.address)
        };
        let side = sending.map(|sending| sending.side);
        let side = side.filter(|side| members.values().any(|slot| may(slot) && slot.wish.side == *side));
        let may = |slot: &Slot| may(slot) && side.is_none_or(|side| side == slot.wish.side);
        let least = match self.balance {
            Balance::RoundRobin => None,
            Balance::LeastRequest => members.values().filter(|slot| may(slot)).map(Slot::load).min(),
        };
        let mut candidates = 0;
        let mut best: Option<&mut Slot> = None;
        for slot in members.values_mut() {
            if !may(slot) || least.is_some_and(|least| slot.load() > least) {
                continue;
            }
            candidates += i64::from(slot.wish.weight);
            slot.credit += i64::from(slot.wish.weight);
            if best.as_ref().is_none_or(|best| slot.credit > best.credit) {
                best = Some(slot);
            }
        }
        let best = best?;
        best.credit -= candidates;
        if let (Some(division), Some(sending), true) = (division, sending, tried.is_empty()) {
            division.count(sending, best.wish.side);
        }
        best.member.in_flight.fetch_add(1, Ordering::Relaxed);
        let number = best.member.begin();
        Some(Lease { member: Arc::clone(&best.member), number, cuts: best.member.cuts.subscribe() })
    }

    /// Whether the member is in: its connections are worth keeping.
    pub(super) fn is_in(&self, address: SocketAddr) -> bool {
        lock(&self.inside).members.get(&address).is_some_and(|slot| slot.wish.state == MemberState::Ready)
    }

    /// Replaces the members. Those that stay keep their gauges; who goes out loses its idle connections.
    pub(super) fn set(&self, wishes: &BTreeMap<SocketAddr, Wish>) {
        let members = &mut lock(&self.inside).members;
        members.retain(|address, _| wishes.contains_key(address));
        for (address, wish) in wishes {
            let slot = members.entry(*address).or_insert_with(|| Slot::new(*address));
            if wish.state == MemberState::Ready && slot.wish.state != MemberState::Ready {
                // Somebody else may live there now, and whoever put it in has asked.
                slot.health = Health::default();
            }
            let goes_out = wish.state == MemberState::Out && slot.wish.state != MemberState::Out;
            slot.wish = *wish;
            match wish.state {
                MemberState::Out if goes_out => {
                    slot.out_since = Some(Instant::now());
                    slot.member.cut.store(0, Ordering::Relaxed);
                }
                MemberState::Out => {}
                MemberState::Ready | MemberState::Drain => slot.out_since = None,
            }
            if wish.state != MemberState::Ready {
                lock(&slot.member.idle).clear();
            }
        }
    }

    /// Ends everything in flight at a member, and counts it.
    pub(super) fn cut(&self, address: SocketAddr) {
        if let Some(slot) = lock(&self.inside).members.get(&address) {
            slot.member.cut.fetch_add(slot.member.in_flight.load(Ordering::Relaxed), Ordering::Relaxed);
            slot.member.cuts.send_modify(|cuts| *cuts += 1);
        }
    }

    pub(super) fn look(&self) -> BTreeMap<SocketAddr, Told> {
        let members = &lock(&self.inside).members;
        let is_any_up = is_any_up(members, self.fall);
        members.iter().map(|(address, slot)| (*address, slot.look(self.fall, is_any_up))).collect()
    }

    /// Replaces what its members are asked.
    pub(super) fn check(&self, checks: BTreeMap<SocketAddr, Probe>) {
        lock(&self.inside).checks = checks;
    }

    pub(super) fn checks(&self) -> Option<BTreeMap<SocketAddr, Probe>> {
        self.fall.map(|_| lock(&self.inside).checks.clone())
    }

    /// Who is to be asked now: those that are in.
    pub(super) fn to_check(&self) -> Vec<(SocketAddr, Probe)> {
        let Inside { members, checks, .. } = &*lock(&self.inside);
        let is_in = |address| members.get(address).is_some_and(|slot| slot.wish.state == MemberState::Ready);
        let checks = checks.iter().filter(|(address, _)| self.fall.is_some() && is_in(*address));
        checks.map(|(address, probe)| (*address, probe.clone())).collect()
    }

    /// Takes a member's answer down.
    pub(super) fn hear(&self, address: SocketAddr, answer: Result<(), String>) {
        if let Some(slot) = lock(&self.inside).members.get_mut(&address) {
            slot.health.hear(answer);
        }
    }

    /// Replaces how requests are divided. What is so already goes on counting.
    pub(super) fn divide(&self, split: Option<&TrafficSplit>) {
        let division = &mut lock(&self.inside).division;
        if division.as_ref().map(Division::split) != split {
            *division = split.cloned().map(Division::new);
        }
    }

    pub(super) fn divided(&self) -> Option<Divided> {
        lock(&self.inside).division.as_ref().map(Division::look)
    }
}

impl Slot {
    fn new(address: SocketAddr) -> Self {
        let member = Member {
            address,
            in_flight: AtomicU64::new(0),
            open: Mutex::default(),
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            latency: std::array::from_fn(|_| AtomicU64::new(0)),
            cuts: watch::Sender::new(0),
            idle: Mutex::new(Vec::new()),
        };
        let wish = Wish { state: MemberState::Out, weight: 1, side: Side::Stable };
        Self { member: Arc::new(member), wish, out_since: Some(Instant::now()), credit: 0, health: Health::default() }
    }

    /// Requests in flight for its weight, in steps fine enough for any two weights.
    fn load(&self) -> u128 {
        let scale = u128::from(u32::MAX);
        u128::from(self.member.in_flight.load(Ordering::Relaxed)) * scale / u128::from(self.wish.weight.max(1))
    }

    fn look(&self, fall: Option<NonZeroU32>, is_any_up: bool) -> Told {
        let down = self.health.down(fall).filter(|_| self.wish.state == MemberState::Ready);
        let out_for = self.out_since.map(|since| since.elapsed().as_millis()).unwrap_or_default();
        Told {
            wish: self.wish,
            in_flight: self.member.in_flight.load(Ordering::Relaxed),
            oldest_ms: self.member.oldest().map(|oldest| u64::try_from(oldest.as_millis()).unwrap_or(u64::MAX)),
            out_for_ms: u64::try_from(out_for).unwrap_or(u64::MAX),
            cut: self.member.cut.load(Ordering::Relaxed),
            requests: self.member.requests.load(Ordering::Relaxed),
            errors: self.member.errors.load(Ordering::Relaxed),
            latency: Some(Latency::new(std::array::from_fn(|index| self.member.latency(index)))),
            is_kept_out: is_any_up && down.is_some(),
            down,
        }
    }
}

/// Whether a member that is in does not fail its checks; where there is none, all that are in are served.
fn is_any_up(members: &BTreeMap<SocketAddr, Slot>, fall: Option<NonZeroU32>) -> bool {
    members.values().any(|slot| slot.wish.state == MemberState::Ready && !slot.health.is_down(fall))
}

impl Member {
    fn begin(&self) -> u64 {
        let open = &mut *lock(&self.open);
        open.last += 1;
        open.since.insert(open.last, Instant::now());
        open.last
    }

    fn oldest(&self) -> Option<Duration> {
        lock(&self.open).since.values().next().map(Instant::elapsed)
    }

    fn latency(&self, bucket: usize) -> u64 {
        self.latency.get(bucket).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

impl Lease {
    /// Counts how long the member took to begin its answer.
    pub(super) fn count_latency(&self, took: Duration) {
        if let Some(count) = self.member.latency.get(bucket(took)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn count_request(&self) {
        self.member.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_error(&self) {
        self.member.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Resolves when the member's requests are cut.
    pub(super) fn cut(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut cuts = self.cuts.clone();
        async move {
            // A member that is gone from its pool is not cut any more.
            if cuts.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        lock(&self.member.open).since.remove(&self.number);
        self.member.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes a lock; what it guards is whole between any two statements, so a panic elsewhere does not spoil it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::division::Head;
    use super::*;
    use baton_core::fleet::split::Share;

    fn pool(weights: &[u16]) -> Pool {
        let pool = Pool::default();
        let wishes = (1u8..).zip(weights).map(|(slot, weight)| {
            (
                SocketAddr::from(([127, 0, 0, slot], 80)),
                Wish { state: MemberState::Ready, weight: *weight, side: Side::Stable },
            )
        });
        pool.set(&wishes.collect());
        pool
    }

    #[test]
    fn weights_are_exact_shares() {
        let pool = pool(&[1, 4, 15]);
        let mut shares: BTreeMap<SocketAddr, u32> = BTreeMap::new();
        for _ in 0..200 {
            *shares.entry(pool.lease(&[], None).unwrap().member.address).or_default() += 1;
        }
        assert_eq!(shares.into_values().collect::<Vec<_>>(), [10, 40, 150]);
    }

    #[test]
    fn the_least_busy_for_its_weight_is_next_and_those_alike_take_turns() {
        let pool = Pool { balance: Balance::LeastRequest, ..pool(&[1, 1, 2]) };
        let held: Vec<Lease> = (0..400).map(|_| pool.lease(&[], None).unwrap()).collect();
        let in_flight = |pool: &Pool| pool.look().into_values().map(|told| told.in_flight).collect::<Vec<_>>();
        assert_eq!(in_flight(&pool), [100, 100, 200]);
        let slow = SocketAddr::from(([127, 0, 0, 1], 80));
        let _slow: Vec<Lease> = held.into_iter().filter(|lease| lease.member.address == slow).collect();
        assert!((0..300).all(|_| pool.lease(&[], None).unwrap().member.address != slow));
        assert_eq!(in_flight(&pool), [100, 0, 0]);
    }

    #[test]
    fn who_fails_its_checks_gets_nothing_until_it_answers_unless_all_do() {
        let pool = Pool { fall: NonZeroU32::new(2), ..pool(&[1, 1]) };
        let [first, second] = [1, 2].map(|host| SocketAddr::from(([127, 0, 0, host], 80)));
        let served = |pool: &Pool| (0..10).filter(|_| pool.lease(&[], None).unwrap().member.address == first).count();
        pool.hear(first, Err("refused".to_owned()));
        assert_eq!(served(&pool), 5);
        pool.hear(first, Err("refused".to_owned()));
        assert_eq!(served(&pool), 0);
        assert!(pool.look()[&first].is_kept_out && pool.look()[&second].down.is_none());
        (0..2).for_each(|_| pool.hear(second, Err("refused".to_owned())));
        assert_eq!(served(&pool), 5);
        assert!(!pool.look()[&first].is_kept_out && pool.look()[&first].down.is_some());
        pool.hear(second, Ok(()));
        assert_eq!(served(&pool), 0);
        pool.hear(first, Ok(()));
        assert_eq!(served(&pool), 5);
    }

    #[test]
    fn only_members_that_are_in_are_checked_and_who_comes_in_begins_anew() {
        let pool = Pool { fall: NonZeroU32::new(1), ..pool(&[1, 1]) };
        let [first, second] = [1, 2].map(|host| SocketAddr::from(([127, 0, 0, host], 80)));
        pool.check(BTreeMap::from([(first, Probe::Tcp), (second, Probe::Tcp)]));
        pool.hear(first, Err("refused".to_owned()));
        let mut wishes: BTreeMap<SocketAddr, Wish> =
            pool.look().into_iter().map(|(address, told)| (address, told.wish)).collect();
        wishes.get_mut(&first).unwrap().state = MemberState::Out;
        pool.set(&wishes);
        assert_eq!(pool.to_check(), [(second, Probe::Tcp)]);
        assert_eq!(pool.look()[&first].down, None);
        wishes.get_mut(&first).unwrap().state = MemberState::Ready;
        pool.set(&wishes);
        assert_eq!((pool.to_check().len(), &pool.look()[&first].down), (2, &None));
    }

    #[test]
    fn a_member_that_is_out_gets_nothing_and_keeps_what_it_has() {
        let pool = pool(&[1, 1]);
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let held = pool.lease(&[SocketAddr::from(([127, 0, 0, 2], 80))], None).unwrap();
        let mut wishes: BTreeMap<SocketAddr, Wish> =
            pool.look().into_iter().map(|(address, told)| (address, told.wish)).collect();
        wishes.get_mut(&address).unwrap().state = MemberState::Out;
        pool.set(&wishes);
        assert!((0..10).all(|_| pool.lease(&[], None).unwrap().member.address != address));
        assert_eq!(pool.look()[&address].in_flight, 1);
        assert!(pool.look()[&address].oldest_ms.is_some());
        drop(held);
        assert_eq!((pool.look()[&address].in_flight, pool.look()[&address].oldest_ms), (0, None));
    }

    #[test]
    fn a_request_goes_to_its_side_and_to_the_other_when_nobody_is_in() {
        let pool = pool(&[1, 1, 1]);
        let mut wishes: BTreeMap<SocketAddr, Wish> =
            pool.look().into_iter().map(|(address, told)| (address, told.wish)).collect();
        let trial = SocketAddr::from(([127, 0, 0, 3], 80));
        wishes.get_mut(&trial).unwrap().side = Side::Trial;
        pool.set(&wishes);
        pool.divide(Some(&TrafficSplit { share: Share::of_places(2_500), ..TrafficSplit::default() }));
        let headers = http::HeaderMap::new();
        let went = |pool: &Pool| {
            let head = Head { headers: &headers, client: trial };
            let sending = pool.send(&head);
            pool.lease(&[], sending).unwrap().member.address
        };
        assert_eq!((0..400).filter(|_| went(&pool) == trial).count(), 100);
        wishes.get_mut(&trial).unwrap().state = MemberState::Out;
        pool.set(&wishes);
        assert!((0..400).all(|_| went(&pool) != trial));
        let divided = pool.divided().unwrap();
        assert_eq!((divided.stable, divided.trial), (700, 100));
    }

    #[tokio::test]
    async fn a_cut_ends_and_counts_what_is_in_flight() {
        let pool = pool(&[1]);
        let (first, second) = (pool.lease(&[], None).unwrap(), pool.lease(&[], None).unwrap());
        pool.cut(first.member.address);
        first.cut().await;
        second.cut().await;
        assert_eq!(pool.look()[&first.member.address].cut, 2);
    }
}
