//! Who judges a run: the guard as it is, without its tolerance or its caution, and what others do.

use super::statistics::{fisher, mann_whitney};
use super::world::{POLLS_A_MINUTE, Run};
use baton_core::analysis::counts::{Counts, Poll, Unit};
use baton_core::analysis::guard::Guard;
use baton_core::analysis::history::History;
use baton_core::analysis::settings::GuardSettings;
use baton_core::time::Moment;
use serde::Serialize;

/// All of these accept one false alarm in a hundred, as far as they say.
const ALPHA: f64 = 0.01;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Judge {
    /// Failed requests as they are, no tolerance.
    GuardStrict,
    /// Failed requests as they are, the default tolerance.
    Guard,
    /// The default as it runs: in the unit the traffic asks for, tempered by the history.
    GuardLive,
    /// More than 1 % of the last minute's requests failed.
    Threshold1,
    /// More than 5 %.
    Threshold5,
    /// Fisher's exact test of everything so far, each minute.
    Fisher,
    /// Mann-Whitney's test of the last ten minutes' error rates, every ten minutes.
    MannWhitney,
}

pub(super) const JUDGES: [Judge; 7] = [
    Judge::GuardStrict,
    Judge::Guard,
    Judge::GuardLive,
    Judge::Threshold1,
    Judge::Threshold5,
    Judge::Fisher,
    Judge::MannWhitney,
];

impl Judge {
    /// How many requests of the new release it took to say no; None: it never did.
    pub(super) fn says_no_after(self, run: &Run) -> Option<u64> {
        match self {
            Self::GuardStrict => guard(run, &GuardSettings::strict(), Unit::Requests, 1.0),
            Self::Guard => guard(run, &GuardSettings::default(), Unit::Requests, 1.0),
            Self::GuardLive => live(run),
            Self::Threshold1 => threshold(run, 0.01),
            Self::Threshold5 => threshold(run, 0.05),
            Self::Fisher => each_minute(run, |minutes| {
                let [new, old] = totals(minutes);
                fisher(new, old) < ALPHA
            }),
            Self::MannWhitney => each_minute(run, |minutes| {
                let last = minutes.last_chunk::<10>().filter(|_| minutes.len() % 10 == 0);
                last.is_some_and(|last| {
                    let rates = |of: fn(&Poll) -> Counts| last.each_ref().map(|minute| of(minute).share().unwrap_or(0.0));
                    mann_whitney(&rates(|minute| minute.new), &rates(|minute| minute.old)) < ALPHA
                })
            }),
        }
    }
}

fn guard(run: &Run, settings: &GuardSettings, unit: Unit, phi: f64) -> Option<u64> {
    let (mut guard, mut past, mut requests) = (Guard::default(), Counts::default(), 0);
    for seen in &run.polls {
        let poll = unit.poll(&[seen.new], &[seen.old]);
        guard.look(settings, past, poll, phi);
        past += poll.old;
        requests += seen.new.requests;
        if guard.speaks_against(settings) {
            return Some(requests);
        }
    }
    None
}

fn live(run: &Run) -> Option<u64> {
    let mut history = History::default();
    for (number, counts) in run.before.iter().enumerate() {
        history.take(Moment(number as u64 * 2000), &[*counts]);
    }
    let summary = history.summary(Moment(run.before.len() as u64 * 2000));
    // The old release's one member, as a service of this size would have.
    let unit = Unit::for_traffic(summary.counts.requests, summary.slots * 3);
    let phi = if unit == Unit::Slots { 1.0 } else { summary.phi };
    guard(run, &GuardSettings::default(), unit, phi)
}

fn threshold(run: &Run, most: f64) -> Option<u64> {
    each_minute(run, |minutes| minutes.last().and_then(|minute| minute.new.share()).is_some_and(|share| share > most))
}

fn each_minute(run: &Run, says_no: impl Fn(&[Poll]) -> bool) -> Option<u64> {
    let mut minutes: Vec<Poll> = Vec::new();
    for polls in run.polls.chunks(POLLS_A_MINUTE as usize) {
        let mut minute = Poll::default();
        for poll in polls {
            minute.new += poll.new;
            minute.old += poll.old;
        }
        minutes.push(minute);
        if says_no(&minutes) {
            return Some(totals(&minutes)[0].requests);
        }
    }
    None
}

fn totals(minutes: &[Poll]) -> [Counts; 2] {
    let mut all = [Counts::default(); 2];
    for minute in minutes {
        all[0] += minute.new;
        all[1] += minute.old;
    }
    all
}
