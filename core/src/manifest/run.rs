//! `[artifact]` and `[run]`: what is started, and how.

use super::codes;
use super::keys::{self, Kind};
use super::listen::listen;
use super::nearest::nearest;
use super::reader::{Finding, Reader, quoted};
use super::values::integer;
use super::{secret, words};
use crate::release::{Placeholders, Run, Signal, Stop};
use crate::secret::Secret;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;
use toml::Spanned;
use toml::de::DeValue;

/// The most slots a service may have on a host.
pub(super) const SLOTS: usize = 8;

/// What can only be meant for a shell.
const SHELL: [&str; 12] = ["|", "||", "&", "&&", ";", ">", ">>", "<", "<<", "2>", "2>&1", "&>"];

/// The path under which the archive of a version is found.
pub(super) fn artifact_path(reader: &mut Reader<'_, '_>) -> Option<String> {
    let path = reader.text("artifact.path")?;
    let known = placeholders(reader, &path, &["version"]);
    if known && !path.get_ref().contains("{version}") {
        let finding = Finding::error(codes::BAD_ARTIFACT, path.span(), "`artifact.path` names no version");
        reader.report(finding.label("{version} is missing").help("for example: path = \"shop-{version}.tar.zst\""));
        return None;
    }
    known.then(|| path.into_inner())
}

/// How an instance is started and stopped.
pub(super) fn run(reader: &mut Reader<'_, '_>) -> Option<Run> {
    let command = reader.text("run.command").and_then(|text| command(reader, &text, &Placeholders::NAMES));
    let user = user(reader);
    let env = env(reader);
    let secrets = secrets(reader);
    let signal = reader.choice("run.stop.signal").and_then(Signal::from_name);
    let timeout = reader.duration("run.stop.timeout", Duration::ZERO);
    let listen = listen(reader);
    let stop = Stop { signal: signal?, timeout: timeout? };
    Some(Run { command: command?, user: user?, env: env?, secrets: secrets?, stop, listen: listen? })
}

/// The words of a command, with placeholders that will be filled in on the host.
pub(super) fn command(reader: &mut Reader<'_, '_>, text: &Spanned<String>, known: &[&str]) -> Option<Vec<String>> {
    let bad = |range: Range<usize>, what: &str| Finding::error(codes::BAD_COMMAND, range, what);
    let words = match words::split(text.get_ref()) {
        Ok(words) => words,
        Err(words::Unclosed { at, mark }) => {
            let place = inside(reader, text, &(at..at + mark.len_utf8()));
            reader.report(bad(place, "the command ends inside a quotation").label(format!("this {mark} is never closed")));
            return None;
        }
    };
    if let Some((word, why)) = secret::in_command(&words) {
        let finding =
            Finding::error(codes::SECRET, inside(reader, text, &word.range), "a word of the command looks like a secret");
        reader.report(finding.label(why).help(
            "everybody on the host sees arguments: put it into a file there, name that in run.secrets, and let the program read \
             the file that DB_PASSWORD_FILE names, for a secret DB_PASSWORD",
        ));
        return None;
    }
    if words.first().is_none_or(|program| program.text.is_empty()) || text.get_ref().contains('\0') {
        reader.report(bad(text.span(), "the command names no program").label("empty"));
        return None;
    }
    if let Some(word) = words.iter().find(|word| word.bare && SHELL.contains(&word.text.as_str())) {
        let finding = bad(inside(reader, text, &word.range), "the command is run without a shell");
        let label = format!("`{}` would reach the program as an argument", word.text);
        reader.report(finding.label(label).help("put a script into the artifact, or write: sh -c '…'"));
        return None;
    }
    placeholders(reader, text, known).then(|| words.into_iter().map(|word| word.text).collect())
}

