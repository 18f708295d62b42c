//! When to plan again: at once where something changed that a plan depends on, when the last plan asked for it, and now and
//! then where hosts only repeat themselves.

use baton_core::time::{Moment, earlier};
use std::time::Duration;

/// How old what is waited for may get, as people see it, while hosts report: it carries durations, which grow in every report.
const FRESH: Duration = Duration::from_secs(1);

/// What is known of the next plan. Nothing was planned yet: it is due.
#[derive(Debug, Default)]
pub(super) struct Due {
    last: Option<Last>,
    /// Something was heard since that the last plan did not know.
    news: bool,
}

/// The last plan: when it was made, and when it asked for the next one.
#[derive(Debug, Clone, Copy)]
struct Last {
    at: Moment,
    wake_at: Option<Moment>,
}

impl Due {
    pub(super) fn hear(&mut self, is_news: bool) {
        self.news |= is_news;
    }

    /// A plan was made of all that was heard, and is durable.
    pub(super) fn planned(&mut self, at: Moment, wake_at: Option<Moment>) {
        *self = Self { last: Some(Last { at, wake_at }), news: false };
    }

    pub(super) fn is_due(&self, now: Moment) -> bool {
        let is_over = |last: Last| earlier(last.wake_at, Some(last.at + FRESH)).is_some_and(|due| due <= now);
        self.news || self.last.is_none_or(is_over)
    }

    /// When the last plan asked for the next one.
    pub(super) fn wake_at(&self) -> Option<Moment> {
        self.last.and_then(|last| last.wake_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_repeated_is_planned_again_only_when_what_people_see_gets_old() {
        let mut due = Due::default();
        assert!(due.is_due(Moment(0)), "nothing was planned yet");
        due.planned(Moment(100), None);
        due.hear(false);
        assert!(!due.is_due(Moment(1_099)));
        assert!(due.is_due(Moment(1_100)));
        due.hear(true);
        due.hear(false);
        assert!(due.is_due(Moment(101)), "what was heard stays heard until it was planned with");
    }

    #[test]
    fn a_plan_is_made_again_when_the_last_one_asked_for_it() {
        let mut due = Due::default();
        due.planned(Moment(100), Some(Moment(300)));
        assert_eq!(due.wake_at(), Some(Moment(300)));
        assert!(!due.is_due(Moment(299)));
        assert!(due.is_due(Moment(300)));
    }
}
