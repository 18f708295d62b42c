//! The chain: each entry carries the hash of the one before, so that no entry can change, vanish or be put in unnoticed.
//!
//! Whoever can write the database could compute the whole chain anew. Against that, the head (the newest entry's number and
//! hash) is held by the agents, each on its own host; [`verify`] compares what they remember.

use super::loss::{Accepted, Loss, Losses};
use crate::store::WallTime;
use baton_core::name::Digest;
use baton_proto::audit::{beginning, link};
use serde::{Deserialize, Serialize};

/// A command, and what became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The identity: `admin/ana`, `host/web1`, `anonymous`.
    pub who: String,
    /// The address it came from; `local` for the coordinator's own socket.
    pub from: String,
    /// The method: `Control/Deploy`.
    pub call: String,
    /// What it was about: a service, a host, a token's id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// Why, as the caller said it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// None: accepted. The refusal, with its code, otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// What it changed, as it was and as it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub before: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub after: String,
}

/// An entry as the store keeps it: its text is never written anew, so that the hash stays over the very bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// From 1, without gaps.
    pub number: u64,
    pub at: WallTime,
    /// The [`Entry`] as JSON.
    pub text: String,
    pub hash: Digest,
}

/// The newest entry: what agents hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub number: u64,
    pub hash: Digest,
}

/// Somebody who remembers a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    pub name: String,
    pub head: Head,
}

/// What is wrong with the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The entry where it shows.
    pub number: u64,
    pub what: String,
}

impl Head {
    /// Of a log without entries.
    #[must_use]
    pub fn none() -> Self {
        Self { number: 0, hash: beginning() }
    }

    /// The record that comes after this head.
    #[must_use]
    pub fn next(&self, at: WallTime, text: String) -> Record {
        let number = self.number + 1;
        let hash = link(&self.hash, number, at.0, &text);
        Record { number, at, text, hash }
    }
}

impl Record {
    #[must_use]
    pub const fn head(&self) -> Head {
        Head { number: self.number, hash: self.hash }
    }
}

/// What became of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Where the log ends.
    pub head: Head,
    pub faults: Vec<Fault>,
    /// Those of the faults that people can accept.
    pub lost: Option<Loss>,
    /// What they accepted.
    pub accepted: Vec<Accepted>,
}

/// Checks a whole log, record by record in their order, and then what others remember of it.
#[derive(Debug)]
pub struct Check {
    head: Head,
    losses: Losses,
    faults: Vec<Fault>,
    /// Numbers that did not come in their place, and not yet elsewhere: from, to.
    gaps: Vec<(u64, u64)>,
}

impl Check {
    #[must_use]
    pub fn new(witnesses: Vec<Witness>) -> Self {
        let mut losses = Losses::default();
        witnesses.into_iter().for_each(|Witness { name, head }| losses.remember(name, head));
        Self { head: Head::none(), losses, faults: Vec::new(), gaps: Vec::new() }
    }

    /// Takes in the next record.
    pub fn take(&mut self, record: &Record) {
        let expected = self.head.number + 1;
        self.losses.take(record);
        if record.number < expected {
            return self.misplaced(record.number);
        }
        if record.number > expected {
            self.gaps.push((expected, record.number - 1));
        }
        if link(&self.head.hash, record.number, record.at.0, &record.text) != record.hash && record.number == expected {
            let what = format!("entry {expected} is not what was written, or the one before it is not");
            self.faults.push(Fault { number: expected, what });
        }
        // What is stored counts as the one before: so one change is one fault, and not a fault of all that follow.
        self.head = record.head();
    }

    /// Takes in one that should have come before: it is not missing, and its chain cannot be followed.
    fn misplaced(&mut self, number: u64) {
        let after = self.head.number;
        let gap = self.gaps.iter().position(|(from, to)| (*from..=*to).contains(&number));
        let what = match gap {
            Some(gap) => {
                let (from, to) = self.gaps.remove(gap);
                self.gaps.extend(
                    [(from, number.saturating_sub(1)), (number + 1, to)].into_iter().filter(|(from, to)| from <= to),
                );
                format!("entry {number} stands after entry {after}")
            }
            None => format!("entry {number} stands twice, the second time after entry {after}"),
        };
        self.faults.push(Fault { number, what });
    }

