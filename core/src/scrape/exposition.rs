//! Prometheus' text format (exposition formats, version 0.0.4), as far as a sum needs it: names, labels and values.

use std::borrow::Cow;

type Labels<'t> = Vec<(&'t str, Cow<'t, str>)>;

/// One line of a page. The labels are in the order they stand in.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample<'t> {
    pub(super) name: &'t str,
    pub(super) labels: Labels<'t>,
    pub(super) value: f64,
}

impl Sample<'_> {
    /// A label's value; one that is not there is an empty one.
    pub(super) fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(label, _)| *label == name).map_or("", |(_, value)| value)
    }
}

/// Every sample of a page. One line that is none makes the whole page one that cannot be believed: it is something else.
pub(super) fn samples(page: &str) -> Result<Vec<Sample<'_>>, String> {
    let mut samples = Vec::new();
    for (index, line) in page.lines().enumerate() {
        let line = line.trim_matches([' ', '\t', '\r']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let sample = sample(line).ok_or_else(|| format!("line {} of the page is no metric", index + 1))?;
        samples.push(sample);
    }
    if samples.is_empty() { Err("the page has no metrics".to_owned()) } else { Ok(samples) }
}

/// `name{label="value",…} value [timestamp]`, and in newer pages an exemplar after ` # `.
fn sample(line: &str) -> Option<Sample<'_>> {
    let end = line.find(|c: char| !is_name(c)).filter(|end| *end > 0)?;
    let (name, rest) = line.split_at(end);
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let rest = rest.trim_start();
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let rest = rest.split(" # ").next().unwrap_or_default();
    let mut words = rest.split_ascii_whitespace();
    let value = number(words.next()?)?;
    let stamped = words.next().is_none_or(|stamp| stamp.parse::<f64>().is_ok());
    (stamped && words.next().is_none()).then_some(Sample { name, labels, value })
}

/// Everything between the braces, and what comes after them.
fn labels(text: &str) -> Option<(Labels<'_>, &str)> {
    let (mut labels, mut rest) = (Vec::new(), text.trim_start());
    loop {
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, after) = rest.split_once('=')?;
        let name = name.trim_end();
        if name.is_empty() || !name.chars().all(is_name) {
            return None;
        }
        let (value, after) = quoted(after.trim_start().strip_prefix('"')?)?;
        labels.push((name, value));
        rest = after.trim_start();
        rest = match rest.strip_prefix(',') {
            Some(rest) => rest.trim_start(),
            None if rest.starts_with('}') => rest,
            None => return None,
        };
    }
}

/// A value up to its quotation mark, and what comes after that.
pub(super) fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    let mut begun = 0;
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => {
                let (last, after) = (text.get(begun..at)?, text.get(at + 1..)?);
                let whole = if value.is_empty() { Cow::Borrowed(last) } else { Cow::Owned(value + last) };
                return Some((whole, after));
            }
            '\\' => {
                value.push_str(text.get(begun..at)?);
                let (at, escaped) = characters.next()?;
                match escaped {
                    'n' => value.push('\n'),
                    // Backslash and quotation mark, and what nobody escapes.
                    other => value.push(other),
                }
                begun = at + escaped.len_utf8();
            }
            _ => {}
        }
    }
    None
}

/// As Go's `ParseFloat` reads it, which is what the format says.
fn number(word: &str) -> Option<f64> {
    let plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    plain.then(|| word.parse().ok()).flatten()
}

fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | ':')
}
