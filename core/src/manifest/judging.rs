//! `[guard]`, `[gate]` and `[proof]`: what the traffic of a release may decide.

use super::codes;
use super::counters;
use super::keys::{self, Fallback, Kind};
use super::reader::{Finding, Reader, quoted};
use crate::analysis::probes::Prober;
use crate::analysis::settings::{GateSettings, GuardSettings, NotEnough, Sources};
use std::time::Duration;

/// A probe is no load test.
const SELDOM_ENOUGH: Duration = Duration::from_millis(100);

/// What `[guard]` says: it is on in every rollout.
pub(super) fn guard(reader: &mut Reader<'_, '_>) -> Option<GuardSettings> {
    let alpha = reader.figure("guard.confidence", "a share from \"50%\" to \"99.999%\"", confidence);
    let tolerance = reader.figure("guard.tolerance", "\"1.2x + 0.1%\", or one of the two", tolerance);
    let memory = memory(reader);
    let ((ratio_percent, margin_ppm), alpha_ppm) = (tolerance?, alpha?);
    Some(GuardSettings { alpha_ppm, ratio_percent, margin_ppm, memory: memory?, sources: Sources::NONE })
}

/// The same with what else the file names.
pub(super) const fn heeding(guard: GuardSettings, metrics: bool, prometheus: bool) -> GuardSettings {
    GuardSettings { sources: Sources { metrics, prometheus }, ..guard }
}

/// Whether memory that grows is judged: unless the file says no.
fn memory(reader: &mut Reader<'_, '_>) -> Option<bool> {
    const PLACE: &str = "guard.memory";
    if reader.value(PLACE).is_none() {
        reader.note(PLACE, "true".to_owned(), None);
        return Some(true);
    }
    reader.flag(PLACE).map(|flag| *flag.get_ref())
}

/// What `[gate]` says; inner None: nothing is waited for.
pub(super) fn gate(reader: &mut Reader<'_, '_>) -> Option<Option<GateSettings>> {
    if !reader.has_table("gate") {
        return Some(None);
    }
    needs_balancer(reader, "gate");
    let rule_out = reader.figure("gate.rule_out", "a share from \"+0.01%\" to \"+50%\"", regression);
    let max_wait = reader.duration("gate.max_wait", Duration::ZERO);
    let otherwise = reader.choice("gate.on_not_enough_data").map(|word| match word {
        "promote" => NotEnough::Promote,
        "revert" => NotEnough::Revert,
        _ => NotEnough::Pause,
    });
    Some(Some(GateSettings { rule_out_ppm: rule_out?, max_wait: max_wait?, on_not_enough_data: otherwise? }))
}

/// What `[proof]` says; inner None: nobody asks for proof.
pub(super) fn max_failed(reader: &mut Reader<'_, '_>) -> Option<Option<u64>> {
    const PLACE: &str = "proof.max_failed";
    let Some(value) = reader.value(PLACE) else { return Some(None) };
    needs_balancer(reader, "proof");
    let number = value.get_ref().as_integer().and_then(super::values::integer).and_then(|it| u64::try_from(it).ok());
    if number.is_none() {
        reader.wrong_type(PLACE, Kind::Count, value);
    }
    let number = number?;
    reader.note(PLACE, number.to_string(), Some(value.span()));
    Some(Some(number))
}

/// Whom `[proof]` wants to be asked all the time; inner None: nobody.
pub(super) fn prober(reader: &mut Reader<'_, '_>) -> Option<Option<Prober>> {
    const PLACE: &str = "proof.probe";
    const EVERY: &str = "proof.probe_every";
    let Some(value) = reader.value(PLACE) else {
        if reader.value(EVERY).is_some() {
            let what = "nobody is asked: there is no proof.probe";
            let finding = Finding::error(codes::CONTRADICTION, reader.span(EVERY), what).label("how often is said");
            reader.report(finding.help("name the URL in proof.probe, or leave this key out"));
            return None;
        }
        return Some(None);
    };
    let Some(text) = value.get_ref().as_str() else {
        reader.wrong_type(PLACE, Kind::Text, value);
        return None;
    };
    if counters::has_credentials(reader, PLACE, "proof", text) {
        return None;
    }
    let target = text.parse();
    if let Err(error) = &target {
        let finding = Finding::error(codes::BAD_FIGURE, value.span(), format!("{} is {error}", quoted(text)));
        reader.report(finding.label("cannot be asked").help("write for example \"http://10.0.0.9:8080/healthz\""));
    }
    reader.note(PLACE, quoted(text), Some(value.span()));
    let every = reader.duration(EVERY, SELDOM_ENOUGH);
    Some(Some(Prober { target: target.ok()?, every: every? }))
}

