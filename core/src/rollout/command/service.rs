//! What stands for a whole service: freezes, its queue, its removal.

use super::{Accepted, busy, known, known_mut, unknown};
use crate::fleet::Fleet;
use crate::fleet::orders::{Freeze, Order};
use crate::name::{RolloutId, ServiceName};
use crate::problem::{Code, Problem};
use crate::time::Moment;
use std::time::Duration;

pub(super) fn freeze(
    fleet: &mut Fleet,
    service: Option<&ServiceName>,
    lasts: Option<Duration>,
    order: Order,
) -> Result<Accepted, Problem> {
    let freeze = Some(Freeze { until: lasts.map(|lasts| order.since + lasts), order });
    match service {
        Some(name) => known_mut(fleet, name)?.orders.freeze = freeze,
        None => fleet.freeze = freeze,
    }
    Ok(Accepted::Noted)
}

/// Ends a freeze: of one service, or that of the whole fleet.
pub(super) fn unfreeze(fleet: &mut Fleet, service: Option<&ServiceName>) -> Result<Accepted, Problem> {
    let Some(name) = service else { return Ok(was(fleet.freeze.take().is_some())) };
    let own = known(fleet, name)?.orders.freeze.is_some();
    if let Some(whole) = fleet.freeze.as_ref().filter(|_| !own) {
        return Err(Problem::new(Code(711), format!("the whole fleet is frozen: {}", whole.order.why))
            .saw("frozen by", whole.order.by.clone())
            .help("baton unfreeze --all"));
    }
    Ok(was(known_mut(fleet, name)?.orders.freeze.take().is_some()))
}

const fn was(frozen: bool) -> Accepted {
    if frozen { Accepted::Noted } else { Accepted::Unchanged }
}

/// Takes deploys out of the queue that wait their turn.
pub(super) fn cancel(fleet: &mut Fleet, name: &ServiceName, queued: Option<&RolloutId>) -> Result<Accepted, Problem> {
    let waiting = &known(fleet, name)?.orders.queue;
    let meant = |id: &RolloutId| queued.is_none_or(|queued| queued == id);
    if !waiting.iter().any(|waiting| meant(&waiting.id)) {
        let ids: Vec<&str> = waiting.iter().map(|waiting| waiting.id.as_str()).collect();
        return Err(Problem::new(Code(714), format!("no such deploy of {name} waits its turn"))
            .saw("waiting", if ids.is_empty() { "none".into() } else { ids.join(", ") })
            .help(format!("baton status {name}")));
    }
    known_mut(fleet, name)?.orders.queue.retain(|waiting| !meant(&waiting.id));
    Ok(Accepted::Noted)
}

pub(super) fn remove(fleet: &mut Fleet, name: &ServiceName, by: String, now: Moment) -> Result<Accepted, Problem> {
    let service = fleet.services.get(name).ok_or_else(|| unknown(fleet, name))?;
    if service.orders.removal.is_some() {
        return Ok(Accepted::Unchanged);
    }
    if let Some(active) = fleet.active_rollout(name) {
        return Err(busy(active, now));
    }
    let orders = &mut known_mut(fleet, name)?.orders;
    orders.queue.clear();
    // It goes from everywhere: also from hosts that were left alone with what they brought of it.
    orders.brought.clear();
    orders.removal = Some(Order { by, why: String::new(), since: now });
    Ok(Accepted::Noted)
}
