//! `[health]`: how an instance shows that it is ready.

use super::codes;
use super::reader::{Finding, Reader};
use super::run;
use crate::release::{Health, Placeholders, Probe};
use std::ops::Range;
use std::time::Duration;

/// Probing more often than this would be load and no knowledge.
const FASTEST: Duration = Duration::from_millis(10);

/// The probe and its times.
pub(super) fn health(reader: &mut Reader<'_, '_>) -> Option<Health> {
    let probe = probe(reader);
    let interval = reader.duration("health.interval", FASTEST);
    let timeout = reader.duration("health.timeout", FASTEST);
    let healthy_for = reader.duration("health.healthy_for", Duration::ZERO);
    let start_timeout = reader.duration("health.start_timeout", FASTEST);
    Some(Health {
        probe: probe?,
        interval: interval?,
        timeout: timeout?,
        healthy_for: healthy_for?,
        start_timeout: start_timeout?,
    })
}

fn probe(reader: &mut Reader<'_, '_>) -> Option<Probe> {
    let named: Vec<&str> =
        ["health.http", "health.tcp", "health.exec"].into_iter().filter(|path| reader.value(path).is_some()).collect();
    let probes = (http(reader), tcp(reader), exec(reader));
    match named.as_slice() {
        [_] => probes.0.or(probes.1).or(probes.2),
        [] if reader.is_meant("health.http") || reader.is_meant("health.tcp") || reader.is_meant("health.exec") => None,
        [] => {
            let label = if reader.has_table("health") { "no probe in this table" } else { "[health] is missing" };
            let finding =
                Finding::error(codes::NO_PROBE, reader.span("health.http"), "nothing says when the service is ready");
            reader.report(
                finding.label(label).help("[health] needs one of: http = \"/healthz\", tcp = true, exec = \"bin/check\""),
            );
            None
        }
        [_, second, ..] => {
            let what = format!("{} are probes: one decides", named.join(" and "));
            let finding = Finding::error(codes::NO_PROBE, reader.span(second), what).label("a second probe");
            reader.report(finding.help("keep one; an exec probe can ask several questions"));
            None
        }
    }
}

fn http(reader: &mut Reader<'_, '_>) -> Option<Probe> {
    reader.value("health.http")?;
    let path = reader.text("health.http")?;
    let text = path.get_ref();
    let bad =
        |range: Range<usize>| Finding::error(codes::NO_PROBE, range, "`health.http` must be a path on the instance's port");
    if text.contains("://") {
        reader.report(bad(path.span()).label("this is a whole URL").help("write the path alone: http = \"/healthz\""));
        return None;
    }
    if !text.starts_with('/') {
        reader.report(bad(path.span()).label("a path begins with `/`"));
        return None;
    }
    if !text.chars().all(|c| c.is_ascii_graphic()) {
        reader.report(bad(path.span()).label("only visible ASCII characters: encode the others with %"));
        return None;
    }
    Some(Probe::Http { path: path.into_inner().into() })
}

fn tcp(reader: &mut Reader<'_, '_>) -> Option<Probe> {
    let flag = reader.flag("health.tcp")?;
    if !flag.get_ref() {
        let finding = Finding::error(codes::NO_PROBE, flag.span(), "`health.tcp = false` asks for nothing");
        reader.report(finding.label("leave it out, or write true"));
    }
    flag.get_ref().then_some(Probe::Tcp)
}

fn exec(reader: &mut Reader<'_, '_>) -> Option<Probe> {
    reader.value("health.exec")?;
    let text = reader.text("health.exec")?;
    run::command(reader, &text, &Placeholders::NAMES).map(|command| Probe::Exec { command })
}
