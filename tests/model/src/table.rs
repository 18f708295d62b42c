//! Tables of documents and of answers: what core says to one question is asked once, because core is pure.

use crate::state::Id;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};

/// Documents, each once, by number.
#[derive(Debug)]
pub(crate) struct Table<T> {
    inner: RwLock<Rows<T>>,
}

#[derive(Debug)]
struct Rows<T> {
    by_text: HashMap<String, Id>,
    rows: Vec<Arc<T>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { inner: RwLock::new(Rows { by_text: HashMap::new(), rows: Vec::new() }) }
    }
}

impl<T> Table<T> {
    /// The number of what reads like this, which is made if nothing did so far.
    pub(crate) fn number(&self, text: String, make: impl FnOnce() -> T) -> Id {
        let mut rows = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = rows.by_text.get(&text) {
            return *id;
        }
        let number = u16::try_from(rows.rows.len());
        assert!(number.is_ok(), "more documents than numbers for them");
        let id = Id(number.unwrap_or(u16::MAX));
        rows.rows.push(Arc::new(make()));
        rows.by_text.insert(text, id);
        id
    }

    pub(crate) fn get(&self, id: Id) -> Arc<T> {
        Arc::clone(&self.inner.read().unwrap_or_else(PoisonError::into_inner).rows[usize::from(id.0)])
    }

    pub(crate) fn len(&self) -> usize {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).rows.len()
    }
}

/// Answers by question.
#[derive(Debug)]
pub(crate) struct Memory<K, V> {
    inner: RwLock<HashMap<K, V>>,
}

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self { inner: RwLock::new(HashMap::new()) }
    }
}

impl<K: Eq + Hash, V: Clone> Memory<K, V> {
    pub(crate) fn recall(&self, key: K, ask: impl FnOnce(&K) -> V) -> V {
        if let Some(known) = self.inner.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return known.clone();
        }
        let answer = ask(&key);
        self.inner.write().unwrap_or_else(PoisonError::into_inner).insert(key, answer.clone());
        answer
    }

    pub(crate) fn len(&self) -> usize {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}
