//! What was counted in one phase.

use super::histogram::Histogram;
use super::request::{Answer, Kind, Refused};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio::time::Instant;

/// The first failures are kept word for word; the rest are counted.
const KEPT_FAILURES: usize = 20;

/// What one phase counted. Requests belong to the phase in which they were due.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub requests: u64,
    /// Connect error, reset, end inside an answer, anything but 200, or no whole answer in time.
    pub failed: u64,
    pub duration_s: f64,
    /// The longest time without a single good answer.
    pub longest_gap_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    pub kinds: BTreeMap<Kind, KindReport>,
    /// Good answers by the version that gave them.
    pub versions: BTreeMap<String, u64>,
    /// Failed ones by the version that answered them; `none`: nobody did.
    pub failed_versions: BTreeMap<String, u64>,
    pub posts: Posts,
    /// The first failures, in order.
    pub failures: Vec<Failure>,
}

/// What one kind of client met. Latencies count from when the request was due.
#[derive(Debug, Clone, Serialize)]
pub struct KindReport {
    pub requests: u64,
    pub failed: u64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// Orders by id: what the client knows of them.
#[derive(Debug, Clone, Serialize)]
pub struct Posts {
    pub sent: u64,
    pub acknowledged: u64,
    #[serde(skip)]
    pub tag: String,
    /// Numbers of the orders sent: from the first to the one before the last.
    #[serde(skip)]
    pub numbers: std::ops::Range<u64>,
    /// Of these, the ones that were not acknowledged.
    #[serde(skip)]
    pub unacknowledged: BTreeSet<u64>,
}

/// One failure, as the client saw it.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    /// Since the phase began.
    pub at_s: f64,
    pub kind: Kind,
    pub text: String,
}

/// An order under way.
#[derive(Debug)]
pub(super) struct Order {
    tag: String,
    number: u64,
}

impl Order {
    pub(super) fn text(&self) -> String {
        order_id(&self.tag, self.number)
    }
}

pub(super) fn order_id(tag: &str, number: u64) -> String {
    format!("{tag}-{number}")
}

/// One phase under way.
#[derive(Debug)]
pub(super) struct Tally {
    tag: String,
    begun: Instant,
    counts: Mutex<Counts>,
    open: watch::Sender<usize>,
}

#[derive(Debug)]
struct Counts {
    all: Histogram,
    kinds: BTreeMap<Kind, (u64, u64, Histogram)>,
    versions: BTreeMap<String, u64>,
    failed_versions: BTreeMap<String, u64>,
    failures: Vec<Failure>,
    last_good: Instant,
    longest_gap_ms: f64,
    first_post: u64,
    next_post: u64,
    unacknowledged: BTreeSet<u64>,
}

