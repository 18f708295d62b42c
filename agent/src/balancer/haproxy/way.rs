//! Requests on their way to a server. One that has its backend and no server yet is answered 503 when that backend's last server
//! goes out: its backend is not chosen a second time. So where requests are divided, the last one stays in until nothing leads to its
//! backend any more, and until nobody there is without a server.

use super::Place;
use super::row::Row;
use crate::balancer::driver::Change;
use baton_core::fleet::spec::MemberState;
use baton_core::fleet::split::{Share, Side, TrafficSplit};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// A change of one server.
type Step = (Change, Row);

#[derive(Debug, Default)]
pub(super) struct Ways {
    /// Backends that nobody is to be led to and somebody may be on the way to.
    taken: BTreeMap<String, Taken>,
    /// The servers that stayed in for that since the pass began.
    stayed: BTreeSet<Place>,
}

/// How long that is waited for, once a server stays in for it.
#[derive(Debug)]
struct Taken {
    longest: Duration,
    until: Option<Instant>,
}

impl Ways {
    pub(super) fn begin_pass(&mut self) {
        self.stayed.clear();
    }

    /// What was seen of one backend: whether anything leads there, or is to, and how many are there without a server.
    pub(super) fn note(&mut self, backend: &str, leads: bool, is_to_lead: bool, between: u64, longest: Duration) {
        if is_to_lead || (!leads && between == 0) {
            self.taken.remove(backend);
        } else if !self.taken.contains_key(backend) {
            self.taken.insert(backend.to_owned(), Taken { longest, until: None });
        }
    }

    pub(super) fn has_stayed(&self, place: &Place) -> bool {
        self.stayed.contains(place)
    }

    /// The steps that can be made now; who had to stay is remembered.
    pub(super) fn free(&mut self, steps: Vec<Step>, servers: &BTreeMap<Place, Row>) -> Vec<Step> {
        let emptied = self.emptied(&steps, servers);
        let stays = |(change, row): &Step| goes(change, row) && emptied.contains(row.backend());
        let (stay, free): (Vec<Step>, Vec<Step>) = steps.into_iter().partition(stays);
        self.stayed.extend(stay.into_iter().map(|(change, row)| (row.backend().to_owned(), change.address)));
        free
    }

    /// The taken backends in which nobody would be left.
    fn emptied(&mut self, steps: &[Step], servers: &BTreeMap<Place, Row>) -> BTreeSet<String> {
        let now = Instant::now();
        let next: BTreeMap<(&str, _), MemberState> =
            steps.iter().map(|(change, row)| ((row.backend(), change.address), change.state)).collect();
        let is_left = |backend: &str| {
            servers.iter().filter(|((name, _), _)| name == backend).any(|((_, address), row)| {
                match next.get(&(backend, *address)) {
                    Some(state) => *state == MemberState::Ready,
                    None => row.told() == MemberState::Ready && row.is_up(),
                }
            })
        };
        let is_left_by = |backend: &str| steps.iter().any(|(change, row)| row.backend() == backend && goes(change, row));
        let is_waited_for = |taken: &mut Taken| now < *taken.until.get_or_insert(now + taken.longest);
        let emptied = self.taken.iter_mut().filter(|(backend, _)| is_left_by(backend) && !is_left(backend));
        emptied.filter_map(|(backend, taken)| is_waited_for(taken).then(|| backend.clone())).collect()
    }
}

fn goes(change: &Change, row: &Row) -> bool {
    change.state != MemberState::Ready && row.told() == MemberState::Ready
}

