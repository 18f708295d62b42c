//! The hooks that have to be run before a step.

use super::{Turn, count};
use crate::fleet::spec::InstanceSpec;
use crate::hook::Point;
use crate::name::Slot;
use crate::rollout::aside::aside;
use crate::rollout::converge::Step;
use crate::rollout::hooks::{Gate, Hooks};
use crate::rollout::place::Place;
use crate::rollout::progress::{self, Standing};
use crate::rollout::waiting::Reason;
use crate::rollout::{Direction, Rollout};

impl<'a> Turn<'a> {
    /// The hooks before everything hold every host that has not begun. Where the releases cannot coexist, the migration waits
    /// until nobody runs the old one.
    pub(super) fn opens(&mut self, standing: &Standing) -> Result<(), Reason> {
        let brings = self.rollout.is_some_and(|rollout| standing.goal == Some(rollout.to));
        // A host may be away from rest for another reason: one that was drained for work on it comes back.
        let has_begun = standing.begun && standing.has_new;
        if has_begun || standing.aside.is_some() || !brings {
            return Ok(());
        }
        let points =
            if self.strategy.exclusive { &[Point::BeforeRollout][..] } else { &[Point::BeforeRollout, Point::Migrate] };
        let wave = count(standing.wave);
        points.iter().try_for_each(|point| self.hook_once(*point)).map_err(|_| Reason::Turn { wave })
    }

    /// A host that serves runs its hook before that is drained for the new release.
    pub(super) fn before_drain(&mut self, place: &Place<'_>, slot: Slot) -> Result<(), Reason> {
        let Some(rollout) = self.rollout else { return Ok(()) };
        let mut issued = place.issued().filter(|(issued, told)| *issued == slot && told.release != rollout.to);
        let concerned = self.service.hosts.contains(place.host_name) && place.is_told_in(slot);
        if !concerned || aside(self.fleet, self.service, place.host_name).is_some() || issued.next().is_none() {
            return Ok(());
        }
        let gate = self.hooks(rollout).on(Point::BeforeDrain, place.host_name, slot);
        self.pass(gate)
    }

    pub(super) fn hook_once(&mut self, point: Point) -> Result<(), Reason> {
        let gate = self.rollout.map_or(Gate::Open, |rollout| self.hooks(rollout).once(point));
        self.pass(gate)
    }

    pub(super) fn hooks(&self, rollout: &'a Rollout) -> Hooks<'a> {
        Hooks { fleet: self.fleet, service: self.service, rollout, now: self.now }
    }

    pub(super) fn pass(&mut self, gate: Gate) -> Result<(), Reason> {
        match gate {
            Gate::Open => Ok(()),
            Gate::Wait(reason) => Err(reason),
            Gate::Ask(key, run) => {
                self.asked.entry(key).or_insert(*run);
                Err(Reason::Echo)
            }
        }
    }

    /// Hosts that switch together run their hooks together before they do.
    pub(super) fn ask_together(&mut self, rollout: &'a Rollout, standings: &[Standing]) {
        if !self.strategy.lockstep || rollout.direction == Direction::Back || self.gate.is_some() {
            return;
        }
        let mut held = false;
        for standing in standings {
            let place = self.places.at(&standing.host);
            let leaves: Vec<Slot> = match &standing.step {
                Step::Enroll(slot) if self.exchanges() => {
                    place.issued().map(|(other, _)| other).filter(|other| other != slot).collect()
                }
                Step::Drain(slot) if self.leaves_together(standing) => vec![*slot],
                // Told something else meanwhile, a hook perhaps: it leaves with the others once it has answered.
                Step::Wait(Reason::Echo) if standing.connected && standing.entered && standing.aside.is_none() => {
                    let is_old = |(_, told): &(Slot, &InstanceSpec)| told.release != rollout.to;
                    held |= place.issued().filter(is_old).any(|(slot, _)| place.is_told_in(slot));
                    continue;
                }
                _ => continue,
            };
            for slot in leaves {
                held |= self.before_drain(&place, slot).is_err();
            }
        }
        if held {
            let (ready, of) = progress::staged(rollout, standings);
            self.gate = Some(Reason::Together { ready: count(ready), of: count(of) });
        }
    }
}
