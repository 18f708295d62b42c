//! `[rollout]`: the one place where the word people have for a strategy becomes a value.

mod steps;
mod waves;

use super::codes;
use super::counters;
use super::judging;
use super::keys::Kind;
use super::listen::handover;
use super::preview::preview;
use super::reader::{Finding, Reader, quoted};
use super::run::SLOTS;
use super::users;
use super::values::shown;
use crate::name::LabelKey;
use crate::strategy::{Amount, OnFailure, Placement, Strategy, Wave};
use std::time::Duration;

/// What a word stands for, where the file says nothing else.
struct Meaning {
    word: &'static str,
    /// None: as the ports have it.
    placement: Option<Placement>,
    max_unavailable: Amount,
    parallel: Option<Amount>,
    keep_old: Duration,
    lockstep: bool,
    exclusive: bool,
    /// How it goes on is said by this key; None: it does everything at once.
    stages: Option<&'static str>,
}

const STAGES: [&str; 2] = ["rollout.waves", "rollout.steps"];

fn meaning(word: &'static str) -> Meaning {
    let rolling = Meaning {
        word,
        placement: None,
        max_unavailable: Amount::Hosts(1),
        parallel: None,
        keep_old: Duration::ZERO,
        lockstep: false,
        exclusive: false,
        stages: Some("rollout.waves"),
    };
    match word {
        "blue-green" => Meaning {
            placement: Some(Placement::SideBySide),
            max_unavailable: Amount::Hosts(0),
            parallel: Some(Amount::Percent(100)),
            keep_old: Duration::from_secs(15 * 60),
            lockstep: true,
            stages: None,
            ..rolling
        },
        "canary" => Meaning { stages: Some("rollout.steps"), ..rolling },
        "recreate" => Meaning {
            placement: Some(Placement::InPlace),
            max_unavailable: Amount::Percent(100),
            exclusive: true,
            stages: None,
            ..rolling
        },
        _ => rolling,
    }
}

/// What else the file says, as far as it can be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surroundings {
    pub(super) hosts: Option<usize>,
    pub(super) ports: Option<usize>,
    /// Whether a load balancer routes to the service.
    pub(super) balanced: bool,
}

/// The strategy.
pub(super) fn strategy(reader: &mut Reader<'_, '_>, around: Surroundings) -> Option<Strategy> {
    let means = reader.choice("rollout.strategy").map(meaning);
    let users = users::users(reader);
    let bake = reader.duration("rollout.bake", Duration::ZERO);
    let drain_deadline = reader.duration("rollout.drain", Duration::ZERO);
    let progress_deadline = reader.duration("rollout.progress_deadline", Duration::from_secs(1));
    let on_failure = reader.choice("rollout.on_failure").map(|word| match word {
        "pause" => OnFailure::Pause,
        _ => OnFailure::Revert,
    });
    let (guard, gate, max_failed) = (judging::guard(reader), judging::gate(reader), judging::max_failed(reader));
    let prober = judging::prober(reader);
    let (scrape, prometheus) = (counters::scrape(reader), counters::prometheus(reader));
    let second_person = second_person(reader);
    let Some(means) = means else {
        each_alone(reader, around);
        return None;
    };
    let placement = placement(reader, &means, around.ports);
    let max_unavailable = max_unavailable(reader, &means);
    let spread_by = spread_by(reader, &means);
    let keep_old = keep_old(reader, &means, placement, around.balanced);
    let waves = stages(reader, &means, placement, around);
    let waves = waves.and_then(|waves| approve(reader, &means, waves));
    let balanced = around.balanced || needs_balancer(reader, &means, waves.as_deref());
    if let (Some(Placement::InPlace), Some(amount), Some(hosts), false) =
        (placement, max_unavailable, around.hosts, means.exclusive)
    {
        in_place(reader, amount, hosts);
    }
    let fits = match (&users, &waves, around.hosts) {
        (Some(users), Some(waves), Some(hosts)) => users::fit(reader, users, waves, hosts),
        _ => true,
    };
    let strategy = Strategy {
        placement: placement?,
        waves: waves?,
        max_unavailable: max_unavailable?,
        parallel: means.parallel,
        spread_by: spread_by?,
        lockstep: means.lockstep,
        keep_old: keep_old?,
        exclusive: means.exclusive,
        bake: bake?,
        drain_deadline: drain_deadline?,
        progress_deadline: progress_deadline?,
        on_failure: on_failure?,
        users: users?,
        guard: judging::heeding(guard?, scrape.as_ref()?.is_some(), prometheus.as_ref()?.is_some()),
        gate: gate?,
        max_failed: max_failed?,
        prober: prober?,
        scrape: scrape?,
        prometheus: prometheus?,
        second_person: second_person?,
    };
    let proves = around.hosts.is_none_or(|hosts| can_be_proven(reader, &strategy, hosts));
    preview(reader, (balanced && fits && proves).then_some(strategy))
}

