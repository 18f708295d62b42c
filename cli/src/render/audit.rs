//! The audit log, as people read it.

use super::page::{Line, Page, Tone};
use super::table::Table;
use super::units::{clock, counted};
use crate::export::Checked;
use baton_proto::v1::{AuditEntry, AuditLoss, AuditVerdict};
use serde_json::Value;
use std::time::Duration;

/// Entries as rows; what a command changed stands in `--json` and in an export.
#[must_use]
pub fn entries(entries: &[AuditEntry]) -> Page {
    if entries.is_empty() {
        let mut page = Page::new();
        page.text("nothing was asked for yet");
        return page;
    }
    let mut table = Table::new(&["ENTRY", "WHEN", "WHO", "FROM", "CALL", "ABOUT", "OUTCOME"]);
    for entry in entries {
        let fields = fields(entry);
        let field = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
        let outcome = match fields.get("refused").and_then(Value::as_str) {
            Some(refused) => Line::default().span(Tone::Bad, "refused ").plain(refused),
            None => Line::default().span(Tone::Good, "accepted"),
        };
        table.row(vec![
            Line::of(entry.number.to_string()),
            Line::of(when(entry.at_seconds)),
            Line::of(field("who")),
            Line::of(field("from")),
            Line::of(field("call")),
            Line::of(field("about")),
            outcome,
        ]);
    }
    table.page()
}

/// What stands in an entry; one that was damaged says so instead of vanishing.
#[must_use]
pub fn fields(entry: &AuditEntry) -> Value {
    serde_json::from_str(&entry.text)
        .unwrap_or_else(|_| serde_json::json!({ "who": "?", "refused": "this entry cannot be read" }))
}

/// Whether an entry says that a host was removed.
#[must_use]
pub fn removes(entry: &AuditEntry, host: &str) -> bool {
    let fields = fields(entry);
    fields["call"] == "Control/RemoveHost" && fields["about"] == host && fields["refused"].is_null()
}

/// `2026-11-22 12:04:12Z by admin/ana`.
#[must_use]
pub fn when_and_who(entry: &AuditEntry) -> String {
    format!("{} by {}", when(entry.at_seconds), fields(entry)["who"].as_str().unwrap_or("?"))
}

#[must_use]
pub fn verdict(verdict: &AuditVerdict) -> Page {
    let mut page = Page::new();
    for fault in &verdict.faults {
        page.line(Line::default().span(Tone::Bad, format!("entry {}: ", fault.number)).plain(fault.what.as_str()));
    }
    let witnesses = match verdict.witnesses.as_slice() {
        [] => "no agent has said yet since it connected what it remembers of it".to_owned(),
        witnesses => format!("compared with what {} remember", witnesses.join(", ")),
    };
    let sum = match verdict.faults.len() {
        0 => Line::default().span(Tone::Good, format!("{} entries, nothing is missing or changed", verdict.entries)),
        _ => Line::default().span(Tone::Bad, "the audit log is not what was written"),
    };
    page.line(sum);
    page.text(witnesses);
    for accepted in &verdict.accepted {
        page.text(format!(
            "note: {}; {} accepted that on {} (entry {}): {}",
            loss(accepted),
            accepted.by,
            when(accepted.at_seconds),
            accepted.entry,
            accepted.why
        ));
    }
    if let Some(lost) = &verdict.lost {
        page.text(format!(
            "{}. If it is known why, as after a restore from a backup, `baton audit accept` puts it on the record, and it is a \
             note from then on",
            loss(lost)
        ));
    }
    page
}

/// What is lost, and who knows.
#[must_use]
pub fn loss(loss: &AuditLoss) -> String {
    let numbers = match loss.first == loss.last {
        true => format!("entry {} is lost, as far as it is remembered", loss.first),
        false => format!("entries {} to {} are lost, as far as it is remembered", loss.first, loss.last),
    };
    let known = counted(loss.heads.len() as u64, "of them is", "of them are");
    format!("{numbers}; {known} remembered by {}", loss.held_by.join(", "))
}

