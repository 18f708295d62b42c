//! `[guard.metrics]`: which of an application's own counters speak for or against a release.

use super::codes;
use super::keys;
use super::reader::{Finding, Reader, quoted};
use crate::scrape::{Scrape, Selector};

const TABLE: &str = "guard.metrics";
const PATH: &str = "guard.metrics.path";
const REQUESTS: &str = "guard.metrics.requests";
const ERRORS: &str = "guard.metrics.errors";

/// Where they are usually found.
const USUAL: &str = "/metrics";

/// What it says; inner None: nobody reads an instance's metrics.
pub(super) fn scrape(reader: &mut Reader<'_, '_>) -> Option<Option<Scrape>> {
    if !reader.has_table(TABLE) {
        return Some(None);
    }
    let (path, requests, errors) = (path(reader), selector(reader, REQUESTS), selector(reader, ERRORS));
    let (path, requests, errors) = (path?, requests?, errors?);
    if requests == errors {
        let what = "every request would be one that failed: both are the same counter".to_owned();
        let finding = Finding::error(codes::CONTRADICTION, reader.span(ERRORS), what).label("as in requests");
        reader.report(finding.help("name what counts failures, for example 'http_requests_total{code=~\"5..\"}'"));
        return None;
    }
    Some(Some(Scrape { path, requests, errors }))
}

fn path(reader: &mut Reader<'_, '_>) -> Option<String> {
    if reader.value(PATH).is_none() {
        reader.note(PATH, quoted(USUAL), None);
        return Some(USUAL.to_owned());
    }
    let path = reader.text(PATH)?;
    let text = path.get_ref();
    if text.starts_with('/') && text.chars().all(|c| c.is_ascii_graphic() && c != '#') {
        return Some(path.into_inner());
    }
    let what = format!("{} is no path on the instance's port", quoted(text));
    let finding = Finding::error(codes::BAD_FIGURE, path.span(), what).label("cannot be asked for");
    reader.report(finding.help("write the path alone: path = \"/metrics\""));
    None
}

/// A counter. None: reported.
fn selector(reader: &mut Reader<'_, '_>, place: &'static str) -> Option<Selector> {
    if reader.value(place).is_none() {
        if !reader.is_meant(place) {
            let leaf = place.rsplit('.').next().unwrap_or(place);
            let finding = Finding::error(codes::MISSING, reader.span(place), format!("`{place}` is required"));
            let finding = finding.label(format!("`{leaf}` is missing in this table"));
            reader.report(finding.help("[guard.metrics] needs a counter of requests and one of errors"));
        }
        return None;
    }
    let Some(text) = reader.value(place).and_then(|value| value.get_ref().as_str()) else {
        let (value, key) = (reader.value(place)?, keys::find(place)?);
        reader.wrong_type(place, key.kind, value);
        return None;
    };
    let text = text.to_owned();
    reader.note(place, quoted(&text), Some(reader.span(place)));
    let selector = text.parse();
    if let Err(error) = &selector {
        let what = format!("{} names no counter: {error}", quoted(&text));
        let finding = Finding::error(codes::BAD_FIGURE, reader.span(place), what).label("cannot be looked for");
        reader.report(finding.help("write for example 'http_requests_total{code=~\"5..\"}', in single quotation marks"));
    }
    selector.ok()
}