/// Reads what hangs on the strategy while nobody knows which it is: what is wrong whichever it is, is told all the same.
fn each_alone(reader: &mut Reader<'_, '_>, around: Surroundings) {
    let placement = match reader.value("rollout.placement") {
        None => None,
        Some(value) => match reader.choice("rollout.placement") {
            Some("handover") => handover(reader, value.span(), around.ports),
            Some("in-place") => Some(Placement::InPlace),
            _ => None,
        },
    };
    if let Some(value) = reader.value("rollout.max_unavailable") {
        let _ = reader.parse_amount("rollout.max_unavailable", value);
    }
    if reader.value("rollout.spread_by").is_some() {
        let _ = reader.name::<LabelKey>("rollout.spread_by");
    }
    let _ = reader.duration_or("rollout.keep_old", Duration::ZERO);
    let _ = waves::waves(reader, around.hosts);
    if reader.value("rollout.steps").is_some() {
        let _ = steps::steps(reader, placement.unwrap_or(Placement::SideBySide), around.hosts);
    }
    if reader.value("rollout.approve").is_some() {
        let _ = reader.flag("rollout.approve");
    }
}

/// Reports two settings of which one must go.
fn contradicts(reader: &mut Reader<'_, '_>, place: &'static str, what: String, label: &str, help: impl Into<String>) {
    let finding = Finding::error(codes::CONTRADICTION, reader.span(place), what);
    reader.report(finding.label(label).help(help));
}

fn placement(reader: &mut Reader<'_, '_>, means: &Meaning, ports: Option<usize>) -> Option<Placement> {
    const PLACE: &str = "rollout.placement";
    let word = |placement| if placement == Placement::SideBySide { "side-by-side" } else { "in-place" };
    let chosen = match reader.value(PLACE) {
        Some(value) => match reader.choice(PLACE)? {
            "in-place" => Placement::InPlace,
            "handover" => handover(reader, value.span(), ports)?,
            _ => Placement::SideBySide,
        },
        None => {
            let by_ports = ports.map(|ports| if ports > 1 { Placement::SideBySide } else { Placement::InPlace });
            let chosen = means.placement.or(by_ports)?;
            let listens = chosen == Placement::SideBySide && reader.value("run.listen").is_some();
            reader.note(PLACE, quoted(if listens { "handover" } else { word(chosen) }), None);
            chosen
        }
    };
    if let Some(needed) = means.placement.filter(|needed| *needed != chosen) {
        let what =
            format!("{} replaces {}, not {}", means.word, word(needed).replace('-', " "), word(chosen).replace('-', " "));
        contradicts(reader, PLACE, what, "contradicts the strategy", "leave placement out, or choose another strategy");
        return None;
    }
    if chosen == Placement::SideBySide && ports == Some(1) {
        let place = if reader.value(PLACE).is_some() { PLACE } else { "rollout.strategy" };
        let what = "side by side needs a second port: the new instance starts before the old one stops";
        let help = format!("give run.ports two to {SLOTS} ports, or replace in place");
        contradicts(reader, place, what.into(), "`run.ports` has one", help);
        return None;
    }
    Some(chosen)
}

fn max_unavailable(reader: &mut Reader<'_, '_>, means: &Meaning) -> Option<Amount> {
    const PLACE: &str = "rollout.max_unavailable";
    let Some(value) = reader.value(PLACE) else {
        reader.note(PLACE, shown(means.max_unavailable), None);
        return Some(means.max_unavailable);
    };
    let amount = reader.parse_amount(PLACE, value)?;
    reader.note(PLACE, shown(amount), Some(value.span()));
    if means.exclusive {
        let what = "recreate takes every host down before the first one starts".to_owned();
        contradicts(reader, PLACE, what, "nobody is spared", "leave max_unavailable out, or choose another strategy");
        return None;
    }
    Some(amount)
}

/// The label by which hosts are spread; inner None: none.
fn spread_by(reader: &mut Reader<'_, '_>, means: &Meaning) -> Option<Option<LabelKey>> {
    const PLACE: &str = "rollout.spread_by";
    if reader.value(PLACE).is_none() {
        return Some(None);
    }
    let label = reader.name::<LabelKey>(PLACE)?;
    if means.exclusive {
        let what = "recreate takes every host down before the first one starts".to_owned();
        contradicts(reader, PLACE, what, "nobody is spared", "leave spread_by out, or choose another strategy");
        return None;
    }
    Some(Some(label))
}

fn keep_old(reader: &mut Reader<'_, '_>, means: &Meaning, placement: Option<Placement>, balanced: bool) -> Option<Duration> {
    const PLACE: &str = "rollout.keep_old";
    let keep_old = reader.duration_or(PLACE, means.keep_old)?;
    if !balanced && !means.lockstep && !keep_old.is_zero() {
        let what = "without a load balancer nothing keeps requests from the old instance".to_owned();
        contradicts(reader, PLACE, what, "there is no [balancer]", "add [balancer], or leave keep_old out");
        return None;
    }
    if placement == Some(Placement::InPlace) && !keep_old.is_zero() {
        let what = "in place the old instance is gone before the new one starts".to_owned();
        contradicts(reader, PLACE, what, "nothing is left to keep", "give run.ports a second port, or leave keep_old out");
        return None;
    }
    Some(keep_old)
}

