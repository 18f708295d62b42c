//! What a series of probes saw, as one line of evidence.

use super::{Kind, Refusal};
use std::collections::BTreeMap;

/// Different answers remembered; an instance that says something new each time is told by its last.
const ANSWERS_MAX: usize = 4;

/// Counts tries and answers.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    tries: u64,
    answers: BTreeMap<Refusal, u64>,
    last: Option<Refusal>,
}

impl Tally {
    pub fn count(&mut self, refusal: &Refusal) {
        self.tries += 1;
        if self.answers.len() < ANSWERS_MAX || self.answers.contains_key(refusal) {
            *self.answers.entry(refusal.clone()).or_default() += 1;
        }
        if self.last.as_ref() != Some(refusal) {
            self.last = Some(refusal.clone());
        }
    }

    #[must_use]
    pub fn last(&self) -> Option<&Refusal> {
        self.last.as_ref()
    }

    #[must_use]
    pub fn last_kind(&self) -> Option<Kind> {
        self.last.as_ref().map(|refusal| refusal.kind)
    }

    /// `60 tries: connection refused`, or, where answers differed, `60 tries: 50 × connection refused, then answered 500 …`.
    #[must_use]
    pub fn evidence(&self) -> String {
        let Some(last) = &self.last else { return "no answer yet".to_owned() };
        let tries = if self.tries == 1 { "1 try".to_owned() } else { format!("{} tries", self.tries) };
        let others: Vec<_> = self.answers.iter().filter(|(refusal, _)| *refusal != last).collect();
        if others.is_empty() {
            return format!("{tries}: {last}");
        }
        let others: Vec<_> = others.iter().map(|(refusal, count)| format!("{count} × {refusal}")).collect();
        format!("{tries}: {}, then {last}", others.join(", "))
    }
}
