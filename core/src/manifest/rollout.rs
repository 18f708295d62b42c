//! `[rollout]` and `[balancer]`: how a release replaces another, and behind what.

use super::codes;
use super::keys::{self, Fallback};
use super::listen::handover;
use super::reader::{Finding, Reader, quoted};
use super::run::SLOTS;
use super::unknown;
use super::users;
use super::values::shown;
use crate::analysis::settings::GuardSettings;
use crate::fleet::BalancerPool;
use crate::name::{PoolName, ServiceName};
use crate::strategy::{Amount, OnFailure, Placement, Strategy, Wave};
use std::time::Duration;
use toml::Spanned;
use toml::de::DeValue;

/// The pool in front of the service; inner None: nothing routes to it.
pub(super) fn balancer(reader: &mut Reader<'_, '_>, service: Option<&ServiceName>) -> Option<Option<BalancerPool>> {
    if !reader.has_table("balancer") {
        return Some(None);
    }
    let on = reader.hosts("balancer.on");
    let pool = if reader.value("balancer.pool").is_some() {
        reader.name::<PoolName>("balancer.pool")
    } else {
        let name = service.map(ServiceName::as_str)?;
        reader.note("balancer.pool", quoted(name), None);
        reader.parse_name(name, reader.span("service"))
    };
    Some(Some(BalancerPool { on: on?, pool: pool? }))
}

/// The strategy. `hosts` and `ports` are how many there are, where that is known.
pub(super) fn strategy(reader: &mut Reader<'_, '_>, hosts: Option<usize>, ports: Option<usize>) -> Option<Strategy> {
    unknown::strategy(reader);
    let placement = placement(reader, ports);
    let max_unavailable = reader.amount("rollout.max_unavailable");
    let waves = waves(reader, hosts);
    let users = users::users(reader);
    let bake = reader.duration("rollout.bake", Duration::ZERO);
    let drain_deadline = reader.duration("rollout.drain", Duration::ZERO);
    let progress_deadline = reader.duration("rollout.progress_deadline", Duration::from_secs(1));
    let on_failure = reader.choice("rollout.on_failure").map(|word| match word {
        "pause" => OnFailure::Pause,
        _ => OnFailure::Revert,
    });
    if let (Some(Placement::InPlace), Some(amount), Some(hosts)) = (placement, max_unavailable, hosts) {
        in_place(reader, amount, hosts);
    }
    Some(Strategy {
        placement: placement?,
        waves: waves?.into_iter().map(Wave::of).collect(),
        max_unavailable: max_unavailable?,
        parallel: None,
        lockstep: false,
        keep_old: Duration::ZERO,
        exclusive: false,
        bake: bake?,
        drain_deadline: drain_deadline?,
        progress_deadline: progress_deadline?,
        on_failure: on_failure?,
        users: users?,
        guard: GuardSettings::default(),
        gate: None,
    })
}

fn placement(reader: &mut Reader<'_, '_>, ports: Option<usize>) -> Option<Placement> {
    const PLACE: &str = "rollout.placement";
    let Some(value) = reader.value(PLACE) else {
        let side_by_side = ports? > 1;
        let word = match (side_by_side, reader.value("run.listen")) {
            (true, Some(_)) => "handover",
            (true, None) => "side-by-side",
            (false, _) => "in-place",
        };
        reader.note(PLACE, quoted(word), None);
        return Some(if side_by_side { Placement::SideBySide } else { Placement::InPlace });
    };
    match (reader.choice(PLACE)?, ports) {
        ("in-place", _) => Some(Placement::InPlace),
        ("handover", ports) => handover(reader, value.span(), ports),
        (_, Some(1)) => {
            let what = "side by side needs a second port: the new instance starts before the old one stops";
            let finding = Finding::error(codes::CONTRADICTION, value.span(), what).label("`run.ports` has one");
            reader.report(finding.help(format!("give run.ports two to {SLOTS} ports, or replace in place")));
            None
        }
        _ => Some(Placement::SideBySide),
    }
}