/// Whether a pool that is divided so leads to a side.
pub(super) fn leads(split: Option<&TrafficSplit>, side: Side) -> bool {
    match (split, side) {
        (None, side) => side == Side::Stable,
        (Some(split), Side::Stable) => split.share != Share::ALL,
        (Some(split), Side::Trial) => split.share != Share::NONE || !split.rules.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    const LONG: Duration = Duration::from_secs(30);

    fn place(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// Servers of one backend by port, in (1) or out (0) as HAProxy was told.
    fn servers(told: &[(u16, bool)]) -> BTreeMap<Place, Row> {
        let line = |(port, is_in): &(u16, bool)| {
            let (running, admin) = if *is_in { (2, 0) } else { (0, 1) };
            format!("3 shop 1 s{port} 127.0.0.1 {running} {admin} 1 1 9 1 0 0 0 0 0 0 - {port} - 0 0 - - 0")
        };
        let listing = format!("1\n{}\n", told.iter().map(line).collect::<Vec<_>>().join("\n"));
        Row::parse_all(&listing).map(|row| ((row.backend().to_owned(), row.address().unwrap()), row)).collect()
    }

    fn steps(servers: &BTreeMap<Place, Row>, next: &[(u16, MemberState)]) -> Vec<Step> {
        let step = |(port, state): &(u16, MemberState)| {
            let row = servers.get(&("shop".to_owned(), place(*port))).unwrap().clone();
            let pool = "shop".parse().unwrap();
            (Change { pool, address: place(*port), state: *state, weight: 1, side: Side::Stable, wanted: true }, row)
        };
        next.iter().map(step).collect()
    }

    fn made(ways: &mut Ways, told: &[(u16, bool)], next: &[(u16, MemberState)]) -> Vec<u16> {
        let servers = servers(told);
        let free = ways.free(steps(&servers, next), &servers);
        free.iter().map(|(change, _)| change.address.port()).collect()
    }

    const OTHERS_COME: [(u16, MemberState); 2] = [(1, MemberState::Out), (2, MemberState::Ready)];

    #[test]
    fn the_last_one_stays_while_somebody_is_led_there_or_is_on_the_way() {
        let both = [(1, true), (2, true)];
        let all = [(1, MemberState::Out), (2, MemberState::Drain)];
        let mut ways = Ways::default();
        for (leads, between) in [(true, 0), (true, 1), (false, 1)] {
            ways.note("shop", leads, false, between, LONG);
            assert!(made(&mut ways, &both, &all).is_empty(), "{leads} {between}");
            assert!(ways.has_stayed(&("shop".to_owned(), place(1))) && !ways.has_stayed(&("shop".to_owned(), place(3))));
            ways.begin_pass();
            assert!(!ways.has_stayed(&("shop".to_owned(), place(1))));
        }
        ways.note("shop", false, false, 0, LONG);
        assert_eq!(made(&mut ways, &both, &all), [1, 2]);
    }

    #[test]
    fn nobody_waits_whose_backend_is_left_with_somebody_or_goes_on_being_led_to() {
        let mut ways = Ways::default();
        ways.note("shop", true, false, 1, LONG);
        assert_eq!(made(&mut ways, &[(1, true), (2, false)], &OTHERS_COME), [1, 2]);
        assert_eq!(made(&mut ways, &[(1, true), (2, true)], &OTHERS_COME[..1]), [1]);
        assert!(made(&mut ways, &[(1, true), (2, false)], &OTHERS_COME[..1]).is_empty());
        // Who is out already has nobody on the way to it, nor is it anybody's last.
        assert_eq!(made(&mut ways, &[(1, false), (2, false)], &OTHERS_COME[..1]), [1]);
        ways.note("shop", true, true, 1, LONG);
        assert_eq!(made(&mut ways, &[(1, true), (2, false)], &OTHERS_COME[..1]), [1]);
    }

    #[test]
    fn nobody_is_waited_for_longer_than_a_drain_may_take() {
        let mut ways = Ways::default();
        ways.note("shop", false, false, 1, Duration::ZERO);
        // Being there still is no reason to wait once more. Before the last one is to go nobody waits for anything.
        ways.note("shop", false, false, 1, LONG);
        assert_eq!(made(&mut ways, &[(1, true)], &OTHERS_COME[..1]), [1]);
    }

    #[test]
    fn a_split_leads_to_the_sides_it_gives_something() {
        let split = |share, rules: &[&str]| TrafficSplit {
            share,
            sticky: None,
            rules: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
        };
        let led = |split: Option<&TrafficSplit>| (leads(split, Side::Stable), leads(split, Side::Trial));
        assert_eq!(led(None), (true, false));
        assert_eq!(led(Some(&split(Share::NONE, &[]))), (true, false));
        assert_eq!(led(Some(&split(Share::NONE, &["header X-Beta = 1"]))), (true, true));
        assert_eq!(led(Some(&split(Share::of_places(1), &[]))), (true, true));
        assert_eq!(led(Some(&split(Share::ALL, &[]))), (false, true));
    }
}
