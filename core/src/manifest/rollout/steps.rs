//! `rollout.steps`: how much of the traffic, or how many hosts, and for how long.

use crate::fleet::split::Share;
use crate::manifest::codes;
use crate::manifest::keys::Kind;
use crate::manifest::reader::{Finding, Reader, quoted};
use crate::manifest::values::LONGEST;
use crate::strategy::{Amount, Placement, Wave};
use std::time::Duration;
use toml::Spanned;
use toml::de::DeValue;

const PLACE: &str = "rollout.steps";

/// The steps as waves: growing, and the last one is everything.
pub(super) fn steps(reader: &mut Reader<'_, '_>, placement: Placement, hosts: Option<usize>) -> Option<Vec<Wave>> {
    let list = reader.list(PLACE)?;
    let hosts = hosts?;
    let mut waves: Vec<Wave> = Vec::new();
    for item in list.get_ref() {
        let Some(text) = item.get_ref().as_str() else {
            reader.wrong_type(PLACE, Kind::Text, item);
            return None;
        };
        let Some(wave) = step(text, hosts) else {
            let what = format!("{} is no step", quoted(text));
            let finding = Finding::error(codes::BAD_AMOUNT, item.span(), what).label("a share of traffic, or hosts");
            reader.report(finding.help("write \"5% for 5m\", \"1 host for 5m\", or \"100%\""));
            return None;
        };
        if let Some(finding) = misstep(&waves, &wave, placement, item, hosts) {
            reader.report(finding);
            return None;
        }
        waves.push(wave);
    }
    if waves.last().is_none_or(|wave| wave.share.is_some() || wave.hosts.of(hosts) < hosts) {
        waves.push(Wave::of(Amount::Percent(100)));
    }
    let words: Vec<String> = list.get_ref().iter().filter_map(|item| item.get_ref().as_str()).map(quoted).collect();
    reader.note(PLACE, format!("[{}]", words.join(", ")), Some(list.span()));
    Some(waves)
}

/// `5% for 5m`, `1 host for 5m`, `100%`.
fn step(text: &str, hosts: usize) -> Option<Wave> {
    let (amount, bake) = match text.split_once(" for ") {
        None => (text, None),
        Some((amount, time)) => {
            let bake = humantime::parse_duration(time.trim()).ok().filter(|bake: &Duration| *bake <= LONGEST)?;
            (amount, Some(bake))
        }
    };
    let words: Vec<&str> = amount.split_ascii_whitespace().collect();
    let count = |number: usize| u32::try_from(number).ok().map(Amount::Hosts);
    let (hosts, share) = match words[..] {
        [number, "host" | "hosts"] => (Amount::Hosts(number.parse().ok().filter(|number| *number > 0)?), None),
        [share] => match share.parse::<Share>().ok()? {
            Share::ALL => (Amount::Percent(100), None),
            share if share == Share::default() => return None,
            share => (count(share.hosts(hosts))?, Some(share)),
        },
        _ => return None,
    };
    Some(Wave { hosts, share, bake, approve: false })
}

/// What is wrong with one more step.
fn misstep(waves: &[Wave], wave: &Wave, placement: Placement, item: &Spanned<DeValue<'_>>, hosts: usize) -> Option<Finding> {
    let error = |code, what: String, label: &str| Some(Finding::error(code, item.span(), what).label(label));
    if let Amount::Hosts(number) = wave.hosts
        && number as usize > hosts
    {
        let what = format!("a step of {number} hosts, and the service has {hosts}");
        return error(codes::BAD_AMOUNT, what, "more than there are");
    }
    let reach = |wave: &Wave| {
        let all = usize::from(crate::fleet::split::PLACES);
        wave.share.map_or(wave.hosts.of(hosts) * all / hosts.max(1), |share| usize::from(u16::from(share)))
    };
    if waves.last().is_some_and(|before| reach(before) >= reach(wave)) {
        let finding = error(codes::BAD_AMOUNT, "the step is no larger than the one before".into(), "does not grow")?;
        return Some(finding.help("steps grow: [\"5% for 5m\", \"25% for 5m\", \"100%\"]"));
    }
    if placement == Placement::InPlace && wave.share.is_some() && wave.hosts.of(hosts) >= hosts {
        let what = format!("in place this share takes all {hosts} hosts, and nobody is left for the rest of the traffic");
        let finding = error(codes::CONTRADICTION, what, "needs every host")?;
        return Some(finding.help("give run.ports a second port, or make the step smaller"));
    }
    None
}
