//! Hosts that could fail together, by a label such as `rack`: a wave is spread over them, and none is ever taken out whole.

use super::aside::aside;
use crate::fleet::{Fleet, Service};
use crate::name::{HostName, LabelKey, LabelValue};
use std::collections::BTreeMap;

/// What a host's label says; None where it has no such label: then it stands for itself.
#[must_use]
pub fn group<'a>(fleet: &'a Fleet, by: &LabelKey, host: &HostName) -> Option<&'a LabelValue> {
    fleet.hosts.get(host).and_then(|host| host.labels.get(by))
}

/// The other hosts of a service that take part and of which the label says the same as of this one.
#[must_use]
pub fn peers<'a>(fleet: &Fleet, service: &'a Service, by: &LabelKey, host: &HostName) -> Vec<&'a HostName> {
    let Some(value) = group(fleet, by, host) else { return Vec::new() };
    let same = |other: &&HostName| *other != host && group(fleet, by, other) == Some(value);
    service.hosts.iter().filter(same).filter(|other| aside(fleet, service, other).is_none()).collect()
}

/// Orders hosts so that every beginning of the list has about the same part of every group, and no group is in it whole as long
/// as that can be helped: the last host of each group comes at the end. `first` stay first, and count.
#[must_use]
pub fn order<'a>(
    fleet: &Fleet,
    by: Option<&LabelKey>,
    first: Vec<&'a HostName>,
    rest: Vec<&'a HostName>,
) -> Vec<&'a HostName> {
    let Some(by) = by else { return first.into_iter().chain(rest).collect() };
    let mut sizes: BTreeMap<Option<&LabelValue>, usize> = BTreeMap::new();
    for host in first.iter().chain(&rest) {
        *sizes.entry(group(fleet, by, host)).or_default() += 1;
    }
    let mut seen: BTreeMap<Option<&LabelValue>, usize> = BTreeMap::new();
    let mut position = |host: &HostName| {
        let group = group(fleet, by, host);
        let seen = seen.entry(group).or_default();
        *seen += 1;
        // Compared as fractions of one size: how far into its group the host is.
        Fraction { part: *seen, whole: sizes.get(&group).copied().unwrap_or(1) }
    };
    for host in &first {
        position(host);
    }
    let mut rest: Vec<_> = rest.into_iter().map(|host| (position(host), host)).collect();
    rest.sort_by_key(|(fraction, _)| *fraction);
    first.into_iter().chain(rest.into_iter().map(|(_, host)| host)).collect()
}

/// A part of a whole, ordered by how much of it that is.
#[derive(Debug, Clone, Copy)]
struct Fraction {
    part: usize,
    whole: usize,
}

impl Ord for Fraction {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.part * other.whole).cmp(&(other.part * self.whole))
    }
}

impl PartialOrd for Fraction {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Fraction {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Fraction {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Host;
    use std::net::{IpAddr, Ipv4Addr};

    fn name(text: &str) -> HostName {
        HostName::new(text).expect("a name")
    }

    fn fleet(hosts: &[(&str, Option<&str>)]) -> (Fleet, Vec<HostName>) {
        let mut fleet = Fleet::default();
        for (host, rack) in hosts {
            let mut known = Host::new(IpAddr::V4(Ipv4Addr::LOCALHOST));
            let label = |rack: &&str| (LabelKey::new("rack").expect("a label"), LabelValue::new(*rack).expect("a value"));
            known.labels.extend(rack.as_ref().map(label));
            fleet.hosts.insert(name(host), known);
        }
        (fleet, hosts.iter().map(|(host, _)| name(host)).collect())
    }

    #[track_caller]
    fn check(hosts: &[(&str, Option<&str>)], first: usize, expect: &str) {
        let (fleet, hosts) = fleet(hosts);
        let by = LabelKey::new("rack").expect("a label");
        let (first, rest) = hosts.split_at(first);
        let ordered = order(&fleet, Some(&by), first.iter().collect(), rest.iter().collect());
        assert_eq!(ordered.iter().map(|host| host.as_str()).collect::<Vec<_>>().join(" "), expect);
    }

    #[test]
    fn racks_take_turns_and_the_last_host_of_each_comes_at_the_end() {
        check(&[("a1", Some("a")), ("a2", Some("a")), ("b1", Some("b")), ("b2", Some("b"))], 0, "a1 b1 a2 b2");
        check(&[("a1", Some("a")), ("a2", Some("a")), ("a3", Some("a")), ("b1", Some("b"))], 0, "a1 a2 a3 b1");
        check(&[("b1", Some("b")), ("a1", Some("a")), ("a2", Some("a"))], 0, "a1 b1 a2");
    }

    #[test]
    fn what_is_down_comes_first_and_counts_for_its_rack() {
        check(&[("a2", Some("a")), ("a1", Some("a")), ("b1", Some("b")), ("b2", Some("b"))], 1, "a2 b1 a1 b2");
    }

    #[test]
    fn no_wave_but_the_last_takes_a_whole_rack_while_that_can_be_helped() {
        for racks in 2..=4_usize {
            for each in 2..=5_usize {
                let hosts: Vec<(String, String)> = (0..racks)
                    .flat_map(|rack| (0..each).map(move |it| (format!("h{rack}{it}"), format!("r{rack}"))))
                    .collect();
                let hosts: Vec<(&str, Option<&str>)> =
                    hosts.iter().map(|(host, rack)| (host.as_str(), Some(rack.as_str()))).collect();
                let (fleet, names) = fleet(&hosts);
                let by = LabelKey::new("rack").expect("a label");
                let ordered = order(&fleet, Some(&by), Vec::new(), names.iter().collect());
                let wave = &ordered[..racks * (each - 1)];
                for rack in 0..racks {
                    let value = LabelValue::new(format!("r{rack}")).expect("a value");
                    let taken = wave.iter().filter(|host| group(&fleet, &by, host) == Some(&value)).count();
                    assert_eq!(taken, each - 1, "rack {rack} of {racks} racks of {each}");
                }
            }
        }
    }
}
