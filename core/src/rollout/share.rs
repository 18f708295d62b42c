//! How much traffic the new release gets while it shares it with the old one, through the weights of members.

use super::Rollout;
use crate::strategy::Strategy;

/// The weight of a member that shares with nobody.
pub(super) const WEIGHT: u16 = 100;

/// The largest weight every balancer knows.
const HEAVIEST: u64 = 256;

/// Everything, in the millionths shares are counted in here.
const ALL: u64 = 1_000_000;

/// Whether members may weigh differently while a rollout goes on.
pub(super) fn shares(strategy: &Strategy) -> bool {
    strategy.waves.iter().any(|wave| wave.share.is_some() && !wave.is_preview())
}

/// The weights of each new and each old member, of which so many are in.
#[must_use]
pub(super) fn weights(rollout: &Rollout, new: usize, old: usize) -> (u16, u16) {
    match share_now(&rollout.strategy, rollout.wave, new, rollout.hosts.len()) {
        Some(share) if share < ALL && new > 0 && old > 0 => divide(share, new as u64, old as u64),
        _ => (WEIGHT, WEIGHT),
    }
}

/// The share of traffic the new release should have with `new` of `total` hosts in; None where the strategy asks for none.
///
/// It grows from the share of the wave before to the one of this wave with each host that enters, and never falls: nobody who
/// came to the new release is sent back by a wave that only begins.
fn share_now(strategy: &Strategy, wave: usize, new: usize, total: usize) -> Option<u64> {
    if !shares(strategy) {
        return None;
    }
    let reach = |wave: usize| {
        let wave = strategy.waves.get(wave)?;
        let hosts = wave.hosts.of(total);
        let natural = ALL * hosts as u64 / (total as u64).max(1);
        Some((hosts, wave.share.map_or(natural, |share| u64::from(u16::from(share)) * 100)))
    };
    let (hosts, share) = reach(wave)?;
    let (hosts_before, before) = wave.checked_sub(1).and_then(reach).unwrap_or((0, 0));
    if new >= hosts {
        return Some(share);
    }
    let entered = new.saturating_sub(hosts_before) as u64;
    Some(before + share.saturating_sub(before) * entered / (hosts.saturating_sub(hosts_before) as u64).max(1))
}

/// The two weights that come nearest to the share.
fn divide(share: u64, new: u64, old: u64) -> (u16, u16) {
    let divided = |heavy: u64| {
        let wanted = share * old * heavy;
        let per_weight = (ALL - share) * new;
        let light = ((wanted + per_weight / 2) / per_weight).clamp(1, HEAVIEST);
        // How far the new members' part is from the share, as a fraction of everything.
        let (mine, theirs) = (light * new, heavy * old);
        let off = (mine * ALL).abs_diff(share * (mine + theirs));
        (u128::from(off) * u128::from(ALL) / u128::from(mine + theirs), light, heavy)
    };
    let (_, light, heavy) = (1..=HEAVIEST).map(divided).min().unwrap_or((0, WEIGHT.into(), WEIGHT.into()));
    (u16::try_from(light).unwrap_or(WEIGHT), u16::try_from(heavy).unwrap_or(WEIGHT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_come_as_near_to_the_share_as_they_can() {
        for total in 1..=40_u64 {
            for share in [1_000, 5_000, 10_000, 50_000, 250_000, 333_300, 500_000, 900_000] {
                let new = (total * share).div_ceil(ALL);
                let (light, heavy) = divide(share, new, total);
                let (mine, theirs) = (u64::from(light) * new, u64::from(heavy) * total);
                let got = mine * ALL / (mine + theirs);
                // A share of which one host's smallest weight is more cannot be had.
                let least = ALL * new / (new + total * HEAVIEST);
                assert!(got.abs_diff(share.max(least)) <= 2_500, "{share} of {total}: {got} by {light}:{heavy}");
            }
        }
    }
}
