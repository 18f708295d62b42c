//! Judging a release by its traffic: the guard, the gate, and what they count.
//!
//! The [`guard`] runs in every rollout, delays nothing, and speaks once there is evidence that the new release is worse than
//! the old one. The [`gate`] is asked for: it holds a rollout until a regression of a stated size is ruled out. Both are
//! tests by betting: a bettor who starts with 1 and bets against the hypothesis at fair odds owns `M` after every poll, and
//! if the hypothesis is true, the chance that `M` ever reaches `1/alpha` is at most `alpha`. So they may be looked at after
//! every poll, and whenever the traffic allows.
//!
//! [`memory`] of the instances is no matter of chance, and judged by a rule. [`meters`] turn the
//! counters of balancers into differences, [`counters`] and [`series`] those of others who count, of which [`source`] makes a bet of its own;
//! [`judgement`] is everything a rollout remembers of all this.

pub mod bet;
mod bytes;
pub mod counters;
pub mod counts;
pub mod failures;
pub mod gate;
pub mod growth;
pub mod guard;
pub mod history;
pub mod judgement;
pub mod late;
mod mark;
pub mod memory;
pub mod meters;
pub mod notice;
pub mod packed;
pub mod probes;
pub mod proof;
pub mod quantiles;
mod readings;
pub mod real;
pub mod rows;
pub mod series;
pub mod settings;
pub mod signals;
pub mod slowness;
pub mod source;
#[cfg(test)]
mod tests;
pub mod turn;

use std::time::Duration;

/// How often the counters are looked at: once a heartbeat of the agents.
pub const POLL: Duration = Duration::from_secs(2);
