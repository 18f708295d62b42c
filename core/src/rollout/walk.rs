//! Looking for many keys in a map, one after the other in their order.

use crate::fleet::MemberKey;
use crate::name::Slot;
use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::iter::Peekable;
use std::ops::Bound;

/// So many entries are walked past before the next key is looked for from the root.
const STRIDE: usize = 4;

/// A place in a map that only moves on: the next key is mostly the next entry.
#[derive(Debug)]
pub(super) struct Walk<'a, K, V> {
    map: &'a BTreeMap<K, V>,
    rest: Option<Peekable<Range<'a, K, V>>>,
}

impl<'a, K: Ord, V> Walk<'a, K, V> {
    pub(super) const fn of(map: &'a BTreeMap<K, V>) -> Self {
        Self { map, rest: None }
    }

    /// The value of a key. Keys are asked for in their order.
    pub(super) fn get(&mut self, key: &K) -> Option<&'a V> {
        self.seek(key).next_if(|(found, _)| *found == key).map(|(_, value)| value)
    }

    /// Everything from a key on.
    fn seek(&mut self, key: &K) -> &mut Peekable<Range<'a, K, V>> {
        let map = self.map;
        let from_root = || map.range((Bound::Included(key), Bound::Unbounded)).peekable();
        let rest = self.rest.get_or_insert_with(from_root);
        for _ in 0..STRIDE {
            if rest.next_if(|(found, _)| *found < key).is_none() {
                return rest;
            }
        }
        *rest = from_root();
        rest
    }
}

impl<'a, V> Walk<'a, MemberKey, V> {
    /// The members of a host, by slot, into a list that is cleared before; `first` is the first that it could have.
    pub(super) fn of_host(&mut self, first: &MemberKey, members: &mut Vec<(Slot, &'a V)>) {
        members.clear();
        let rest = self.seek(first);
        while let Some((key, value)) = rest.next_if(|(key, _)| key.host == first.host) {
            members.push((key.slot, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Walk;
    use crate::fleet::MemberKey;
    use crate::name::Slot;
    use std::collections::BTreeMap;

    #[test]
    fn whatever_is_asked_for_in_order_is_found_and_nothing_else() {
        let map: BTreeMap<u32, u32> = (0..1_000).filter(|key| key % 3 != 0).map(|key| (key, key * 2)).collect();
        for step in [1, 2, 5, 7, 100] {
            let mut walk = Walk::of(&map);
            for key in (0..1_100).step_by(step) {
                assert_eq!(walk.get(&key), map.get(&key), "{key} in steps of {step}");
            }
        }
    }

    #[test]
    fn members_of_hosts_are_found_also_where_hosts_in_between_are_passed_over() {
        let key = |host: u32, slot| MemberKey { host: format!("web{host:03}").parse().unwrap(), slot: Slot(slot) };
        let map: BTreeMap<MemberKey, u8> = (0..100)
            .flat_map(|host| (0..host % 3).map(move |slot| (host, slot as u8)))
            .map(|(h, s)| (key(h, s), s))
            .collect();
        for step in [1, 4, 17] {
            let (mut walk, mut members) = (Walk::of(&map), Vec::new());
            for host in (0..100).step_by(step) {
                walk.of_host(&key(host, 0), &mut members);
                let slots: Vec<u8> = members.iter().map(|(slot, _)| slot.0).collect();
                assert_eq!(slots, (0..(host % 3) as u8).collect::<Vec<_>>(), "web{host:03} in steps of {step}");
            }
        }
    }
}