impl Tally {
    pub(super) fn new(tag: &str, first_post: u64) -> Self {
        let begun = Instant::now();
        let counts = Counts {
            all: Histogram::new(),
            kinds: Kind::ALL.into_iter().map(|kind| (kind, (0, 0, Histogram::new()))).collect(),
            versions: BTreeMap::new(),
            failed_versions: BTreeMap::new(),
            failures: Vec::new(),
            last_good: begun,
            longest_gap_ms: 0.0,
            first_post,
            next_post: first_post,
            unacknowledged: BTreeSet::new(),
        };
        Self { tag: tag.to_owned(), begun, counts: Mutex::new(counts), open: watch::Sender::new(0) }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request as sent; false when too many are under way, and then it has failed already.
    pub(super) fn begin(&self, kind: Kind, max_open: usize) -> bool {
        let admitted = *self.open.borrow() < max_open;
        let mut counts = self.counts();
        counts.kinds.entry(kind).or_insert_with(|| (0, 0, Histogram::new())).0 += 1;
        if admitted {
            self.open.send_modify(|open| *open += 1);
        } else {
            counts.fail(self.begun, kind, format!("unsent: {max_open} requests are under way").into());
        }
        admitted
    }

    /// The next order's number: each is used once.
    pub(super) fn order(&self) -> Order {
        let mut counts = self.counts();
        let number = counts.next_post;
        counts.next_post += 1;
        counts.unacknowledged.insert(number);
        Order { tag: self.tag.clone(), number }
    }

    /// Where the next phase's numbers begin: far enough that requests of this one which are not yet numbered stay below.
    pub(super) fn next_post(&self) -> u64 {
        self.counts().next_post + 1_000_000
    }

    pub(super) fn end(&self, kind: Kind, due: Instant, order: Option<Order>, answer: Answer) {
        let mut counts = self.counts();
        match answer {
            Ok(version) => {
                if let Some(order) = order {
                    counts.unacknowledged.remove(&order.number);
                }
                counts.good(kind, due, version);
            }
            Err(refused) => counts.fail(self.begun, kind, refused),
        }
        drop(counts);
        self.open.send_modify(|open| *open -= 1);
    }

    /// The report, once nothing of this phase is under way.
    pub(super) async fn finish(&self) -> Report {
        let marked = Instant::now();
        // The sender lives in self: waiting cannot fail.
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
        let counts = self.counts();
        let last_gap = marked.saturating_duration_since(counts.last_good).as_secs_f64() * 1000.0;
        let kinds = counts.kinds.iter().map(|(kind, (requests, failed, latencies))| {
            let [p50_ms, p90_ms, p99_ms] = [0.5, 0.9, 0.99].map(|quantile| latencies.quantile_ms(quantile));
            let max_ms = latencies.longest_ms();
            (*kind, KindReport { requests: *requests, failed: *failed, p50_ms, p90_ms, p99_ms, max_ms })
        });
        let kinds = kinds.collect::<BTreeMap<_, _>>();
        Report {
            requests: kinds.values().map(|kind| kind.requests).sum(),
            failed: kinds.values().map(|kind| kind.failed).sum(),
            duration_s: rounded(marked.saturating_duration_since(self.begun).as_secs_f64()),
            longest_gap_ms: rounded(counts.longest_gap_ms.max(last_gap)),
            p50_ms: counts.all.quantile_ms(0.5),
            p90_ms: counts.all.quantile_ms(0.9),
            p99_ms: counts.all.quantile_ms(0.99),
            max_ms: counts.all.longest_ms(),
            kinds,
            versions: counts.versions.clone(),
            failed_versions: counts.failed_versions.clone(),
            posts: Posts {
                sent: counts.next_post - counts.first_post,
                acknowledged: counts.next_post - counts.first_post - counts.unacknowledged.len() as u64,
                tag: self.tag.clone(),
                numbers: counts.first_post..counts.next_post,
                unacknowledged: counts.unacknowledged.clone(),
            },
            failures: counts.failures.clone(),
        }
    }
}

impl Counts {
    fn good(&mut self, kind: Kind, due: Instant, version: String) {
        let now = Instant::now();
        let latency = now.saturating_duration_since(due);
        self.all.record(latency);
        if let Some((_, _, latencies)) = self.kinds.get_mut(&kind) {
            latencies.record(latency);
        }
        *self.versions.entry(version).or_default() += 1;
        let gap = now.saturating_duration_since(self.last_good).as_secs_f64() * 1000.0;
        self.longest_gap_ms = self.longest_gap_ms.max(gap);
        self.last_good = now;
    }

    fn fail(&mut self, begun: Instant, kind: Kind, refused: Refused) {
        let Refused { text, version } = refused;
        *self.failed_versions.entry(version.unwrap_or_else(|| "none".to_owned())).or_default() += 1;
        if let Some((_, failed, _)) = self.kinds.get_mut(&kind) {
            *failed += 1;
        }
        if self.failures.len() < KEPT_FAILURES {
            let at_s = rounded(begun.elapsed().as_secs_f64());
            self.failures.push(Failure { at_s, kind, text });
        }
    }
}

/// Milliseconds of a second, microseconds of a millisecond: more digits than that were not measured.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
