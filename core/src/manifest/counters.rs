//! `[guard.metrics]` and `[guard.prometheus]`: who counts requests beside the load balancers.

use super::codes;
use super::keys;
use super::reader::{Finding, Reader, quoted};
use crate::analysis::probes::Target;
use crate::prometheus::Prometheus;
use crate::scrape::Scrape;
use std::fmt::Display;
use std::str::FromStr;

/// Where an instance's metrics are usually found.
const USUAL: &str = "/metrics";

/// One of the two tables.
struct Table {
    name: &'static str,
    requests: &'static str,
    errors: &'static str,
    /// What it needs,
    needs: &'static str,
    /// what each of the two is, where it is wrong,
    is_wrong: &'static str,
    /// and what could stand there instead.
    example: &'static str,
}

const METRICS: Table = Table {
    name: "guard.metrics",
    requests: "guard.metrics.requests",
    errors: "guard.metrics.errors",
    needs: "[guard.metrics] needs a counter of requests and one of errors",
    is_wrong: "names no counter",
    example: "write for example 'http_requests_total{code=~\"5..\"}', in single quotation marks",
};

const PROMETHEUS: Table = Table {
    name: "guard.prometheus",
    requests: "guard.prometheus.requests",
    errors: "guard.prometheus.errors",
    needs: "[guard.prometheus] needs a url, a query for requests and one for errors",
    is_wrong: "is no query for counters of one release",
    example: "write for example 'http_requests_total{job=\"shop\",version=\"{version}\"}', in single quotation marks",
};

/// Where the instances' own metrics are found; inner None: nobody reads them.
pub(super) fn scrape(reader: &mut Reader<'_, '_>) -> Option<Option<Scrape>> {
    if !reader.has_table(METRICS.name) {
        return Some(None);
    }
    let (path, counters) = (path(reader), pair(reader, &METRICS));
    let (path, (requests, errors)) = (path?, counters?);
    Some(Some(Scrape { path, requests, errors }))
}

/// Which Prometheus is asked, and what; inner None: none is.
pub(super) fn prometheus(reader: &mut Reader<'_, '_>) -> Option<Option<Prometheus>> {
    if !reader.has_table(PROMETHEUS.name) {
        return Some(None);
    }
    let (url, queries) = (url(reader), pair(reader, &PROMETHEUS));
    let (url, (requests, errors)) = (url?, queries?);
    Some(Some(Prometheus { url, requests, errors }))
}

fn path(reader: &mut Reader<'_, '_>) -> Option<String> {
    const PLACE: &str = "guard.metrics.path";
    if reader.value(PLACE).is_none() {
        reader.note(PLACE, quoted(USUAL), None);
        return Some(USUAL.to_owned());
    }
    let path = reader.text(PLACE)?;
    let text = path.get_ref();
    if text.starts_with('/') && text.chars().all(|c| c.is_ascii_graphic() && c != '#') {
        return Some(path.into_inner());
    }
    let what = format!("{} is no path on the instance's port", quoted(text));
    let finding = Finding::error(codes::BAD_FIGURE, path.span(), what).label("cannot be asked for");
    reader.report(finding.help("write the path alone: path = \"/metrics\""));
    None
}

fn url(reader: &mut Reader<'_, '_>) -> Option<Target> {
    const PLACE: &str = "guard.prometheus.url";
    let text = present(reader, PLACE, PROMETHEUS.needs)?;
    if has_credentials(reader, PLACE, PROMETHEUS.name, &text) {
        return None;
    }
    reader.note(PLACE, quoted(&text), Some(reader.span(PLACE)));
    let target = text.parse().ok().filter(|target: &Target| !target.path().contains('?'));
    if target.is_none() {
        let what = format!("{} is not a URL of the form http://HOST:PORT", quoted(&text));
        let finding = Finding::error(codes::BAD_FIGURE, reader.span(PLACE), what).label("cannot be asked");
        reader.report(finding.help("write for example \"http://10.0.0.9:9090\", without /api/v1/query"));
    }
    target
}

/// Reports a URL that says who asks, or with which password.
pub(super) fn has_credentials(reader: &mut Reader<'_, '_>, place: &str, table: &str, text: &str) -> bool {
    let authority = text.split_once("://").map_or(text, |(_, rest)| rest).split(['/', '?', '#']).next();
    let has = authority.is_some_and(|authority| authority.contains('@'));
    if has {
        // The line itself is not shown: it may hold a secret.
        let what = format!("`{place}` has a name or a password in it, and this file is read by many");
        let finding = Finding::error(codes::BAD_FIGURE, reader.span(table), what).label("in this table");
        reader.report(finding.help("let the network say who may ask there, and write the URL without them"));
    }
    has
}

/// What counts requests and what counts errors, which must not be the same. None: reported.
fn pair<T>(reader: &mut Reader<'_, '_>, table: &Table) -> Option<(T, T)>
where
    T: FromStr<Err: Display> + PartialEq,
{
    let (requests, errors) = (counter(reader, table.requests, table), counter(reader, table.errors, table));
    let (requests, errors) = (requests?, errors?);
    if requests == errors {
        let what = "every request would be one that failed: both are the same counter";
        let finding = Finding::error(codes::CONTRADICTION, reader.span(table.errors), what).label("as in requests");
        reader.report(finding.help("name what counts failures, for example 'http_requests_total{code=~\"5..\"}'"));
        return None;
    }
    Some((requests, errors))
}

fn counter<T: FromStr<Err: Display>>(reader: &mut Reader<'_, '_>, place: &'static str, table: &Table) -> Option<T> {
    let text = present(reader, place, table.needs)?;
    reader.note(place, quoted(&text), Some(reader.span(place)));
    text.parse()
        .map_err(|error| {
            let what = format!("{} {}: {error}", quoted(&text), table.is_wrong);
            let finding = Finding::error(codes::BAD_FIGURE, reader.span(place), what).label("cannot be looked for");
            reader.report(finding.help(table.example));
        })
        .ok()
}

/// A string that has to be there once its table is. None: reported.
fn present(reader: &mut Reader<'_, '_>, place: &'static str, needs: &'static str) -> Option<String> {
    let Some(value) = reader.value(place) else {
        if !reader.is_meant(place) {
            let leaf = place.rsplit('.').next().unwrap_or(place);
            let finding = Finding::error(codes::MISSING, reader.span(place), format!("`{place}` is required"));
            reader.report(finding.label(format!("`{leaf}` is missing in this table")).help(needs));
        }
        return None;
    };
    let Some(text) = value.get_ref().as_str() else {
        reader.wrong_type(place, keys::find(place)?.kind, value);
        return None;
    };
    Some(text.to_owned())
}
