//! The file that nginx includes: Baton's upstreams, and the place where nginx says which of its versions it serves.
//!
//! A text in both directions. What a person edits in it is seen, because the text is no longer the one its content gives.

use super::{NginxConfig, line, sides, workers};
use baton_core::fleet::spec::MemberState;
use baton_core::fleet::split::{Side, TrafficSplit};
use baton_core::name::PoolName;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

/// How the file begins; a file that begins differently is somebody else's and is not written to.
const MARK: &str = "# Baton";

/// How the line begins by which nginx says its requests.
const LOG: &str = "access_log syslog:";

/// Where nginx answers.
pub(super) const PATH: &str = "/baton";

/// The members of every pool.
pub(super) type Pools = BTreeMap<PoolName, BTreeMap<SocketAddr, Line>>;

/// One member's line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) state: MemberState,
    pub(super) weight: u16,
    pub(super) side: Side,
}

/// How each pool that divides its requests does so.
pub(super) type Splits = BTreeMap<PoolName, TrafficSplit>;

/// The file's content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) generation: u64,
    pub(super) pools: Pools,
    pub(super) splits: Splits,
    /// Requests are said to whoever counts them.
    pub(super) logged: bool,
}

/// What is in the file's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Missing,
    Foreign,
    Ours {
        page: Page,
        /// Not the text this agent would have written.
        edited: bool,
    },
}

impl Place {
    pub(super) fn parse(text: &str, config: &NginxConfig) -> Self {
        if text.trim().is_empty() {
            return Self::Missing;
        }
        if !text.starts_with(MARK) {
            return Self::Foreign;
        }
        let page = Page::parse(text);
        let edited = page.render(config) != text;
        Self::Ours { page, edited }
    }
}

impl Page {
    /// The whole text.
    ///
    /// `max_fails=0`: by default one refused connection takes a member out for ten seconds, and a rolling restart of two
    /// members within that time leaves nobody. A pool with nobody in it keeps a line, as nginx refuses an empty one.
    pub(super) fn render(&self, config: &NginxConfig) -> String {
        let mut text = format!("{MARK} writes this file anew at each change and reloads nginx; edits are set right.\n");
        let _ = writeln!(text, "server {{\n    listen {};\n    access_log off;\n    location = {PATH} {{", config.status);
        let _ = writeln!(text, "        default_type text/plain;\n        add_header Baton-Generation {};", self.generation);
        for (pool, members) in &self.pools {
            let _ = writeln!(text, "        add_header Baton-Pool {pool};");
            for (address, line) in members {
                let _ = writeln!(text, "        add_header Baton-Member \"{pool} {address} {}\";", line.words());
            }
        }
        for (pool, split) in &self.splits {
            let _ = writeln!(text, "        add_header Baton-Split \"{pool} {split}\";");
        }
        let _ = writeln!(
            text,
            "        return 200 \"baton $pid $nginx_version\\n\";\n    }}\n    location / {{ return 404; }}\n}}"
        );
        let _ = writeln!(text, "log_format {} \"{}\";", line::FORMAT, line::VARIABLES);
        if self.logged {
            text.push_str(&access_log(config));
        }
        for (pool, members) in &self.pools {
            upstream(&mut text, pool.as_str(), members, Side::Stable, config);
            if self.splits.contains_key(pool) || members.values().any(|line| line.side == Side::Trial) {
                upstream(&mut text, &sides::trial(pool), members, Side::Trial, config);
            }
            let is_in = |side| members.values().any(|line| line.side == side && line.state == MemberState::Ready);
            let served = sides::Served { stable: is_in(Side::Stable), trial: is_in(Side::Trial) };
            text.push_str(&sides::render(pool, self.splits.get(pool), served));
        }
        text
    }

