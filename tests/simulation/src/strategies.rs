//! Strategies of every kind, drawn by chance: values, as everywhere.

use super::random::Random;
use baton_core::analysis::settings::{GateSettings, NotEnough};
use baton_core::fleet::split::Share;
use baton_core::name::LabelKey;
use baton_core::strategy::{Amount, OnFailure, Placement, Strategy, Users, Wave};
use std::time::Duration;

/// Draws a strategy for so many hosts.
pub(super) fn draw(random: &mut Random, hosts: usize) -> Strategy {
    let plain = Strategy {
        placement: Placement::InPlace,
        waves: waves(random),
        max_unavailable: Amount::Hosts(1),
        parallel: None,
        lockstep: false,
        keep_old: Duration::ZERO,
        exclusive: false,
        spread_by: random.chance(15).then(rack),
        bake: Duration::from_millis(random.between(0, 2) * 1_000),
        drain_deadline: Duration::from_millis(random.between(500, 5_000)),
        progress_deadline: Duration::from_secs(60),
        users: Default::default(),
        guard: Default::default(),
        gate: gate(random),
        max_failed: None,
        prober: None,
        scrape: None,
        prometheus: None,
        second_person: random.chance(10),
        on_failure: if random.chance(80) { OnFailure::Revert } else { OnFailure::Pause },
    };
    let keep_old = Duration::from_millis(random.between(0, 4) * 5_000);
    let spare = if random.chance(50) { Amount::Hosts(0) } else { Amount::Hosts(1) };
    let beside = Strategy { placement: Placement::SideBySide, max_unavailable: spare, ..plain.clone() };
    match random.between(0, 9) {
        0 | 1 => plain,
        2 => beside,
        3 => Strategy { keep_old, ..beside },
        4..=6 => {
            let wave = Wave { approve: random.chance(30), ..Wave::of(Amount::Percent(100)) };
            let parallel = Some(Amount::Percent(100));
            let looks = random.chance(30);
            let waves = if looks { vec![Wave::preview(), wave] } else { vec![wave] };
            let rules = Vec::from_iter(looks.then(|| "header X-Preview = 1".parse().expect("a rule")));
            let users = Users { rules, ..Users::default() };
            Strategy { waves, users, parallel, lockstep: true, keep_old, max_unavailable: Amount::Hosts(0), ..beside }
        }
        7 | 8 => {
            let base = if random.chance(50) { plain } else { beside };
            Strategy { waves: shares(random, hosts), ..base }
        }
        _ => {
            let waves = vec![Wave::of(Amount::Percent(100))];
            Strategy { waves, max_unavailable: Amount::Percent(100), exclusive: true, spread_by: None, ..plain }
        }
    }
}

/// What is said of every host.
pub(super) fn rack() -> LabelKey {
    LabelKey::new("rack").expect("a name")
}

/// One host after the other, in place, and nothing is watched.
pub(super) fn one_by_one() -> Strategy {
    Strategy {
        placement: Placement::InPlace,
        waves: vec![Wave::of(Amount::Percent(100))],
        max_unavailable: Amount::Hosts(1),
        parallel: None,
        lockstep: false,
        keep_old: Duration::ZERO,
        exclusive: false,
        spread_by: None,
        bake: Duration::ZERO,
        drain_deadline: Duration::from_secs(5),
        progress_deadline: Duration::from_secs(60),
        users: Default::default(),
        guard: Default::default(),
        gate: None,
        max_failed: None,
        prober: None,
        scrape: None,
        prometheus: None,
        second_person: false,
        on_failure: OnFailure::Revert,
    }
}

/// One host, then a quarter of them, then all; never more than a quarter away.
pub(super) fn in_waves() -> Strategy {
    let waves = [Amount::Hosts(1), Amount::Percent(25), Amount::Percent(100)].map(Wave::of).to_vec();
    Strategy { waves, max_unavailable: Amount::Percent(25), ..one_by_one() }
}

/// Nobody counts requests here, so a gate never sees enough of them.
fn gate(random: &mut Random) -> Option<GateSettings> {
    let words = [NotEnough::Pause, NotEnough::Promote, NotEnough::Revert];
    let on_not_enough_data = *random.pick(&words)?;
    let gate = GateSettings { rule_out_ppm: 10_000, max_wait: Duration::from_secs(5), on_not_enough_data };
    random.chance(20).then_some(gate)
}

fn waves(random: &mut Random) -> Vec<Wave> {
    match random.between(0, 2) {
        0 => [Amount::Hosts(1), Amount::Percent(100)].map(Wave::of).to_vec(),
        1 => [Amount::Hosts(1), Amount::Percent(50), Amount::Percent(100)].map(Wave::of).to_vec(),
        _ => vec![Wave::of(Amount::Percent(100))],
    }
}

fn shares(random: &mut Random, hosts: usize) -> Vec<Wave> {
    let approve = random.chance(30);
    let shares = [500, 2_500].map(|share| Share::try_from(share).unwrap_or_default());
    let step = |share: Share| Wave {
        hosts: Amount::Hosts(u32::try_from(share.hosts(hosts)).unwrap_or(1)),
        share: Some(share),
        bake: Some(Duration::from_millis(random.between(0, 3) * 1_000)),
        approve,
    };
    shares.map(step).into_iter().chain([Wave::of(Amount::Percent(100))]).collect()
}
