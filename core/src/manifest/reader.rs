//! Reads typed values by their place, notes where each came from, and collects everything that is wrong.

use super::codes;
use super::diagnostic::{Diagnostic, Severity};
use super::keys::{self, Fallback, Key, Kind};
use super::nearest::nearest;
use super::source::Source;
use super::{Origin, Setting};
use crate::name::InvalidName;
use crate::problem::Code;
use std::ops::Range;
use std::str::FromStr;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Something wrong at a place.
#[derive(Debug)]
pub(crate) struct Finding {
    severity: Severity,
    code: Code,
    span: Range<usize>,
    what: String,
    label: String,
    help: Option<String>,
}

impl Finding {
    pub(crate) fn error(code: Code, span: Range<usize>, what: impl Into<String>) -> Self {
        Self { severity: Severity::Error, code, span, what: what.into(), label: String::new(), help: None }
    }

    pub(super) fn warning(code: Code, span: Range<usize>, what: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, span, what) }
    }

    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// One file being read.
#[derive(Debug)]
pub(super) struct Reader<'t, 's> {
    source: Source<'s>,
    root: &'t DeTable<'s>,
    findings: Vec<Finding>,
    settings: Vec<Setting>,
    /// Places that something misspelt or misplaced was meant for: not reported as missing on top.
    meant: Vec<String>,
}

impl<'t, 's> Reader<'t, 's> {
    pub(super) fn new(source: Source<'s>, root: &'t DeTable<'s>) -> Self {
        Self { source, root, findings: Vec::new(), settings: Vec::new(), meant: Vec::new() }
    }

    pub(super) fn report(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Whether something was wrong so far: what else is missing may be what was meant there.
    pub(super) fn found_errors(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }

    pub(super) fn root(&self) -> &'t DeTable<'s> {
        self.root
    }

    /// The text behind a range.
    pub(super) fn raw(&self, span: &Range<usize>) -> &'s str {
        self.source.text.get(span.clone()).unwrap_or_default()
    }

    /// The value at a place, if the file holds one.
    pub(super) fn value(&self, path: &str) -> Option<&'t Spanned<DeValue<'s>>> {
        let (tables, name) = path.rsplit_once('.').map_or(("", path), |(tables, name)| (tables, name));
        self.table(tables)?.get(name)
    }

    /// Whether the file holds a table at this place.
    pub(super) fn has_table(&self, path: &str) -> bool {
        self.table(path).is_some()
    }

    fn table(&self, path: &str) -> Option<&'t DeTable<'s>> {
        path.split('.')
            .filter(|name| !name.is_empty())
            .try_fold(self.root, |table, name| table.get(name)?.get_ref().as_table())
    }

    /// Notes the value a key has, in the words of the manifest.
    pub(super) fn note(&mut self, path: &'static str, value: impl Into<String>, span: Option<Range<usize>>) {
        let origin = span.map_or(Origin::Default, |span| Origin::Manifest { line: self.source.line(span.start) });
        self.settings.push(Setting { key: path, value: value.into(), origin });
    }

    /// The place of a key: its value, or where it is missing.
    pub(super) fn span(&self, path: &str) -> Range<usize> {
        if let Some(value) = self.value(path) {
            return value.span();
        }
        let parent = path.rsplit_once('.').map_or("", |(tables, _)| tables);
        self.value(parent).filter(|value| value.get_ref().is_table()).map_or_else(|| self.source.end(), Spanned::span)
    }

    /// Notes that something wrong was meant for this place.
    pub(super) fn mean(&mut self, path: String) {
        self.meant.push(path);
    }

    /// Whether something wrong was meant for this place or for the table around it.
    pub(super) fn is_meant(&self, path: &str) -> bool {
        self.meant.iter().any(|meant| {
            path.strip_prefix(meant.as_str()).is_some_and(|rest| matches!(rest.chars().next(), None | Some('.')))
        })
    }

    /// Reports that a required key is not there.
    pub(super) fn missing(&mut self, key: &Key) {
        if self.is_meant(key.path) {
            return;
        }
        let table = key.path.rsplit_once('.').map_or("", |(table, _)| table);
        let leaf = key.path.rsplit('.').next().unwrap_or(key.path);
        let label = match table {
            "" => format!("`{leaf}` is missing"),
            _ if self.has_table(table) => format!("`{leaf}` is missing in this table"),
            _ => format!("[{table}] with `{leaf}` is missing"),
        };
        let finding = Finding::error(codes::MISSING, self.span(key.path), format!("`{}` is required", key.path));
        self.report(finding.label(label).help(format!("{} {}", key.doc, example(key))));
    }

    /// Reports a value of the wrong type.
    pub(super) fn wrong_type(&mut self, path: &str, kind: Kind, value: &Spanned<DeValue<'_>>) {
        let what = format!("`{path}` must be {}", kind.expected());
        let mut finding = Finding::error(codes::WRONG_TYPE, value.span(), what);
        finding = finding.label(format!("this is {}", article(value.get_ref().type_str())));
        if let (Kind::Duration, DeValue::Integer(number)) = (kind, value.get_ref()) {
            finding = finding.help(format!("for seconds write \"{number}s\""));
        } else if kind == Kind::Text && value.get_ref().as_array().is_none() && !value.get_ref().is_table() {
            finding = finding.help(format!("write it in quotes: \"{}\"", self.raw(&value.span())));
        }
        self.report(finding);
    }

    /// A string as it stands in the file. None: absent, or reported.
    pub(super) fn text(&mut self, path: &'static str) -> Option<Spanned<String>> {
        let text = self.plain(path)?;
        self.note(path, quoted(text.get_ref()), Some(text.span()));
        Some(text)
    }