/// Checks how many hosts may be missing against replacing in place, which always takes the host it works on.
fn in_place(reader: &mut Reader<'_, '_>, amount: Amount, hosts: usize) {
    const PLACE: &str = "rollout.max_unavailable";
    let place = if reader.value(PLACE).is_some() { reader.span(PLACE) } else { reader.span("hosts") };
    let at_once = amount.at_most(hosts);
    if at_once == 0 {
        let what = format!("{} of {hosts} hosts is none, and in place no host can be replaced without it", shown(amount));
        let finding = Finding::error(codes::CONTRADICTION, place, what).label("shares are rounded down");
        reader.report(finding.help("allow at least 1, or give run.ports a second port"));
    } else if at_once >= hosts {
        let what = "no host serves while the release is replaced in place";
        let label = format!("{at_once} of {hosts} may be missing at once");
        let help = if hosts > 1 {
            "lower max_unavailable, or give run.ports a second port"
        } else {
            "give run.ports a second port"
        };
        reader.report(Finding::warning(codes::NOBODY_SERVES, place, what).label(label).help(help));
    }
}

/// The waves: cumulative, growing, and the last one reaches every host.
fn waves(reader: &mut Reader<'_, '_>, hosts: Option<usize>) -> Option<Vec<Amount>> {
    const PLACE: &str = "rollout.waves";
    let all = Amount::Percent(100);
    if reader.value(PLACE).is_none() {
        if let Some(Fallback::Value(default)) = keys::find(PLACE).map(|key| key.fallback) {
            reader.note(PLACE, format!("[\"{default}\"]"), None);
        }
        return Some(vec![all]);
    }
    let list = reader.list(PLACE)?;
    let mut waves: Vec<Amount> = Vec::new();
    for item in list.get_ref() {
        let wave = reader.parse_amount(PLACE, item)?;
        if let Some(finding) = misstep(&waves, wave, item, hosts) {
            reader.report(finding.help("waves are cumulative: [\"1\", \"25%\", \"100%\"]"));
            return None;
        }
        waves.push(wave);
    }
    let reaches_all = |wave: &Amount| *wave == all || hosts.is_some_and(|hosts| wave.of(hosts) == hosts);
    if !waves.last().is_some_and(reaches_all) {
        waves.push(all);
    }
    let words: Vec<String> = waves.iter().copied().map(shown).collect();
    reader.note(PLACE, format!("[{}]", words.join(", ")), Some(list.span()));
    Some(waves)
}

/// What is wrong with one more wave: it holds nobody, more than there are, or no more than the one before.
fn misstep(waves: &[Amount], wave: Amount, item: &Spanned<DeValue<'_>>, hosts: Option<usize>) -> Option<Finding> {
    let finding = |what: String, label: &str| Some(Finding::error(codes::BAD_AMOUNT, item.span(), what).label(label));
    match (wave, hosts) {
        (Amount::Hosts(0) | Amount::Percent(0), _) => return finding("a wave of no hosts".into(), "at least one"),
        (Amount::Hosts(wave), Some(hosts)) if wave as usize > hosts => {
            return finding(format!("a wave of {wave} hosts, and the service has {hosts}"), "more than there are");
        }
        _ => {}
    }
    let grows = match (*waves.last()?, wave, hosts) {
        (Amount::Hosts(before), Amount::Hosts(now), _) => before < now,
        (Amount::Percent(before), Amount::Percent(now), _) => before < now,
        // A number and a share: a share of few hosts may come to the same number, and then the wave is empty and passes.
        (before, now, Some(hosts)) => before.of(hosts) <= now.of(hosts),
        (_, _, None) => true,
    };
    if grows { None } else { finding(format!("the wave {} is no larger than the one before", shown(wave)), "does not grow") }
}