    /// The head that was reached, and everything that was found.
    #[must_use]
    pub fn finish(mut self) -> Verdict {
        let (lost, said, accepted) = self.losses.finish(self.head.number);
        self.faults.extend(self.gaps.into_iter().map(|(from, to)| {
            let what =
                if from == to { format!("entry {from} is missing") } else { format!("entries {from} to {to} are missing") };
            Fault { number: from, what }
        }));
        self.faults.extend(said.into_iter().map(|(number, what)| Fault { number, what }));
        self.faults.sort_by_key(|fault| fault.number);
        Verdict { head: self.head, faults: self.faults, lost, accepted }
    }
}

/// [`Check`] over records that are at hand.
#[must_use]
pub fn verify(records: &[Record], witnesses: Vec<Witness>) -> Verdict {
    let mut check = Check::new(witnesses);
    records.iter().for_each(|record| check.take(record));
    check.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(entries: u64) -> Vec<Record> {
        let mut head = Head::none();
        let mut records = Vec::new();
        for number in 1..=entries {
            let record = head.next(WallTime(1_000 + number as i64), format!("{{\"who\":\"admin/ana\",\"n\":{number}}}"));
            head = record.head();
            records.push(record);
        }
        records
    }

    fn faults(records: &[Record], witnesses: Vec<Witness>) -> Vec<Fault> {
        verify(records, witnesses).faults
    }

    fn web1(records: &[Record]) -> Vec<Witness> {
        vec![Witness { name: "host/web1".into(), head: records.last().unwrap().head() }]
    }

    #[test]
    fn an_untouched_log_has_no_fault_and_an_empty_one_neither() {
        let records = log(20);
        assert_eq!(faults(&records, web1(&records[..7])), []);
        assert_eq!(verify(&records, vec![]).head, records[19].head());
        let empty = verify(&[], vec![]);
        assert_eq!((empty.head, empty.faults), (Head::none(), vec![]));
    }

    #[test]
    fn every_single_change_of_every_entry_is_found_where_it_was_made() {
        for changed in 0..8_usize {
            let number = changed as u64 + 1;
            let mut text = log(8);
            text[changed].text.push(' ');
            assert_eq!(faults(&text, vec![]).first().map(|fault| fault.number), Some(number));
            let mut time = log(8);
            time[changed].at.0 += 1;
            assert_eq!(faults(&time, vec![]).first().map(|fault| fault.number), Some(number));
            let mut hash = log(8);
            hash[changed].hash = Digest::of(b"x");
            assert_eq!(faults(&hash, vec![]).first().map(|fault| fault.number), Some(number));
            let mut gone = log(8);
            gone.remove(changed);
            let found = faults(&gone, web1(&log(8)));
            assert_eq!(found.first().map(|fault| fault.number), Some(number), "{found:?}");
        }
    }

    #[test]
    fn entries_that_change_places_or_come_twice_are_found() {
        let mut records = log(5);
        records.swap(1, 2);
        let said = |records: &[Record]| faults(records, vec![]).into_iter().map(|fault| fault.what).collect::<Vec<_>>();
        assert_eq!(said(&records), ["entry 2 stands after entry 3"]);
        let mut twice = log(5);
        twice.insert(3, twice[1].clone());
        assert_eq!(said(&twice), ["entry 2 stands twice, the second time after entry 3"]);
        let mut gap = log(9);
        let moved = gap.remove(3);
        gap.retain(|record| ![3, 5].contains(&record.number));
        gap.push(moved);
        assert_eq!(said(&gap), ["entry 3 is missing", "entry 4 stands after entry 9", "entry 5 is missing"]);
    }

    #[test]
    fn a_log_that_was_cut_off_or_written_anew_is_found_by_whoever_remembers_its_head() {
        let records = log(9);
        let cut = faults(&records[..6], web1(&records));
        assert!(cut.len() == 1 && cut[0].what.contains("cut off after 6"), "{cut:?}");
        assert_eq!(faults(&records[..6], vec![]), [], "nobody else could know");
        // The same number of entries, one of them another, and every hash computed anew.
        let mut forged = Vec::new();
        let mut head = Head::none();
        for record in &records {
            let text = if record.number == 4 { "{}".to_owned() } else { record.text.clone() };
            forged.push(head.next(record.at, text));
            head = forged[forged.len() - 1].head();
        }
        assert_eq!(faults(&forged, vec![]), [], "the chain itself is sound");
        let found = faults(&forged, web1(&records));
        assert!(found.len() == 1 && found[0].what.contains("host/web1 remembers another entry 9"), "{found:?}");
    }
}
