//! Entries that somebody remembers and the log has not: after a restore from a backup, or because somebody cut it.
//!
//! Which of the two it was, people say. Once one of them has, an entry of the log names what is lost, and that is no fault any
//! more: of these very heads, and of no other.

use super::chain::{Entry, Head, Record};
use crate::store::WallTime;
use baton_core::name::Digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The call of an entry that accepts a loss.
pub const ACCEPTS: &str = "Control/AcceptAuditLoss";
/// The call of an entry that is the first after a backup.
pub const RESTORES: &str = "baton-coordinator restore";

/// Heads that one entry names at most: an entry stays a page.
const HEADS_MAX: usize = 200;

/// What is not in the log any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// The first number that is lost, as far as it is known.
    pub first: u64,
    /// The last one that somebody remembers.
    pub last: u64,
    pub heads: Vec<Head>,
    /// Who remembers any of them.
    pub held_by: BTreeSet<String>,
}

/// A loss, and the entry that accepts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    pub entry: u64,
    pub at: WallTime,
    pub by: String,
    pub why: String,
    pub loss: Loss,
}

impl Loss {
    /// Those of its heads that are among these.
    #[must_use]
    pub fn only(mut self, among: &[Head]) -> Option<Self> {
        self.heads.retain(|head| among.contains(head));
        self.last = self.heads.iter().map(|head| head.number).max()?;
        Some(self)
    }

    /// Entries that accept it, without what the gate knows of the call.
    #[must_use]
    pub fn entries(&self, why: &str) -> Vec<Entry> {
        let about = format!("entries {} to {}", self.first, self.last);
        let parts = self.heads.chunks(HEADS_MAX).map(|heads| Self { heads: heads.to_vec(), ..self.clone() });
        let entry = |part: Self| Entry {
            call: ACCEPTS.to_owned(),
            about: about.clone(),
            why: why.to_owned(),
            after: serde_json::to_string(&part).unwrap_or_default(),
            ..Entry::default()
        };
        parts.map(entry).collect()
    }
}

/// What is found out about losses while a log is read.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Who remembers what, until the entry comes by.
    remembered: BTreeMap<u64, BTreeMap<Digest, Vec<String>>>,
    /// Heads of which the log has another entry, or none, and who remembers them.
    lost: BTreeMap<u64, BTreeMap<Digest, Vec<String>>>,
    accepted: Vec<Accepted>,
    /// Numbers of entries that are the first after a backup.
    restored: Vec<u64>,
}

impl Losses {
    pub(super) fn remember(&mut self, name: String, head: Head) {
        let names = self.remembered.entry(head.number).or_default().entry(head.hash).or_default();
        // A host may remember a head as the end of two logs.
        if !names.contains(&name) {
            names.push(name);
        }
    }

    pub(super) fn take(&mut self, record: &Record) {
        if let Some(mut heads) = self.remembered.remove(&record.number) {
            heads.remove(&record.hash);
            if !heads.is_empty() {
                self.lost.insert(record.number, heads);
            }
        }
        if record.text.contains(ACCEPTS) || record.text.contains(RESTORES) {
            self.note(record);
        }
    }

    fn note(&mut self, record: &Record) {
        let Ok(entry) = serde_json::from_str::<Entry>(&record.text) else { return };
        match (entry.call.as_str(), entry.refused.is_some()) {
            (RESTORES, false) => self.restored.push(record.number),
            (ACCEPTS, false) => {
                let Ok(loss) = serde_json::from_str(&entry.after) else { return };
                let (entry, at, by, why) = (record.number, record.at, entry.who, entry.why);
                self.accepted.push(Accepted { entry, at, by, why, loss });
            }
            _ => {}
        }
    }

    /// What is lost and nobody accepted, with one sentence for each head; and what somebody did. `last` is the end of the log.
    pub(super) fn finish(mut self, last: u64) -> (Option<Loss>, Vec<(u64, String)>, Vec<Accepted>) {
        self.lost.extend(self.remembered.split_off(&last.saturating_add(1)));
        let known: BTreeSet<(u64, Digest)> = {
            let heads = self.accepted.iter().flat_map(|accepted| &accepted.loss.heads);
            heads.map(|head| (head.number, head.hash)).collect()
        };
        let (mut heads, mut held_by, mut said) = (Vec::new(), BTreeSet::new(), Vec::new());
        let restored = |number: u64| self.restored.iter().copied().filter(|first| *first <= number).max();
        for (number, hashes) in self.lost {
            for (hash, names) in hashes.into_iter().filter(|(hash, _)| !known.contains(&(number, *hash))) {
                let verb = if names.len() == 1 { "remembers" } else { "remember" };
                let names_of = names.join(", ");
                said.push(match (restored(number), number > last) {
                    (Some(first), _) => {
                        let what =
                            format!("{names_of} {verb} entry {number} of the log before the restore of entry {first}");
                        (number.min(last + 1), what)
                    }
                    (None, true) => {
                        (last + 1, format!("{names_of} {verb} entry {number}: the log was cut off after {last}"))
                    }
                    (None, false) => (number, format!("{names_of} {verb} another entry {number}: the log was written anew")),
                });
                heads.push(Head { number, hash });
                held_by.extend(names);
            }
        }
        let loss = heads.first().zip(heads.last()).map(|(lowest, highest)| {
            let first = restored(lowest.number).unwrap_or(lowest.number.min(last.saturating_add(1)));
            (first, highest.number)
        });
        (loss.map(|(first, last)| Loss { first, last, heads, held_by }), said, self.accepted)
    }
}

