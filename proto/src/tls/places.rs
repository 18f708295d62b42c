//! Who is in the middle of a handshake, and who gives way once there is no place left.
//!
//! Nobody waits at the door: the newcomer comes in, and whoever takes most of the room gives up a place for it. A crowd that
//! says nothing therefore pushes out its own, and an honest handshake, which takes some thousandths of a second, is over before
//! it could be meant.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// All places.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// In the order in which they came.
    guests: BTreeMap<u64, Guest>,
    /// How many of them each source has.
    counts: BTreeMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Guest {
    source: IpAddr,
    /// It has not said a word: nothing is lost with it, neither its own work nor ours.
    silent: bool,
    goes: Arc<Notify>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    goes: Arc<Notify>,
}

impl Places {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default() })
    }

    /// A place for one from this source. None: its source has the most of them, and no older one to give up for it.
    pub(super) fn enter(self: &Arc<Self>, source: IpAddr) -> Option<Place> {
        let mut taken = self.taken();
        if taken.guests.len() >= self.most {
            let number = taken.gives_way(source)?;
            if let Some(guest) = taken.leave(number) {
                guest.goes.notify_one();
            }
        }
        let (number, goes) = (taken.next, Arc::new(Notify::new()));
        taken.next += 1;
        *taken.counts.entry(source).or_default() += 1;
        taken.guests.insert(number, Guest { source, silent: true, goes: Arc::clone(&goes) });
        Some(Place { places: Arc::clone(self), number, goes })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn leave(&mut self, number: u64) -> Option<Guest> {
        let guest = self.guests.remove(&number)?;
        if let Some(count) = self.counts.get_mut(&guest.source) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&guest.source);
            }
        }
        Some(guest)
    }

    /// The oldest silent one of whoever has most, with the newcomer; the newest, where all of its have spoken.
    fn gives_way(&self, newcomer: IpAddr) -> Option<u64> {
        let count = |source: IpAddr| self.counts.get(&source).copied().unwrap_or_default() + usize::from(source == newcomer);
        let most = self.counts.keys().map(|source| count(*source)).max().unwrap_or_default();
        let greedy = |guest: &Guest| count(guest.source) == most;
        let silent = self.guests.iter().find(|(_, guest)| guest.silent && greedy(guest));
        let newest = || self.guests.iter().rfind(|(_, guest)| greedy(guest));
        match silent {
            Some((number, _)) => Some(*number),
            // The newcomer is the newest of all.
            None if count(newcomer) == most => None,
            None => newest().map(|(number, _)| *number),
        }
    }
}

impl Place {
    /// It has spoken: only who is silent gives way to others of its own source.
    pub(super) fn spoke(&self) {
        if let Some(guest) = self.places.taken().guests.get_mut(&self.number) {
            guest.silent = false;
        }
    }

    /// Returns once this place is given to somebody else.
    pub(super) async fn given_up(&self) {
        self.goes.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken().leave(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    /// Those whose place was given to somebody else.
    fn gone(all: &[&Place]) -> Vec<usize> {
        let still_there = |place: &Place| place.places.taken().guests.contains_key(&place.number);
        (0..all.len()).filter(|index| !still_there(all[*index])).collect()
    }

    #[tokio::test]
    async fn a_silent_crowd_makes_place_for_everybody_else_and_for_its_own() {
        let places = Places::new(4);
        let honest = places.enter(address(1)).unwrap();
        let crowd: Vec<_> = (0..3).map(|_| places.enter(address(9)).unwrap()).collect();
        let second = places.enter(address(2)).unwrap();
        crowd[0].given_up().await;
        let own = places.enter(address(9)).unwrap();
        crowd[1].given_up().await;
        assert_eq!(gone(&[&honest, &second, &own, &crowd[0], &crowd[1], &crowd[2]]), [3, 4]);
    }

    #[test]
    fn whoever_has_spoken_is_not_pushed_out_by_a_later_one_of_its_own() {
        let places = Places::new(3);
        let fleet: Vec<_> = (0..3).map(|_| places.enter(address(9)).unwrap()).collect();
        fleet.iter().for_each(Place::spoke);
        assert!(places.enter(address(9)).is_none(), "it is the newest");
        let other = places.enter(address(1)).unwrap();
        assert_eq!(gone(&[&fleet[0], &fleet[1], &fleet[2], &other]), [2], "the one with the least to lose");
    }

    #[test]
    fn a_place_is_free_again_once_its_handshake_is_over() {
        let places = Places::new(1);
        for last in 1..4 {
            let place = places.enter(address(last)).unwrap();
            assert_eq!(gone(&[&place]), [0; 0]);
            drop(place);
        }
        assert!(places.taken().guests.is_empty() && places.taken().counts.is_empty());
    }

    #[test]
    fn where_everybody_has_one_the_oldest_silent_one_gives_way() {
        let places = Places::new(2);
        let (first, second) = (places.enter(address(1)).unwrap(), places.enter(address(2)).unwrap());
        first.spoke();
        let third = places.enter(address(3)).unwrap();
        assert_eq!(gone(&[&first, &second, &third]), [1]);
    }
}