/// Without a load balancer nobody counts requests, and what waits for them would wait for ever.
fn needs_balancer(reader: &mut Reader<'_, '_>, table: &'static str) {
    if !reader.has_table("balancer") {
        let what = format!("[{table}] needs a [balancer]: nobody else counts requests");
        let finding = Finding::error(codes::CONTRADICTION, reader.span(table), what).label("nothing to count with");
        reader.report(finding.help("name the load balancer in [balancer], or leave this table out"));
    }
}

impl Reader<'_, '_> {
    /// A figure written as text, or the key's default. None: reported.
    fn figure<T>(&mut self, path: &'static str, expected: &str, parse: fn(&str) -> Option<T>) -> Option<T> {
        let key = keys::find(path)?;
        let Some(value) = self.value(path) else {
            let Fallback::Value(default) = key.fallback else { return None };
            self.note(path, quoted(default), None);
            return parse(default);
        };
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(path, key.kind, value);
            return None;
        };
        let figure = parse(text);
        if figure.is_none() {
            let what = format!("`{path}` cannot be {}", quoted(text));
            let finding = Finding::error(codes::BAD_FIGURE, value.span(), what).label("not such a figure");
            self.report(finding.help(format!("write {expected}")));
        } else {
            self.note(path, quoted(text), Some(value.span()));
        }
        figure
    }
}

/// Millionths that may go wrong: `99%` leaves ten thousand.
fn confidence(text: &str) -> Option<u32> {
    let share = percent(text)?;
    (500_000..=999_990).contains(&share).then(|| 1_000_000 - share)
}

/// A factor in hundredths and a share in millionths, in either order, each at most once.
fn tolerance(text: &str) -> Option<(u32, u32)> {
    let (mut ratio, mut margin) = (None, None);
    for part in text.split('+').map(str::trim) {
        match part.strip_suffix('x') {
            Some(times) if ratio.is_none() => ratio = Some(decimal(times, 2).filter(|it| (100..=10_000).contains(it))?),
            None if margin.is_none() => margin = Some(percent(part).filter(|share| *share <= 500_000)?),
            _ => return None,
        }
    }
    Some((ratio.unwrap_or(100), margin.unwrap_or(0)))
}

fn regression(text: &str) -> Option<u32> {
    let text = text.trim();
    percent(text.strip_prefix('+').unwrap_or(text)).filter(|share| (100..=500_000).contains(share))
}

/// A share in millionths.
fn percent(text: &str) -> Option<u32> {
    decimal(text.trim().strip_suffix('%')?.trim_end(), 4)
}

/// A decimal number in units of its last digit: `1.2` with 2 digits is 120.
fn decimal(text: &str, digits: usize) -> Option<u32> {
    let text = text.trim();
    let (whole, rest) = text.split_once('.').unwrap_or((text, "0"));
    let plain = |text: &str| !text.is_empty() && text.len() <= 6 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !plain(whole) || !plain(rest) || rest.len() > digits {
        return None;
    }
    let unit = 10u32.pow(u32::try_from(digits).ok()?);
    let rest: u32 = format!("{rest:0<digits$}").parse().ok()?;
    whole.parse::<u32>().ok()?.checked_mul(unit)?.checked_add(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_as_they_are_written() {
        assert_eq!([confidence("99%"), confidence("99.9 %"), confidence("95%")], [Some(10_000), Some(1_000), Some(50_000)]);
        assert_eq!(tolerance("1.2x + 0.1%"), Some((120, 1_000)));
        assert_eq!(tolerance("0.05%+2x"), Some((200, 500)));
        assert_eq!([tolerance("1.5x"), tolerance("0%")], [Some((150, 0)), Some((100, 0))]);
        assert_eq!([regression("+1%"), regression("0.5%")], [Some(10_000), Some(5_000)]);
    }

    #[test]
    fn what_is_no_figure_is_refused() {
        for bad in ["", "%", "1", "x", "100%", "49%", "99.99999%", "-1%", "1e2%", "999999999999%"] {
            assert_eq!(confidence(bad), None, "{bad}");
        }
        for bad in ["", "x", "0.9x", "1x + 2x", "1% + 1%", "1.2x +", "1.234x", "60%", "101x", "twice"] {
            assert_eq!(tolerance(bad), None, "{bad}");
        }
        for bad in ["", "+", "0%", "0.001%", "51%", "++1%", "1"] {
            assert_eq!(regression(bad), None, "{bad}");
        }
    }
}
