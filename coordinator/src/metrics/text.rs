//! Prometheus' text format, and nothing in it that grows without bound: no release, rollout or person is a label.

use std::collections::BTreeMap;
use std::fmt::Write;

/// What a family's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    /// Only ever grows while what counts lives; its name ends in `_total`.
    Counter,
}

/// Families of samples, each written once with its help.
#[derive(Debug, Default)]
pub(super) struct Exposition {
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
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &'static str) -> &mut Self {
        self.families.entry(name).or_insert(Family { kind, help, samples: String::new() });
        self
    }

    /// Adds a sample to a family that was announced.
    pub(super) fn sample(&mut self, name: &'static str, labels: &[(&str, &str)], value: f64) -> &mut Self {
        let Some(family) = self.families.get_mut(name) else { return self };
        let labels: Vec<String> = labels.iter().map(|(label, text)| format!("{label}=\"{}\"", escaped(text))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        // Writing to a string cannot fail.
        let _ = writeln!(family.samples, "{name}{labels} {value}");
        self
    }

    #[must_use]
    pub(super) fn text(&self) -> String {
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

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
