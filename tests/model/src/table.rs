//! Tables of documents and of answers: what core says to one question is asked once, because core is pure.

use crate::state::Id;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::{Mutex, OnceLock, PoisonError, RwLock};

/// More documents than any scope makes; more would be a mistake in the scope, and are refused.
const DOCUMENTS_MAX: usize = 20_000;

/// Threads rarely ask for the same part of a memory at once.
const PARTS: usize = 64;

/// Documents, each once, by number. Looking one up takes no lock.
#[derive(Debug)]
pub(crate) struct Table<T> {
    by_text: Mutex<HashMap<String, Id>>,
    rows: Vec<OnceLock<T>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { by_text: Mutex::default(), rows: (0..DOCUMENTS_MAX).map(|_| OnceLock::new()).collect() }
    }
}

impl<T> Table<T> {
    /// The number of what reads like this, which is made if nothing did so far.
    pub(crate) fn number(&self, text: String, make: impl FnOnce() -> T) -> Id {
        let mut by_text = self.by_text.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = by_text.get(&text) {
            return *id;
        }
        let number = by_text.len();
        assert!(number < DOCUMENTS_MAX, "more documents than {DOCUMENTS_MAX}");
        let id = Id(u16::try_from(number).unwrap_or(u16::MAX));
        self.rows[number].get_or_init(make);
        by_text.insert(text, id);
        id
    }

    pub(crate) fn get(&self, id: Id) -> &T {
        self.rows[usize::from(id.0)].get().expect("numbers come from the table")
    }
}

type Part<K, V> = RwLock<HashMap<K, V, BuildHasherDefault<Quick>>>;

/// Answers by question.
#[derive(Debug)]
pub(crate) struct Memory<K, V> {
    parts: Vec<Part<K, V>>,
}

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self { parts: (0..PARTS).map(|_| Part::default()).collect() }
    }
}

impl<K: Eq + Hash, V: Clone> Memory<K, V> {
    pub(crate) fn recall(&self, key: K, ask: impl FnOnce(&K) -> V) -> V {
        let mut hasher = Quick::default();
        key.hash(&mut hasher);
        let part = &self.parts[(hasher.finish() >> 32) as usize % PARTS];
        if let Some(known) = part.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return known.clone();
        }
        let answer = ask(&key);
        part.write().unwrap_or_else(PoisonError::into_inner).insert(key, answer.clone());
        answer
    }

    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.read().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }
}

/// A hash for small keys that nobody chooses to our harm: rotate, add, multiply, as in the compiler's own tables (FxHash).
#[derive(Debug, Default)]
struct Quick(u64);

impl Hasher for Quick {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(u64::from(number));
    }

    fn write_u16(&mut self, number: u16) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}