#[cfg(test)]
mod tests {
    use super::super::chain::{Verdict, Witness, verify};
    use super::*;

    /// A log of so many entries, of which the last ones are told apart by a word.
    fn log(entries: u64, from: u64, word: &str) -> Vec<Record> {
        let mut head = Head::none();
        let mut records = Vec::new();
        for number in 1..=entries {
            let word = if number < from { "" } else { word };
            let entry = Entry { who: "admin/ana".into(), about: word.into(), ..Entry::default() };
            records.push(head.next(WallTime(7), serde_json::to_string(&entry).unwrap()));
            head = records.last().unwrap().head();
        }
        records
    }

    fn append(records: &mut Vec<Record>, entry: Entry) {
        let text = serde_json::to_string(&Entry { who: "admin/ana".into(), ..entry }).unwrap();
        let record = records.last().map_or_else(Head::none, Record::head).next(WallTime(8), text);
        records.push(record);
    }

    fn remembering(name: &str, records: &[Record]) -> Vec<Witness> {
        records.iter().map(|record| Witness { name: name.into(), head: record.head() }).collect()
    }

    fn check(records: &[Record], witnesses: &[Witness]) -> Verdict {
        verify(records, witnesses.to_vec())
    }

    #[test]
    fn a_loss_is_a_fault_until_an_entry_accepts_it_and_then_it_is_told_each_time() {
        let before = log(9, 1, "before");
        let mut witnesses = remembering("host/web1", &before[4..9]);
        witnesses.extend(remembering("host/web2", &before[6..7]));
        // As restored: six entries of then, and one that says so.
        let mut records = before[..6].to_vec();
        append(&mut records, Entry { call: RESTORES.into(), ..Entry::default() });
        let found = check(&records, &witnesses);
        let texts: Vec<_> = found.faults.iter().map(|fault| (fault.number, fault.what.as_str())).collect();
        assert_eq!(
            texts,
            [
                (7, "host/web1, host/web2 remember entry 7 of the log before the restore of entry 7"),
                (8, "host/web1 remembers entry 8 of the log before the restore of entry 7"),
                (8, "host/web1 remembers entry 9 of the log before the restore of entry 7"),
            ]
        );
        let loss = found.lost.clone().unwrap();
        assert_eq!((loss.first, loss.last, loss.heads.len()), (7, 9, 3));
        assert_eq!(loss.held_by.iter().map(String::as_str).collect::<Vec<_>>(), ["host/web1", "host/web2"]);
        loss.entries("a disk died").into_iter().for_each(|entry| append(&mut records, entry));
        for _ in 0..5 {
            append(&mut records, Entry::default());
            let found = check(&records, &witnesses);
            assert_eq!((found.faults, found.lost), (vec![], None));
            let [accepted] = found.accepted.as_slice() else { panic!("{:?}", found.accepted) };
            assert_eq!((accepted.entry, accepted.by.as_str(), accepted.why.as_str()), (8, "admin/ana", "a disk died"));
            assert_eq!(accepted.loss, loss);
        }
    }

    #[test]
    fn what_was_not_among_the_heads_that_were_accepted_stays_a_fault() {
        let before = log(9, 1, "before");
        let mut records = before[..4].to_vec();
        let loss = check(&records, &remembering("host/web1", &before[..8])).lost.unwrap();
        assert_eq!((loss.first, loss.last), (5, 8));
        let seen = loss.clone().only(&loss.heads[..3]).unwrap();
        assert_eq!((seen.last, loss.only(&[])), (7, None));
        seen.entries("restored").into_iter().for_each(|entry| append(&mut records, entry));
        let found = check(&records, &remembering("host/web1", &before[..8]));
        assert_eq!(found.faults.len(), 1, "{found:?}");
        // A host that was away, and one that knows the log as it was written since, and written anew once more.
        assert_eq!(check(&records, &remembering("host/web2", &before[8..])).faults.len(), 1);
        let another = log(6, 5, "another");
        assert_eq!(check(&another, &remembering("host/web1", &records[4..5])).faults.len(), 1);
        // A refused call accepts nothing, and neither does one that is about something else.
        let mut refused = before[..4].to_vec();
        let loss = check(&refused, &remembering("host/web1", &before[..8])).lost.unwrap();
        for mut entry in loss.entries("restored") {
            entry.refused = Some("[B0511] no".into());
            append(&mut refused, entry.clone());
            append(&mut refused, Entry { refused: None, call: "Control/Pause".into(), why: ACCEPTS.into(), ..entry });
        }
        assert!(!check(&refused, &remembering("host/web1", &before[7..8])).faults.is_empty());
    }

    #[test]
    fn a_large_loss_takes_several_entries() {
        let before = log(450, 1, "before");
        let mut records = before[..1].to_vec();
        let witnesses = remembering("host/web1", &before);
        let entries = check(&records, &witnesses).lost.unwrap().entries("restored");
        assert_eq!(entries.len(), 3);
        entries.into_iter().for_each(|entry| append(&mut records, entry));
        assert_eq!(check(&records, &witnesses).faults, []);
    }
}
