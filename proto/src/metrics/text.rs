//! Prometheus' text format, and nothing in it that grows without bound: no release, rollout or person is a label.

use std::collections::BTreeMap;
use std::fmt::Write;

/// What a family's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only ever grows while what counts lives; its name ends in `_total`.
    Counter,
}

/// Families of samples, each written once with its help.
#[derive(Debug, Default)]
pub struct Exposition {
    families: BTreeMap<&'static str, Family>,
}

#[derive(Debug)]
struct Family {
    kind: Kind,
    help: &'static str,
    samples: String,
}

impl Exposition {
    /// Announces a family, so that it is there even while it has no samples.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &'static str) -> &mut Self {
        self.families.entry(name).or_insert(Family { kind, help, samples: String::new() });
        self
    }

    /// Adds a sample to a family that was announced.
    pub fn sample(&mut self, name: &'static str, labels: &[(&str, &str)], value: f64) -> &mut Self {
        let Some(family) = self.families.get_mut(name) else { return self };
        let labels: Vec<String> = labels.iter().map(|(label, text)| format!("{label}=\"{}\"", escaped(text))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        // Writing to a string cannot fail.
        let _ = writeln!(family.samples, "{name}{labels} {value}");
        self
    }

    /// Everything, as it goes over the wire.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (name, Family { kind, help, samples }) in &self.families {
            let kind = match kind {
                Kind::Gauge => "gauge",
                Kind::Counter => "counter",
            };
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{samples}");
        }
        text
    }
}

/// A yes or no as a number.
#[must_use]
pub const fn flag(holds: bool) -> f64 {
    if holds { 1.0 } else { 0.0 }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