    fn plain(&mut self, path: &str) -> Option<Spanned<String>> {
        let key = keys::find(path)?;
        match self.value(path) {
            None => {
                if key.fallback == Fallback::Required {
                    self.missing(key);
                }
                None
            }
            Some(value) => match value.get_ref() {
                DeValue::String(text) => Some(Spanned::new(value.span(), text.to_string())),
                _ => {
                    self.wrong_type(path, key.kind, value);
                    None
                }
            },
        }
    }

    /// A string that must be a name.
    pub(super) fn name<N: FromStr<Err = InvalidName>>(&mut self, path: &'static str) -> Option<N> {
        let text = self.text(path)?;
        self.parse_name(text.get_ref(), text.span())
    }

    pub(super) fn parse_name<N: FromStr<Err = InvalidName>>(&mut self, text: &str, span: Range<usize>) -> Option<N> {
        text.parse()
            .map_err(|invalid: InvalidName| {
                let what = format!("{} is not a {}", quoted(text), invalid.what);
                let finding = Finding::error(codes::BAD_NAME, span, what).label(invalid.rule);
                self.report(match spelt_otherwise::<N>(text) {
                    Some(other) => finding.help(format!("for example {}", quoted(&other))),
                    None => finding,
                });
            })
            .ok()
    }

    /// One of a key's words, or its default. None: reported, or absent without a default.
    pub(super) fn choice(&mut self, path: &'static str) -> Option<&'static str> {
        let key = keys::find(path)?;
        let Kind::OneOf(choices) = key.kind else { return None };
        if self.value(path).is_none() {
            let Fallback::Value(default) = key.fallback else { return None };
            self.note(path, quoted(default), None);
            return Some(default);
        }
        let text = self.text(path)?;
        let chosen = choices.iter().find(|choice| *choice == text.get_ref()).copied();
        if chosen.is_none() {
            let what = format!("{} is no {path}", quoted(text.get_ref()));
            let mut finding = Finding::error(codes::NOT_A_CHOICE, text.span(), what).label("not one of its words");
            if let Some(near) = nearest(&text.get_ref().to_lowercase(), choices.iter().copied()) {
                finding = finding.label(format!("did you mean \"{near}\"?"));
            }
            let known: Vec<String> = choices.iter().map(|choice| quoted(choice)).collect();
            self.report(finding.help(format!("it can be {}", known.join(", "))));
        }
        chosen
    }

    /// True or false. None: absent, or reported.
    pub(super) fn flag(&mut self, path: &'static str) -> Option<Spanned<bool>> {
        let value = self.value(path)?;
        let Some(flag) = value.get_ref().as_bool() else {
            self.wrong_type(path, Kind::Flag, value);
            return None;
        };
        self.note(path, flag.to_string(), Some(value.span()));
        Some(Spanned::new(value.span(), flag))
    }

    /// The items of a list. None: absent, or reported.
    pub(super) fn list(&mut self, path: &str) -> Option<Spanned<Vec<&'t Spanned<DeValue<'s>>>>> {
        let key = keys::find(path)?;
        let Some(value) = self.value(path) else {
            if key.fallback == Fallback::Required {
                self.missing(key);
            }
            return None;
        };
        match value.get_ref().as_array() {
            Some(items) => Some(Spanned::new(value.span(), items.iter().collect())),
            None => {
                self.wrong_type(path, key.kind, value);
                None
            }
        }
    }

    /// What was found, in the order of the file, and every setting in the order of the reference.
    pub(super) fn finish(self) -> (Vec<Diagnostic>, Vec<Setting>) {
        let Self { source, mut findings, mut settings, .. } = self;
        findings.sort_by_key(|finding| (finding.span.start, finding.severity));
        settings.sort_by_key(|setting| keys::KEYS.iter().position(|key| key.path == setting.key));
        (findings.into_iter().map(|finding| diagnostic(&source, finding)).collect(), settings)
    }
}

/// Turns a finding into what people read.
pub(crate) fn diagnostic(source: &Source<'_>, finding: Finding) -> Diagnostic {
    let place = source.place(&finding.span);
    let Finding { severity, code, what, label, help, .. } = finding;
    let path = source.path.to_string();
    let (line, column, length, source_line) = (place.line, place.column, place.length, place.source_line);
    Diagnostic { severity, code, what, path, line, column, length, source_line, label, help }
}

/// A text in the manifest's own quotes, cut where it is long.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN: usize = 80;
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

fn article(kind: &str) -> String {
    match kind.chars().next() {
        Some('a' | 'e' | 'i' | 'o' | 'u') => format!("an {kind}"),
        _ => format!("a {kind}"),
    }
}

fn example(key: &Key) -> &'static str {
    match key.path {
        "service" => "For example: service = \"shop\"",
        "hosts" => "For example: hosts = [\"web1\", \"web2\"]",
        "artifact.path" => "For example: path = \"shop-{version}.tar.zst\"",
        "run.command" => "For example: command = \"bin/shop --listen 0.0.0.0:{port}\"",
        "run.ports" => "For example: ports = [8101, 8102]",
        _ => "For example: on = [\"lb1\"]",
    }
}

/// The same name with what no name may have taken out, where that leaves one: `My Shop` is `my-shop`.
fn spelt_otherwise<N: FromStr>(text: &str) -> Option<String> {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let spelt: Vec<String> = text
        .split(|c: char| plain(c) == '-')
        .filter(|word| !word.is_empty())
        .map(|word| word.chars().map(plain).collect())
        .collect();
    Some(spelt.join("-")).filter(|spelt| spelt.parse::<N>().is_ok())
}
