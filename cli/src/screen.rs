//! Where a followed rollout is shown: a frame redrawn in place, a line per change, or an event per line of JSON.

use crate::output::{Format, Output, Stream};
use crate::render::audit::when;
use crate::render::changes::{Change, changes, still};
use crate::render::frame::{Drawing, frame};
use crate::render::live::{Live, columns};
use crate::render::page::{Line, Page, Tone};
use crate::render::units::clock;
use baton_proto::v1::ServiceView;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Long enough for a rate to mean something, short enough to follow.
const RATE_OVER: Duration = Duration::from_secs(2);

/// Pipelines kill what says nothing for some minutes.
const SIGN_OF_LIFE: Duration = Duration::from_secs(60);

/// Between two frames.
const REDRAW: Duration = Duration::from_millis(50);

/// What a screen shows, and where.
#[derive(Debug)]
pub struct Screen<'a> {
    output: &'a Output,
    stream: &'a Stream,
    kind: Kind,
    shown: Option<ServiceView>,
    seen_at: Instant,
    said_at: Instant,
    drawn_at: Option<Instant>,
    rates: Rates,
}

#[derive(Debug)]
enum Kind {
    Frame(Live),
    Lines,
    Events,
    Silent,
}

/// A change with its time, as a line of `--json-lines`.
#[derive(Serialize)]
struct Event<'a> {
    time: String,
    #[serde(flatten)]
    change: &'a Change,
}

impl<'a> Screen<'a> {
    /// For a command whose answer is the outcome: what happens until then goes to stderr.
    #[must_use]
    pub fn of_progress(output: &'a Output) -> Self {
        Self::on(output, output.progress())
    }

    /// For a command whose answer is what happens.
    #[must_use]
    pub fn of_answer(output: &'a Output) -> Self {
        let stream = if output.is_json() { output.progress() } else { output.answers() };
        Self::on(output, stream)
    }

    /// Shows nothing.
    #[must_use]
    pub fn silent(output: &'a Output) -> Self {
        Self { kind: Kind::Silent, ..Self::on(output, output.progress()) }
    }

    fn on(output: &'a Output, stream: &'a Stream) -> Self {
        let kind = match output.format {
            Format::JsonLines => Kind::Events,
            _ if output.redraws(stream) => Kind::Frame(Live::default()),
            _ => Kind::Lines,
        };
        let now = Instant::now();
        Self { output, stream, kind, shown: None, seen_at: now, said_at: now, drawn_at: None, rates: Rates::default() }
    }

    /// Whether what happens goes to stdout.
    #[must_use]
    pub fn answers(&self) -> bool {
        matches!(self.kind, Kind::Events) || std::ptr::eq(self.stream, self.output.answers())
    }

    /// How often [`Screen::draw`] wants to be called.
    #[must_use]
    pub const fn tick(&self) -> Duration {
        Duration::from_millis(100)
    }

    /// Shows the next view.
    pub fn view(&mut self, service: &ServiceView) {
        let now = Instant::now();
        self.rates.observe(service, now);
        self.seen_at = now;
        if !matches!(self.kind, Kind::Frame(_)) {
            for change in changes(self.shown.as_ref(), service) {
                self.say(&change);
            }
        }
        self.shown = Some(service.clone());
        // Views may come a hundred a second; eyes and terminals are slower.
        if self.drawn_at.is_none_or(|drawn| drawn.elapsed() >= REDRAW) {
            self.draw();
        }
    }

    /// Lets time go on: a frame's clocks, or a sign of life where nothing changed for a minute.
    pub fn draw(&mut self) {
        let Some(service) = &self.shown else { return };
        let since_view_ms = u64::try_from(self.seen_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        if let Kind::Frame(live) = &mut self.kind {
            self.drawn_at = Some(Instant::now());
            let drawing = Drawing { columns: Some(columns()), ..drawing(self.output, &self.rates, since_view_ms) };
            live.draw(self.stream, &frame(service, &drawing));
        } else if self.said_at.elapsed() >= SIGN_OF_LIFE {
            let change = still(service, since_view_ms);
            self.say(&change);
        }
    }

    /// Says something that is no change of the rollout. Always to stderr.
    pub fn notice(&mut self, text: &str) {
        if let Kind::Frame(live) = &mut self.kind {
            live.clear(self.stream);
        }
        self.output.note(&Page(vec![Line::default().span(Tone::Quiet, format!("{} ", now())).plain(text)]));
        self.draw();
    }

    /// Leaves the last frame as it is, whole.
    pub fn finish(&mut self) {
        if let (Kind::Frame(live), Some(service)) = (&mut self.kind, &self.shown) {
            let drawing = Drawing { columns: Some(columns()), ..drawing(self.output, &self.rates, 0) };
            live.finish(self.stream, &frame(service, &drawing));
        }
    }

    fn say(&mut self, change: &Change) {
        self.said_at = Instant::now();
        match self.kind {
            Kind::Lines => {
                let mut line = Line::default().span(Tone::Quiet, format!("{} ", now()));
                line.0.extend(change.line().0);
                self.stream.page(&Page(vec![line]));
            }
            Kind::Events => self.output.json(&Event { time: today(), change }),
            Kind::Frame(_) | Kind::Silent => {}
        }
    }
}

fn drawing(output: &Output, rates: &Rates, since_view_ms: u64) -> Drawing {
    Drawing { plain: output.plain, columns: None, since_view_ms, rates: rates.known.clone() }
}

fn now() -> String {
    clock(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// The same with its date, for logs of many days: `2026-11-22T12:04:12Z`.
fn today() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    when(i64::try_from(since.as_secs()).unwrap_or(i64::MAX)).replace(' ', "T")
}

/// Requests a second by host, from counters some seconds apart.
#[derive(Debug, Default)]
struct Rates {
    since: BTreeMap<String, (Instant, u64)>,
    known: BTreeMap<String, f64>,
}

impl Rates {
    fn observe(&mut self, service: &ServiceView, now: Instant) {
        for host in &service.hosts {
            let (then, before) = *self.since.entry(host.host.clone()).or_insert((now, host.requests));
            let over = now - then;
            match host.requests.checked_sub(before) {
                None => {
                    self.known.remove(&host.host);
                }
                Some(_) if over < RATE_OVER => continue,
                Some(requests) => {
                    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
                    self.known.insert(host.host.clone(), requests as f64 / over.as_secs_f64());
                }
            }
            self.since.insert(host.host.clone(), (now, host.requests));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Rates;
    use crate::render::example;
    use std::time::{Duration, Instant};

    #[test]
    fn a_rate_is_said_only_when_two_counters_allow_it() {
        let mut rates = Rates::default();
        let mut service = example::service();
        let start = Instant::now();
        rates.observe(&service, start);
        service.hosts[0].requests += 5;
        rates.observe(&service, start + Duration::from_secs(1));
        assert!(rates.known.is_empty(), "one second is too short");
        service.hosts[0].requests += 35;
        rates.observe(&service, start + Duration::from_secs(4));
        assert!((rates.known["web2"] - 10.0).abs() < 1e-9);
        service.hosts[0].requests = 3;
        rates.observe(&service, start + Duration::from_secs(8));
        assert!(!rates.known.contains_key("web2"), "a counter that shrank says nothing");
    }
}
