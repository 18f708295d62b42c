//! Why a host or a rollout does not go on although nothing is left to do.

use super::{Turn, count};
use crate::rollout::gate::{self, Word};
use crate::rollout::progress::{self, Standing};
use crate::rollout::waiting::{Reason, Waiting};
use crate::rollout::{Direction, Rollout, RolloutState};

impl Turn<'_> {
    /// A host that is done only because it stands aside, its turn has not come, or it keeps what it has says so.
    pub(super) fn say_done(&self, standing: &Standing) -> Result<(), Reason> {
        if let Some(reason) = &standing.aside {
            return Err(Reason::clone(reason));
        }
        match self.rollout {
            Some(rollout) if standing.goal.is_some() && standing.goal != rollout.goal() => {
                Err(Reason::Turn { wave: count(standing.wave) })
            }
            None => match self.service.orders.kept.get(&standing.host) {
                Some(kept) if standing.goal == Some(kept.release) => Err(Reason::Kept { by: kept.by.clone() }),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    pub(super) fn say_rollout(&mut self, rollout: &Rollout, standings: &[Standing]) {
        let mut say = |reason| self.waiting.push(Waiting { host: None, reason });
        if let Some(pause) = &rollout.pause {
            say(Reason::Paused { by: pause.by.clone(), why: pause.why.clone() });
        }
        let baked = |since| self.now.since(since) >= rollout.strategy.bake_of(rollout.wave);
        let held = rollout.wave_done.filter(|since| baked(*since)).map(|_| gate::ask(rollout, self.service, self.now));
        if let Some(Word::Wait(reason)) = held {
            say(reason);
        } else if let Some(wave) = progress::asks_for(rollout, standings, self.now) {
            let preview = rollout.strategy.preview().filter(|_| rollout.is_previewed());
            say(Reason::Approval { wave: count(wave), preview: preview.map(ToString::to_string) });
        } else if let Some(since) = rollout.wave_done {
            say(Reason::Bake { left: rollout.strategy.bake_of(rollout.wave).saturating_sub(self.now.since(since)) });
        }
    }
}

/// What keeps the hosts that enter together from doing so; None: they may, or need not.
pub(super) fn entry(rollout: &Rollout, standings: &[Standing]) -> Option<Reason> {
    if !rollout.strategy.lockstep || rollout.direction == Direction::Back {
        return None;
    }
    let (ready, of) = progress::staged(rollout, standings);
    let held = rollout.state == RolloutState::Paused || !progress::is_let_through(rollout, rollout.wave);
    (held || ready < of).then_some(Reason::Together { ready: count(ready), of: count(of) })
}
