//! The explorations that are made: together a product of what is on the list, cut so that all of them end within minutes.

use crate::scope::{Manner, Reports, Scope, Store};
use crate::state::Budget;

/// Everything that can go wrong, so many times in one run; and one rollback.
const fn any(faults: u8) -> Budget {
    let (crashes, doubles, late, silences, failures, hurries) = (1, 1, 1, 1, 1, 1);
    let (parties, exits, rollbacks) = (0b1_1111, 0b111, 1);
    Budget { faults, crashes, doubles, parties, exits, late, silences, failures, hurries, rollbacks }
}

/// Nothing goes wrong, and somebody may ask for a rollback.
const CALM: Budget = any(0);

const fn scope(name: &'static str, (hosts, balancers): (usize, usize), manner: Manner, budget: Budget) -> Scope {
    let (store, reports) = (Store::Shared, Reports::AtOnce);
    Scope { name, hosts, balancers, manner, lossy: false, busy: false, store, reports, budget }
}

/// What is explored in release: three hosts and two balancers with every fault by itself, and smaller fleets with more.
#[must_use]
pub fn all() -> Vec<Scope> {
    use Manner::{Beside, Exclusive, InPlace, Together};
    let under_way = |scope| Scope { lossy: true, busy: true, reports: Reports::UnderWay, ..scope };
    vec![
        scope("in place, any one fault", (3, 2), InPlace, any(1)),
        scope("in place, any two faults", (2, 1), InPlace, any(2)),
        under_way(scope("in place, any one fault, messages under way and lost", (2, 1), InPlace, any(1))),
        under_way(scope("in place, messages under way and lost", (3, 2), InPlace, CALM)),
        scope("beside", (3, 2), Beside, CALM),
        scope("beside, any two faults", (2, 1), Beside, any(2)),
        scope("together, any one fault", (2, 1), Together, any(1)),
        scope("together", (3, 1), Together, CALM),
        scope("together", (2, 2), Together, CALM),
        scope("exclusive, any one fault", (2, 1), Exclusive, any(1)),
        scope("exclusive", (3, 2), Exclusive, CALM),
    ]
}

/// What is explored in every `cargo test`.
#[must_use]
pub fn small() -> Scope {
    scope("in place, any one fault", (2, 1), Manner::InPlace, any(1))
}

/// What nobody may run: a coordinator that was taken over from goes on, and writes to a store of its own.
#[must_use]
pub fn copied() -> Scope {
    let budget = Budget { faults: 1, doubles: 1, ..Budget::default() };
    let scope = scope("in place, two coordinators over two stores", (2, 1), Manner::InPlace, budget);
    Scope { store: Store::Copied, reports: Reports::UnderWay, ..scope }
}