/// Reports placeholders that nobody fills in. Braces around anything but a word are left alone.
fn placeholders(reader: &mut Reader<'_, '_>, text: &Spanned<String>, known: &[&str]) -> bool {
    let mut good = true;
    for (begin, _) in text.get_ref().match_indices('{') {
        let Some(length) = text.get_ref()[begin..].find('}') else { break };
        let name = &text.get_ref()[begin + 1..begin + length];
        let word = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if !word || known.contains(&name) {
            continue;
        }
        let place = inside(reader, text, &(begin..begin + length + 1));
        let mut finding = Finding::error(codes::PLACEHOLDER, place, format!("`{{{name}}}` is no placeholder here"))
            .label("nobody fills this in");
        if let Some(near) = nearest(name, known.iter().copied()) {
            finding = finding.label(format!("did you mean {{{near}}}?"));
        }
        let known: Vec<String> = known.iter().map(|name| format!("{{{name}}}")).collect();
        reader.report(finding.help(format!("known here: {}", known.join(", "))));
        good = false;
    }
    good
}

/// The place of a part of a string: exact where the string is written without escapes, the whole string elsewhere.
fn inside(reader: &Reader<'_, '_>, text: &Spanned<String>, part: &Range<usize>) -> Range<usize> {
    let (raw, span) = (reader.raw(&text.span()), text.span());
    let verbatim = raw.len() == text.get_ref().len() + 2 && raw.get(1..raw.len() - 1) == Some(text.get_ref().as_str());
    if verbatim { span.start + 1 + part.start..span.start + 1 + part.end } else { span }
}

/// The user: none named, or a name the system could know.
fn user(reader: &mut Reader<'_, '_>) -> Option<Option<String>> {
    if reader.value("run.user").is_none() {
        return Some(None);
    }
    let user = reader.text("run.user")?;
    let name = user.get_ref();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > 32 || name.starts_with(['-', '.']) || !name.chars().all(plain) {
        let finding = Finding::error(codes::BAD_NAME, user.span(), format!("{} is not a user name", quoted(name)));
        reader.report(finding.label("letters, digits, `_`, `-` and `.`, at most 32 of them"));
        return None;
    }
    // Which user has a number differs from host to host.
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        let finding =
            Finding::error(codes::BAD_NAME, user.span(), format!("{} is a number, and no user's name", quoted(name)));
        let ask = format!("`getent passwd {name}` on a host shows whose it is");
        reader.report(finding.label("name the user").help(ask));
        return None;
    }
    Some(Some(user.into_inner()))
}

/// Environment variables: strings with plain names, and no secret among them.
fn env(reader: &mut Reader<'_, '_>) -> Option<BTreeMap<String, String>> {
    let Some(value) = reader.value("run.env") else { return Some(BTreeMap::new()) };
    let Some(table) = value.get_ref().as_table() else {
        reader.wrong_type("run.env", Kind::Variables, value);
        return None;
    };
    let mut variables = BTreeMap::new();
    for (name, value) in table {
        if let Some(text) = variable(reader, name, value) {
            variables.insert(name.get_ref().to_string(), text);
        }
    }
    let words: Vec<String> = variables.iter().map(|(name, value)| format!("{name} = {}", quoted(value))).collect();
    reader.note("run.env", format!("{{ {} }}", words.join(", ")), Some(value.span()));
    (variables.len() == table.len()).then_some(variables)
}

/// Secrets: plain names, and where each host finds them.
fn secrets(reader: &mut Reader<'_, '_>) -> Option<BTreeMap<String, Secret>> {
    let Some(value) = reader.value("run.secrets") else { return Some(BTreeMap::new()) };
    let Some(table) = value.get_ref().as_table() else {
        reader.wrong_type("run.secrets", Kind::Variables, value);
        return None;
    };
    let mut secrets = BTreeMap::new();
    for (name, value) in table {
        let key = name.get_ref();
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if key.is_empty() || key.len() > 64 || key.starts_with(|c: char| c.is_ascii_digit()) || !key.chars().all(plain) {
            let what = format!("{} cannot be the name of a secret", quoted(key));
            let finding = Finding::error(codes::BAD_ENV, name.span(), what);
            reader.report(finding.label("it becomes a file's name: letters, digits and `_`, no digit first"));
            continue;
        }
        match value.get_ref().as_str().map(str::parse::<Secret>) {
            Some(Ok(secret)) => drop(secrets.insert(key.to_string(), secret)),
            Some(Err(error)) => {
                let finding = Finding::error(codes::BAD_SECRET, value.span(), format!("{key} is no reference to a secret"));
                reader.report(
                    finding
                        .label(error.to_string())
                        .help(format!("for example: {key} = \"file:/etc/credstore/shop.{key}\"")),
                );
            }
            None => reader.wrong_type(&format!("run.secrets.{key}"), Kind::Text, value),
        }
    }
    let words: Vec<String> =
        secrets.iter().map(|(name, secret)| format!("{name} = {}", quoted(&secret.to_string()))).collect();
    reader.note("run.secrets", format!("{{ {} }}", words.join(", ")), Some(value.span()));
    (secrets.len() == table.len()).then_some(secrets)
}

