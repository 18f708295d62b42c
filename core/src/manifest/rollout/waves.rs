//! `rollout.waves`: how many hosts at a time.

use crate::manifest::codes;
use crate::manifest::keys::{self, Fallback};
use crate::manifest::reader::{Finding, Reader};
use crate::manifest::values::shown;
use crate::strategy::Amount;
use toml::Spanned;
use toml::de::DeValue;

/// The waves: cumulative, growing, and the last one reaches every host.
pub(super) fn waves(reader: &mut Reader<'_, '_>, hosts: Option<usize>) -> Option<Vec<Amount>> {
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