/// An exported log, and what nobody can see in one.
#[must_use]
pub(crate) fn export(checked: &Checked) -> Page {
    let mut page = Page::new();
    for (line, what) in &checked.faults {
        page.line(Line::default().span(Tone::Bad, format!("line {line}: ")).plain(what.as_str()));
    }
    let numbers = format!("{}, {} to {}", counted(checked.entries, "entry", "entries"), checked.first, checked.last);
    page.line(match checked.faults.is_empty() {
        true => Line::default().span(Tone::Good, format!("{numbers}, as they were written")),
        false => Line::default().span(Tone::Bad, format!("{numbers}, and not as they were written")),
    });
    page.text(format!("head: {}", checked.head));
    if checked.first > 1 {
        page.text(format!(
            "it begins at entry {}: whether that one is as it was written, only a longer export says",
            checked.first
        ));
    }
    page.text(
        "a file does not say what was cut off at its end, or whether all of it was computed anew: for that, compare its head with \
         a later export, or ask `baton audit verify`, which asks the hosts",
    );
    page
}

/// `2026-11-22 12:04:12Z`.
#[must_use]
pub fn when(seconds: i64) -> String {
    let since = u64::try_from(seconds).unwrap_or(0);
    let (year, month, day) = date(since / 86_400);
    format!("{year:04}-{month:02}-{day:02} {}", clock(Duration::from_secs(since)))
}

/// The date of a day since 1970-01-01, in the Gregorian calendar (Howard Hinnant's `civil_from_days`).
const fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + if month <= 2 { 1 } else { 0 }, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::page::Look;
    use baton_proto::v1::{AuditFault, AuditHead};

    #[test]
    fn a_moment_has_its_date() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (1_795_374_252, "2026-11-22 19:04:12Z"),
            (4_107_542_399, "2100-02-28 23:59:59Z"),
        ] {
            assert_eq!(when(seconds), text);
        }
    }

    #[test]
    fn an_entry_says_who_did_what_and_hostile_text_is_escaped() {
        let text = r#"{"who":"admin/ana","from":"192.0.2.7","call":"Control/Pause","about":"shop","why":"\u001b[2J"}"#;
        let refused =
            r#"{"who":"ci/x","from":"local","call":"Control/Deploy\u001b[2J","refused":"[B0701] another rollout"}"#;
        let entry = |number, text: &str| AuditEntry { number, at_seconds: 0, text: text.into(), hash: vec![] };
        let shown = entries(&[entry(1, text), entry(2, refused), entry(3, "damaged")]).to_text(Look::default());
        assert!(shown.contains("admin/ana   192.0.2.7   Control/Pause"), "{shown}");
        assert!(shown.contains("refused [B0701] another rollout") && shown.contains("this entry cannot be read"), "{shown}");
        assert!(!shown.contains('\u{1b}'), "{shown}");
    }

    #[test]
    fn a_verdict_names_every_fault_and_who_was_compared_with() {
        let mut found = AuditVerdict { entries: 41, witnesses: vec!["host/web1".into()], ..AuditVerdict::default() };
        assert!(verdict(&found).to_text(Look::default()).starts_with("41 entries, nothing is missing"));
        found.faults.push(AuditFault { number: 7, what: "entry 7 is missing".into() });
        let shown = verdict(&found).to_text(Look::default());
        assert!(shown.contains("entry 7: entry 7 is missing") && shown.contains("host/web1"), "{shown}");
        assert!(!shown.contains("accept"), "{shown}");
    }

    #[test]
    fn a_loss_names_the_way_to_accept_it_and_is_a_note_once_somebody_did() {
        let lost = AuditLoss {
            first: 42,
            last: 58,
            heads: vec![AuditHead { number: 58, hash: vec![1; 32] }],
            held_by: vec!["host/web1".into(), "host/web2".into()],
            ..AuditLoss::default()
        };
        let what = "entries 42 to 58 are lost, as far as it is remembered; 1 of them is remembered by host/web1, host/web2";
        let fault = AuditFault { number: 58, what: "host/web1 remembers another entry 58".into() };
        let open = AuditVerdict { faults: vec![fault], lost: Some(lost.clone()), ..AuditVerdict::default() };
        let shown = verdict(&open).to_text(Look::default());
        assert!(shown.contains(what) && shown.contains("`baton audit accept`"), "{shown}");
        let by = AuditLoss { entry: 60, by: "admin/ana".into(), why: "a disk died".into(), ..lost };
        let settled = AuditVerdict { entries: 61, accepted: vec![by], ..AuditVerdict::default() };
        let shown = verdict(&settled).to_text(Look::default());
        let note = format!("note: {what}; admin/ana accepted that on 1970-01-01 00:00:00Z (entry 60): a disk died");
        assert!(shown.starts_with("61 entries, nothing is missing") && shown.contains(&note), "{shown}");
    }
}