fn variable(
    reader: &mut Reader<'_, '_>,
    name: &Spanned<std::borrow::Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
) -> Option<String> {
    let key = name.get_ref();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if key.is_empty() || key.starts_with(|c: char| c.is_ascii_digit()) || !key.chars().all(plain) {
        let what = format!("{} cannot be the name of an environment variable", quoted(key));
        reader.report(Finding::error(codes::BAD_ENV, name.span(), what).label("letters, digits and `_`, no digit first"));
        return None;
    }
    let Some(text) = value.get_ref().as_str() else {
        reader.wrong_type(&format!("run.env.{key}"), Kind::Text, value);
        return None;
    };
    if text.contains('\0') {
        let finding = Finding::error(codes::BAD_ENV, value.span(), format!("the value of {key} contains NUL"));
        reader.report(finding.label("no environment can hold this"));
        return None;
    }
    if let Some(why) = secret::suspicion(key, text) {
        let finding = Finding::error(codes::SECRET, value.span(), format!("{key} looks like a secret")).label(why);
        reader.report(finding.help(format!(
            "put it into a file on the hosts and name that file in run.secrets: {key} = \"file:/etc/credstore/SERVICE.NAME\""
        )));
        return None;
    }
    if let Some(placeholder) = Placeholders::NAMES.iter().find(|name| text.contains(&format!("{{{name}}}"))) {
        let what = format!("`run.env` does not fill in {{{placeholder}}}");
        let finding = Finding::error(codes::PLACEHOLDER, value.span(), what).label("would reach the program as it stands");
        reader.report(finding.help("placeholders work in run.command: pass it as an argument"));
        return None;
    }
    Some(text.to_string())
}

/// The ports, one a slot.
pub(super) fn ports(reader: &mut Reader<'_, '_>) -> Option<Vec<u16>> {
    const PLACE: &str = "run.ports";
    if let Some(value) = reader.value(PLACE)
        && let DeValue::Integer(number) = value.get_ref()
    {
        let finding = Finding::error(codes::WRONG_TYPE, value.span(), "`run.ports` must be a list of ports");
        reader.report(finding.label("this is one number").help(format!("write [{number}]")));
        return None;
    }
    let list = reader.list(PLACE)?;
    let items = list.get_ref();
    if items.is_empty() || items.len() > SLOTS {
        let what = format!("a service has 1 to {SLOTS} ports on a host, not {}", items.len());
        let doc = keys::find(PLACE).map(|key| key.doc).unwrap_or_default();
        reader.report(Finding::error(codes::BAD_PORT, list.span(), what).label("one slot a port").help(doc));
        return None;
    }
    let mut ports = Vec::new();
    for item in items {
        let Some(port) = port(reader, item) else { continue };
        if ports.contains(&port) {
            reader.duplicate(PLACE, &port.to_string(), item.span());
        } else {
            ports.push(port);
        }
    }
    reader.note(PLACE, format!("{ports:?}"), Some(list.span()));
    (ports.len() == items.len()).then_some(ports)
}

fn port(reader: &mut Reader<'_, '_>, item: &Spanned<DeValue<'_>>) -> Option<u16> {
    let DeValue::Integer(number) = item.get_ref() else {
        let finding = Finding::error(codes::WRONG_TYPE, item.span(), "a port is an integer");
        reader.report(finding.label(format!("this is of type {}", item.get_ref().type_str())));
        return None;
    };
    let port = integer(number).and_then(|number| u16::try_from(number).ok()).filter(|port| *port > 0);
    if port.is_none() {
        let what = format!("{} is not a port", reader.raw(&item.span()));
        reader.report(Finding::error(codes::BAD_PORT, item.span(), what).label("1 to 65535"));
    }
    port
}
