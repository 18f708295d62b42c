//! A few values by name, one after the other in memory: what ten thousand services hold of four members each.
//!
//! A tree has room for eleven from the first on. Here they are found by halving, and one that is new moves those behind it; it is
//! stored as the map that it is.

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};
use std::collections::BTreeMap;

/// Sorted by key, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows<K, V>(Vec<(K, V)>);

impl<K, V> Default for Rows<K, V> {
    fn default() -> Self {
        Self::none()
    }
}

impl<K, V> Rows<K, V> {
    #[must_use]
    pub const fn none() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord, V> Rows<K, V> {
    fn at(&self, key: &K) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| other.cmp(key))
    }

    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        self.0.get(self.at(key).ok()?).map(|(_, value)| value)
    }

    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.at(key).ok()?;
        self.0.get_mut(at).map(|(_, value)| value)
    }

    pub fn insert(&mut self, key: K, value: V) {
        match self.at(&key) {
            Ok(at) => drop(self.0.get_mut(at).map(|row| std::mem::replace(&mut row.1, value))),
            Err(at) => {
                self.0.reserve_exact(1);
                self.0.insert(at, (key, value));
            }
        }
    }

    /// What stands there, or the default of it from now on.
    pub fn entry(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        let at = self.at(&key).unwrap_or_else(|at| {
            self.0.reserve_exact(1);
            self.0.insert(at, (key, V::default()));
            at
        });
        &mut self.0[at].1
    }

    /// Takes in others, of which `add` says what becomes of two by the same name.
    pub fn merge(&mut self, others: Self, mut add: impl FnMut(&mut V, V)) {
        if self.is_empty() || others.is_empty() {
            if self.is_empty() {
                *self = others;
            }
            return;
        }
        let mut others = others.0.into_iter().peekable();
        let mut all = Vec::with_capacity(self.0.len() + others.len());
        for (key, mut value) in std::mem::take(&mut self.0) {
            while let Some(before) = others.next_if(|(other, _)| *other < key) {
                all.push(before);
            }
            if let Some((_, same)) = others.next_if(|(other, _)| *other == key) {
                add(&mut value, same);
            }
            all.push((key, value));
        }
        all.extend(others);
        self.0 = all;
    }

    /// In order.
    #[must_use]
    pub fn as_slice(&self) -> &[(K, V)] {
        &self.0
    }

    pub fn remove(&mut self, key: &K) {
        if let Ok(at) = self.at(key) {
            self.0.remove(at);
        }
    }

    pub fn retain(&mut self, mut keeps: impl FnMut(&K, &mut V) -> bool) {
        self.0.retain_mut(|(key, value)| keeps(key, value));
        self.0.shrink_to_fit();
    }

    pub fn clear(&mut self) {
        self.0 = Vec::new();
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.0.iter_mut().map(|(key, value)| (&*key, value))
    }

    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }
}

/// Of two with the same key the last one stays.
impl<K: Ord, V> FromIterator<(K, V)> for Rows<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(rows: I) -> Self {
        let mut rows: Vec<(K, V)> = rows.into_iter().collect();
        if !rows.is_sorted_by(|(one, _), (next, _)| one < next) {
            rows = rows.into_iter().collect::<BTreeMap<K, V>>().into_iter().collect();
        }
        rows.shrink_to_fit();
        Self(rows)
    }
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for Rows<K, V> {
    fn from(rows: [(K, V); N]) -> Self {
        rows.into_iter().collect()
    }
}

impl<K: Serialize, V: Serialize> Serialize for Rows<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

impl<'de, K: Ord + Deserialize<'de>, V: Deserialize<'de>> Deserialize<'de> for Rows<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(deserializer).map(|rows| rows.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_what_a_map_of_the_same_is() {
        let (mut rows, mut map) = (Rows::<u8, u8>::default(), BTreeMap::new());
        for step in 0..2000_u32 {
            let (key, value) = ((step * 37 % 41) as u8, step as u8);
            if step % 7 == 3 {
                *rows.entry(key) ^= value;
                *map.entry(key).or_default() ^= value;
            } else if step % 5 == 0 {
                rows.remove(&key);
                map.remove(&key);
            } else {
                rows.insert(key, value);
                map.insert(key, value);
            }
            assert_eq!((rows.get(&key), rows.is_empty()), (map.get(&key), map.is_empty()));
            assert!(rows.iter().eq(&map) && rows.keys().eq(map.keys()) && rows.values().eq(map.values()), "{rows:?}");
        }
        rows.values_mut().chain(map.values_mut()).for_each(|value| *value /= 2);
        rows.retain(|key, _| key % 3 > 0);
        map.retain(|key, _| key % 3 > 0);
        assert_eq!(rows.get_mut(&1).copied(), map.get(&1).copied());
        let unsorted = [(3, 1), (1, 1), (3, 2)];
        assert!(Rows::from(unsorted).iter().eq(&BTreeMap::from(unsorted)));
        for (one, other) in
            [(0..0, 0..9), (0..9, 0..0), (0..9, 3..5), (3..5, 0..9), (0..5, 2..7), (0..2, 4..6), (4..6, 0..2)]
        {
            let of = |numbers: std::ops::Range<u8>| numbers.map(|number| (number, number)).collect::<Rows<u8, u8>>();
            let mut merged = of(one.clone());
            merged.merge(of(other.clone()), |value, more| *value += more + 100);
            let expected: BTreeMap<u8, u8> = one
                .clone()
                .chain(other.clone())
                .map(|key| (key, if one.contains(&key) && other.contains(&key) { 2 * key + 100 } else { key }))
                .collect();
            assert!(merged.iter().eq(&expected), "{one:?} and {other:?}: {merged:?}");
        }
        rows.clear();
        assert!(rows.is_empty() && rows.get(&1).is_none());
    }
}