    /// Reads the lines nginx goes by, whoever wrote them.
    fn parse(text: &str) -> Self {
        let mut page = Self::default();
        let mut pool: Option<(PoolName, Side)> = None;
        for line in text.lines().map(str::trim) {
            if let Some(generation) = line.strip_prefix("add_header Baton-Generation ") {
                page.generation = generation.trim_end_matches(';').parse().unwrap_or_default();
            } else if let Some(words) = line.strip_prefix("add_header Baton-Split ") {
                page.splits.extend(sides::of_answer(words.trim_end_matches(';').trim_matches('"')));
            } else if line.starts_with(LOG) {
                page.logged = true;
            } else if let Some(name) = line.strip_prefix("upstream ") {
                pool = sides::of_upstream(name.trim_end_matches('{').trim());
                if let Some((pool, _)) = &pool {
                    page.pools.entry(pool.clone()).or_default();
                }
            } else if let (Some(server), Some((pool, side))) = (line.strip_prefix("server "), &pool)
                && let Some((address, line)) = Line::of_server(server, *side)
            {
                page.pools.entry(pool.clone()).or_default().insert(address, line);
            }
        }
        page
    }
}

/// What has nginx say each request that it sends to an upstream, to whoever listens beside its own status.
pub(super) fn access_log(config: &NginxConfig) -> String {
    let (address, format) = (workers::address(config.status), line::FORMAT);
    format!("{LOG}server={address},nohostname,tag={format} {format} if=$upstream_addr;\n")
}

/// The `upstream` of one side.
fn upstream(text: &mut String, name: &str, members: &BTreeMap<SocketAddr, Line>, side: Side, config: &NginxConfig) {
    let _ = writeln!(text, "upstream {name} {{");
    for line in &config.upstream {
        let _ = writeln!(text, "    {};", line.trim_end_matches(';'));
    }
    let mut nobody = true;
    for (address, line) in members.iter().filter(|(_, line)| line.side == side) {
        let out = match line.state {
            MemberState::Ready => ";",
            MemberState::Drain => " down; # drain",
            MemberState::Out => " down; # out",
        };
        nobody = false;
        let _ = writeln!(text, "    server {address} weight={} max_fails=0{out}", line.weight);
    }
    if nobody {
        let _ = writeln!(text, "    server 127.0.0.1:1 down; # nobody");
    }
    let _ = writeln!(text, "}}");
}

impl Line {
    fn words(self) -> String {
        let state = match self.state {
            MemberState::Ready => "ready",
            MemberState::Drain => "drain",
            MemberState::Out => "out",
        };
        let side = if self.side == Side::Trial { " trial" } else { "" };
        format!("{state} {}{side}", self.weight)
    }

    /// From nginx's answer: `POOL ADDRESS STATE WEIGHT`, and `trial` for a member on trial.
    pub(super) fn of_answer(text: &str) -> Option<(PoolName, SocketAddr, Self)> {
        let mut words = text.split_ascii_whitespace();
        let (pool, address) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let state = match words.next()? {
            "ready" => MemberState::Ready,
            "drain" => MemberState::Drain,
            "out" => MemberState::Out,
            _ => return None,
        };
        let weight = words.next()?.parse().ok()?;
        let side = if words.next() == Some("trial") { Side::Trial } else { Side::Stable };
        Some((pool, address, Self { state, weight, side }))
    }

