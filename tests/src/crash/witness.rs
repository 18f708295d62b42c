//! Who saw requests where none may be: the balancer's own word of when a member was out, joined with the instances' own logs of
//! when each request began there.

use anyhow::Context as _;
use baton_cli::demo::stage::{BALANCER_HOST, SERVICE};
use baton_proto::v1::FleetView;
use std::collections::BTreeMap;
use std::path::Path;

/// From a look at the fleet until it is seen here, at the most. What begins so shortly before a member was last seen out may
/// have been let in meanwhile.
const SEEN_AFTER_S: f64 = 0.2;
/// The instances' clock has milliseconds.
const TICK_S: f64 = 0.002;
/// What the agent asks instances, which is no traffic.
const WATCHED: [&str; 2] = ["/healthz", "/metrics"];

/// When members were out, by their addresses.
#[derive(Debug, Default)]
pub(super) struct Witness {
    shut: BTreeMap<String, Vec<Shut>>,
}

/// From the balancer's word that nothing leads to a member, now or after a restart, until it was last seen wanted so.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Shut {
    since_s: f64,
    last_s: f64,
    is_over: bool,
}

/// A request that began where none may be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stray {
    pub(super) began_s: f64,
    pub(super) line: String,
}

impl Witness {
    /// Takes note of one look at the fleet, in the order in which they come.
    pub(super) fn note(&mut self, fleet: &FleetView, now_s: f64) {
        for host in fleet.hosts.iter().filter(|host| host.name == BALANCER_HOST) {
            let answers = host.connected && host.issued.is_some() && host.issued == host.observed;
            for pool in host.pools.iter().filter(|pool| pool.pool == SERVICE) {
                let is_read_back = answers && pool.problem.is_none();
                for member in &pool.members {
                    let said_out = is_read_back && [&member.running, &member.on_disk].iter().all(|it| *it == "out");
                    self.saw(&member.address, member.wanted == "out", said_out, now_s);
                }
            }
        }
    }

    /// Once it was read back, it stays so for as long as nothing else is asked for, whatever its balancer says while it is down.
    fn saw(&mut self, address: &str, wanted_out: bool, said_out: bool, now_s: f64) {
        let times = self.shut.entry(address.to_owned()).or_default();
        match times.last_mut().filter(|last| !last.is_over) {
            Some(last) if wanted_out => last.last_s = now_s,
            Some(last) => last.is_over = true,
            None if wanted_out && said_out => times.push(Shut { since_s: now_s, last_s: now_s, is_over: false }),
            None => {}
        }
    }

    /// How long members were out, all together, in seconds: without that the rest proves nothing.
    pub(super) fn watched_s(&self) -> f64 {
        self.shut.values().flatten().map(|shut| (shut.last_s - SEEN_AFTER_S - shut.since_s).max(0.0)).sum()
    }

    /// Reads every instance's log in a folder.
    pub(super) fn strays(&self, logs: &Path) -> anyhow::Result<Vec<Stray>> {
        let mut strays = Vec::new();
        for entry in std::fs::read_dir(logs).context("no logs")? {
            let path = entry?.path();
            let Some(address) = path.file_name().and_then(|name| address(name.to_str()?)) else { continue };
            let Some(times) = self.shut.get(&address) else { continue };
            let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            strays.extend(text.lines().filter_map(|line| stray(times, line)));
        }
        Ok(strays)
    }
}

/// `127.0.0.2:8101` of `VERSION-127.0.0.2-8101.log`.
fn address(name: &str) -> Option<String> {
    let (rest, port) = name.strip_suffix(".log")?.rsplit_once('-')?;
    let (_, address) = rest.rsplit_once('-')?;
    Some(format!("{address}:{port}"))
}

/// `MILLISECONDS VERSION PID end PATH TOOK`, in milliseconds, where it began while nothing may lead there.
fn stray(times: &[Shut], line: &str) -> Option<Stray> {
    let words = line.split(' ').collect::<Vec<_>>();
    let [ended, _, _, "end", path, took] = words[..] else { return None };
    if WATCHED.contains(&path) {
        return None;
    }
    let began_s = (ended.parse::<f64>().ok()? - took.parse::<f64>().ok()?) / 1000.0;
    let within = |shut: &&Shut| began_s > shut.since_s + TICK_S && began_s < shut.last_s - SEEN_AFTER_S;
    times.iter().find(within).map(|_| Stray { began_s, line: line.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "127.0.0.2:8101";

    #[test]
    fn a_member_is_shut_from_its_balancers_word_until_something_else_is_wanted() {
        let mut witness = Witness::default();
        for (at, wanted_out, said_out) in [
            (1.0, false, false),
            (2.0, true, false),
            (3.0, true, true),
            // Its balancer is killed, and nobody asked for anything else.
            (4.0, true, false),
            (5.0, true, true),
            (6.0, false, true),
            (7.0, false, false),
        ] {
            witness.saw(HERE, wanted_out, said_out, at);
        }
        assert_eq!(witness.shut[HERE], [Shut { since_s: 3.0, last_s: 5.0, is_over: true }]);
        assert!((witness.watched_s() - (2.0 - SEEN_AFTER_S)).abs() < 1e-9);
        witness.saw(HERE, true, true, 8.0);
        assert_eq!(witness.shut[HERE].len(), 2);
    }

    #[test]
    fn a_request_is_a_stray_where_it_began_while_its_member_was_shut() {
        let times = [Shut { since_s: 3.0, last_s: 5.0, is_over: true }];
        let is_stray = |line: &str| stray(&times, line).is_some();
        assert!(is_stray("4000 1 77 end / 500"));
        assert!(!is_stray("4000 1 77 end / 1500"), "it began before, and was let finish");
        assert!(!is_stray("4000 1 77 end /healthz 1"));
        assert!(!is_stray("4000 1 77 post t-1"));
        assert!(!is_stray("4990 1 77 end / 1"), "it may have been let in by then");
        assert_eq!(address("12-127.0.0.2-8101.log").as_deref(), Some(HERE));
        assert_eq!(address("12-127.0.0.2.txt"), None);
    }
}
