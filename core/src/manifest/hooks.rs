//! `[hooks]`: what is run beside the instances.

use super::codes;
use super::reader::{Finding, Reader};
use super::run;
use crate::hook::{Hook, Hooks, Point};
use std::time::Duration;

/// Shorter is no time to do anything in.
const SHORTEST: Duration = Duration::from_secs(1);

/// The places of one hook's keys: the table of keys knows nothing but whole names.
struct Places {
    point: Point,
    table: &'static str,
    command: &'static str,
    timeout: &'static str,
}

macro_rules! places {
    ($($point:ident $word:literal)*) => {
        [$(Places {
            point: Point::$point,
            table: concat!("hooks.", $word),
            command: concat!("hooks.", $word, ".command"),
            timeout: concat!("hooks.", $word, ".timeout"),
        }),*]
    };
}

const PLACES: [Places; 5] = places! {
    BeforeRollout "before_rollout"
    Migrate "migrate"
    BeforeDrain "before_drain"
    AfterEnroll "after_enroll"
    AfterRollout "after_rollout"
};

/// The hooks; none where the file has none.
pub(super) fn hooks(reader: &mut Reader<'_, '_>) -> Option<Hooks> {
    let mut hooks = Hooks::default();
    let mut good = true;
    for places in PLACES {
        if reader.value(places.table).is_none() {
            continue;
        }
        match hook(reader, &places) {
            Some(hook) => drop(hooks.0.insert(places.point, hook)),
            None => good = false,
        }
    }
    good.then_some(hooks)
}

fn hook(reader: &mut Reader<'_, '_>, places: &Places) -> Option<Hook> {
    const WAY: &str = "hooks.migrate.no_way_back";
    // What is no table was reported as that.
    if !reader.has_table(places.table) {
        return None;
    }
    let timeout = reader.duration(places.timeout, SHORTEST);
    let is_flagged = places.point == Point::Migrate && reader.value(WAY).is_some();
    let no_way_back = if is_flagged { reader.flag(WAY).map(|flag| *flag.get_ref()) } else { Some(false) };
    let Some(text) = reader.text(places.command) else {
        if reader.value(places.command).is_none() && !reader.is_meant(places.command) {
            let finding = Finding::error(codes::MISSING, reader.span(places.table), "this hook has no command");
            let word = places.point.word();
            reader.report(
                finding.label("`command` is missing").help(format!("for example: {word} = {{ command = \"bin/{word}\" }}")),
            );
        }
        return None;
    };
    let command = run::command(reader, &text, places.point.placeholders());
    Some(Hook { command: command?, timeout: timeout?, no_way_back: no_way_back? })
}
