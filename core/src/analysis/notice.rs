//! How soon the guard would notice a regression, from a service's own traffic.

use super::POLL;
use super::bet::{Border, Rates, before, expected, guess};
use super::counts::{Counts, Poll};
use super::guard::ALTERNATIVES;
use super::history::Summary;
use super::settings::GuardSettings;
use super::signals;
use std::time::Duration;

/// Beyond this nothing is promised.
const FOREVER: Duration = Duration::from_secs(24 * 3600);

/// How long it takes on average until the guard speaks, if the new release fails at this share: from what both releases
/// answered in `over`. None: not within a day, or the tolerance allows it.
#[must_use]
pub fn within(settings: &GuardSettings, past: Counts, traffic: Poll, over: Duration, share: f64) -> Option<Duration> {
    let old = guess(past);
    let border = Border { ratio: settings.ratio(), margin: settings.margin() };
    let answered = traffic.new.requests > 0 && traffic.old.requests > 0 && !over.is_zero();
    if !answered || share.is_nan() || share <= border.at(old) {
        return None;
    }
    let rates = Rates { old, new: share };
    takes(settings, expected(rates, border.nearest(rates, traffic), traffic) / over.as_secs_f64())
}

/// What it takes where the evidence grows by so much a second.
fn takes(settings: &GuardSettings, grows: f64) -> Option<Duration> {
    let needed = worth(settings).ln() / grows;
    let looks = (needed / POLL.as_secs_f64()).ceil().max(2.0);
    let takes = Duration::try_from_secs_f64(looks * POLL.as_secs_f64()).ok()?;
    (takes <= FOREVER).then_some(takes)
}

/// The same before there is any traffic of the new release: from what the service usually answers, if the new release gets this
/// part of it; all of it: if nobody answers beside it.
#[must_use]
pub fn foreseen(settings: &GuardSettings, usual: &Summary, part: f64, share: f64) -> Option<Duration> {
    let over = POLL.saturating_mul(u32::try_from(usual.polls).unwrap_or(u32::MAX));
    let of = |part: f64| Counts::new((usual.counts.requests as f64 * part) as u64, 0);
    let traffic = Poll { new: of(part), old: of(1.0 - part) };
    if part >= 1.0 {
        let border = Border { ratio: settings.ratio(), margin: settings.margin() };
        let most = before(border, usual.counts, usual.phi).filter(|most| share > *most && !over.is_zero())?;
        let rates = |new| Rates { old: most, new };
        return takes(settings, expected(rates(share), rates(most), traffic) / over.as_secs_f64());
    }
    within(settings, usual.counts, traffic, over, share)
}

/// What a bet of 1 must become: what is bet on the alternatives nearby, and the price of not knowing which.
#[must_use]
pub(super) fn worth(settings: &GuardSettings) -> f64 {
    let least = ALTERNATIVES.iter().map(|(_, weight)| weight / 2.0).fold(1.0, f64::min);
    1.0 / settings.alpha() / (signals::of_failures(settings.sources) * 2.0 * least)
}
