//! How every rollout begins.

use super::super::aside::aside;
use super::super::hooks;
use super::super::place::Places;
use super::super::{Consent, Direction, Pause, Rollout, RolloutState, spread};
use crate::analysis::judgement::Judgement;
use crate::fleet::{Fleet, Service};
use crate::name::{HostName, ReleaseId, RolloutId, ServiceName};
use crate::strategy::Strategy;
use crate::time::Moment;
use std::collections::BTreeMap;

/// A new rollout. Hosts that do not serve come first: nothing is lost there. Those that stand aside come last, so that no wave
/// is done because nobody is in it.
#[must_use]
pub fn begin(
    fleet: &Fleet,
    id: RolloutId,
    name: &ServiceName,
    service: &Service,
    (to, strategy): (ReleaseId, Strategy),
    by: String,
    now: Moment,
) -> Rollout {
    let (away, present): (Vec<&HostName>, Vec<_>) =
        service.hosts.iter().partition(|host| aside(fleet, service, host).is_some());
    let places = Places::of(fleet, name, service, now);
    let serves = |host: &&HostName| places.at(host).serves();
    let (up, down): (Vec<&HostName>, Vec<_>) = present.into_iter().partition(serves);
    let hosts = spread::order(fleet, strategy.spread_by.as_ref(), down, up).into_iter();
    // To start what runs already anew needs nobody else.
    let asks = strategy.second_person && service.committed != Some(to);
    let changes = service.committed.is_some_and(|live| live != to);
    let strategy = if changes { strategy } else { strategy.without_preview() };
    let why = "another person has to let it begin".to_owned();
    Rollout {
        id,
        service: name.clone(),
        from: service.committed,
        to,
        strategy,
        hosts: hosts.chain(away).cloned().collect(),
        state: if asks { RolloutState::Paused } else { RolloutState::Pending },
        direction: Direction::Forward,
        turned: None,
        pause: asks.then(|| Pause { by: by.clone(), why }),
        wave: 0,
        promoted: 0,
        wave_done: None,
        started: now,
        progressed: now,
        ended: None,
        by,
        evidence: Vec::new(),
        judgement: Judgement::default(),
        starts: BTreeMap::new(),
        left_out: Vec::new(),
        anew: false,
        returns: false,
        kept: service.orders.kept.values().map(|kept| kept.release).filter(|release| *release != to).collect(),
        consent: if asks { Consent::Awaited } else { Consent::NotNeeded },
    }
}

/// Puts a rollout under way. Of those that ended, only the one it takes the place of stays: that is not durable yet.
pub(super) fn put(fleet: &mut Fleet, rollout: Rollout, instead_of: Option<&RolloutId>) -> RolloutId {
    let (id, name) = (rollout.id.clone(), rollout.service.clone());
    // What is still warm is where this rollout goes, or stands where its release starts.
    if let Some(service) = fleet.services.get_mut(&name) {
        service.warm = None;
        service.past.ask_for(rollout.to);
        hooks::forget_past(&mut service.hooks);
    }
    let stays = |old: &Rollout| old.service != name || old.state.is_active() || Some(&old.id) == instead_of;
    fleet.rollouts.retain(|_, old| stays(old));
    fleet.rollouts.insert(id.clone(), rollout);
    id
}