/// The waves, by whichever key the strategy has for them.
fn stages(
    reader: &mut Reader<'_, '_>,
    means: &Meaning,
    placement: Option<Placement>,
    around: Surroundings,
) -> Option<Vec<Wave>> {
    let foreign = STAGES.into_iter().find(|place| Some(*place) != means.stages && reader.value(place).is_some());
    if let Some(place) = foreign {
        let what = format!("{} has no {}", means.word, place.trim_start_matches("rollout."));
        let help = match means.stages {
            None => format!("{} does everything at once: leave it out", means.word),
            Some(stages) => format!("use {stages}, or choose another strategy"),
        };
        contradicts(reader, place, what, "belongs to another strategy", help);
        return None;
    }
    match means.stages {
        None => Some(vec![Wave::of(Amount::Percent(100))]),
        Some("rollout.steps") if reader.value("rollout.steps").is_none() => {
            let what = "a canary needs steps".to_owned();
            let help = "for example: steps = [\"5% for 5m\", \"25% for 5m\", \"100%\"]";
            contradicts(reader, "rollout.strategy", what, "`rollout.steps` is missing", help);
            None
        }
        Some("rollout.steps") => steps::steps(reader, placement?, around.hosts),
        Some(_) => waves::waves(reader, around.hosts).map(|waves| waves.into_iter().map(Wave::of).collect()),
    }
}

/// Where a person's word is asked for: at the switch, or before each wave but the first.
fn approve(reader: &mut Reader<'_, '_>, means: &Meaning, mut waves: Vec<Wave>) -> Option<Vec<Wave>> {
    const PLACE: &str = "rollout.approve";
    let Some(value) = reader.value(PLACE) else { return Some(waves) };
    if value.get_ref().as_bool().is_none() {
        reader.wrong_type(PLACE, Kind::Flag, value);
        return None;
    }
    if !*reader.flag(PLACE)?.get_ref() {
        return Some(waves);
    }
    let from = usize::from(!means.lockstep);
    if waves.len() <= from {
        let what = "there is nothing to approve: everything is one wave, and the deploy begins it".to_owned();
        contradicts(reader, PLACE, what, "asks for nobody's word", "give rollout.waves more than one, or leave approve out");
        return None;
    }
    waves.iter_mut().skip(from).for_each(|wave| wave.approve = true);
    Some(waves)
}

/// Whether nothing begins before another person has let it.
fn second_person(reader: &mut Reader<'_, '_>) -> Option<bool> {
    const PLACE: &str = "rollout.second_person";
    match reader.value(PLACE) {
        None => Some(false),
        Some(_) => reader.flag(PLACE).map(|flag| *flag.get_ref()),
    }
}

/// Reports a strategy that works through a load balancer, and there is none. Returns whether all is well.
fn needs_balancer(reader: &mut Reader<'_, '_>, means: &Meaning, waves: Option<&[Wave]>) -> bool {
    let shares = waves.is_some_and(|waves| waves.iter().any(|wave| wave.share.is_some()));
    let what = match (means.lockstep, shares) {
        (true, _) => "without a load balancer there is nothing to switch",
        (_, true) => "without a load balancer no share of the traffic can be sent anywhere",
        _ => return true,
    };
    contradicts(
        reader,
        "rollout.strategy",
        what.to_owned(),
        "there is no [balancer]",
        "add [balancer] with `on` and `pool`",
    );
    false
}

/// Reports a proof that can never be had: no request may fail, one is made all the time, and nobody serves for a while.
fn can_be_proven(reader: &mut Reader<'_, '_>, strategy: &Strategy, hosts: usize) -> bool {
    if strategy.prober.is_none() || strategy.max_failed != Some(0) || !strategy.interrupts(hosts) {
        return true;
    }
    let what = "no request may fail, and nobody serves while the release is replaced: every rollout would be taken back";
    let help = match strategy.exclusive {
        true => "allow in max_failed what may fail meanwhile, or leave proof.probe out",
        false => "allow in max_failed what may fail meanwhile, leave proof.probe out, or give run.ports a second port",
    };
    contradicts(reader, "proof.max_failed", what.to_owned(), "proof.probe asks all the time", help);
    false
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
            "lower max_unavailable, or give run.ports a second port and have [balancer] or run.listen lead the clients; else a deploy \
             asks, or needs --yes"
        } else {
            "give run.ports a second port and have [balancer] lead the clients, or run.listen hand the socket over; else a deploy \
             asks, or needs --yes"
        };
        reader.report(Finding::warning(codes::NOBODY_SERVES, place, what).label(label).help(help));
    }
}