    /// From what follows `server` in an upstream.
    fn of_server(text: &str, side: Side) -> Option<(SocketAddr, Self)> {
        let (words, remark) = text.split_once(';')?;
        let mut words = words.split_ascii_whitespace();
        let address: SocketAddr = words.next()?.parse().ok()?;
        let mut line = Self { state: MemberState::Ready, weight: 1, side };
        for word in words {
            if word == "down" {
                line.state = if remark.trim() == "# drain" { MemberState::Drain } else { MemberState::Out };
            } else if let Some(weight) = word.strip_prefix("weight=") {
                line.weight = weight.parse().ok()?;
            }
        }
        (remark.trim() != "# nobody").then_some((address, line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> NginxConfig {
        NginxConfig {
            drift: crate::balancer::Drift::Correct,
            include: "/etc/nginx/baton.conf".into(),
            status: "127.0.0.1:8079".parse().unwrap(),
            pid_file: "/run/nginx.pid".into(),
            binary: "nginx".into(),
            config: None,
            prefix: None,
            upstream: vec!["keepalive 16".to_owned()],
        }
    }

    fn page() -> Page {
        let lines = [(1, MemberState::Ready, 3), (2, MemberState::Drain, 1), (3, MemberState::Out, 1)];
        let side = |host| if host == 3 { Side::Trial } else { Side::Stable };
        let member =
            |(host, state, weight)| (SocketAddr::from(([127, 0, 0, host], 80)), Line { state, weight, side: side(host) });
        let pools = BTreeMap::from([
            ("empty".parse().unwrap(), BTreeMap::new()),
            ("shop".parse().unwrap(), lines.into_iter().map(member).collect()),
        ]);
        let rules = vec!["header X-Beta = 1".parse().unwrap(), "cookie cohort = staff".parse().unwrap()];
        let sticky = Some("cookie uid".parse().unwrap());
        let split = TrafficSplit { share: "0.25%".parse().unwrap(), sticky, rules };
        Page { generation: 7, pools, splits: BTreeMap::from([("shop".parse().unwrap(), split)]), logged: true }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let text = page().render(&config());
        assert_eq!(Place::parse(&text, &config()), Place::Ours { page: page(), edited: false });
        assert!(text.contains("    keepalive 16;\n    server 127.0.0.1:80 weight=3 max_fails=0;\n"), "{text}");
        assert!(text.contains("server 127.0.0.3:80 weight=1 max_fails=0 down; # out\n"), "{text}");
        assert!(text.contains("upstream empty {\n    keepalive 16;\n    server 127.0.0.1:1 down; # nobody\n}\n"), "{text}");
    }

    #[test]
    fn requests_are_said_only_where_they_may_be() {
        let text = page().render(&config());
        let line = "access_log syslog:server=127.0.0.1:8079,nohostname,tag=baton baton if=$upstream_addr;\n";
        assert!(text.contains(line), "{text}");
        let silent = Page { logged: false, ..page() };
        let text = silent.render(&config());
        assert!(text.contains("log_format baton ") && !text.contains(line), "{text}");
        assert_eq!(Place::parse(&text, &config()), Place::Ours { page: silent, edited: false });
    }

    #[test]
    fn an_edit_is_seen_and_the_lines_nginx_goes_by_count() {
        let text = page().render(&config()).replace("weight=1 max_fails=0 down; # out", "weight=1;");
        let Place::Ours { page, edited } = Place::parse(&text, &config()) else { panic!("it is ours") };
        let shop: PoolName = "shop".parse().unwrap();
        assert!(edited);
        assert_eq!(page.pools[&shop][&"127.0.0.3:80".parse().unwrap()].state, MemberState::Ready);
    }

    #[test]
    fn other_peoples_files_are_not_ours() {
        assert_eq!(Place::parse("upstream shop { server 127.0.0.1:80; }", &config()), Place::Foreign);
        assert_eq!(Place::parse(" \n", &config()), Place::Missing);
    }

    #[test]
    fn an_answer_is_a_member_or_nothing() {
        let (pool, address, line) = Line::of_answer("shop [::1]:80 drain 2").unwrap();
        assert_eq!((pool.as_str(), address.to_string().as_str()), ("shop", "[::1]:80"));
        assert_eq!(line, Line { state: MemberState::Drain, weight: 2, side: Side::Stable });
        let trial = Line::of_answer("shop [::1]:80 ready 1 trial").unwrap().2;
        assert_eq!(trial, Line { state: MemberState::Ready, weight: 1, side: Side::Trial });
        assert_eq!(Line::of_answer("shop 127.0.0.1:80 sleeping 2"), None);
    }
}
