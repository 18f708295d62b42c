//! What HAProxy says, as values: `show info`, `show stat`, `show proc`, `show sess`.

use super::fields::Fields;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// A process of HAProxy, from `show info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// Seconds since 1970: with the pid, the process's identity.
    pub(super) started: u64,
    /// Seconds since then.
    pub(super) lived: u64,
    /// An old worker after a reload answers, too, and must not be told anything.
    pub(super) stopping: bool,
    /// Client connections, idle ones too.
    pub(super) connections: u64,
}

impl Process {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::trim);
        if field("Name") != Some("HAProxy") {
            return None;
        }
        Some(Self {
            pid: field("Pid")?.parse().ok()?,
            started: field("Start_time_sec")?.parse().ok()?,
            lived: field("Uptime_sec").and_then(|lived| lived.parse().ok()).unwrap_or_default(),
            stopping: field("Stopping")? != "0",
            connections: field("CurrConns")?.parse().ok()?,
        })
    }

    pub(super) fn identity(&self) -> String {
        format!("{}@{}", self.pid, self.started)
    }
}

/// A server's line of `show stat`, by the header's names: versions add columns in the middle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stat {
    /// Where each column is, in all lines of one answer.
    columns: Arc<BTreeMap<String, usize>>,
    fields: Fields,
}

impl Stat {
    /// All lines; none without a header.
    pub(super) fn parse_all(text: &str) -> Option<Vec<Stat>> {
        let mut lines = text.lines();
        let header = Fields::csv(lines.next()?.strip_prefix("# ")?);
        let columns: BTreeMap<String, usize> = header.iter().enumerate().map(|(at, name)| (name.to_owned(), at)).collect();
        let columns = Arc::new(columns);
        let line = |line| Stat { columns: Arc::clone(&columns), fields: Fields::csv(line) };
        columns.contains_key("scur").then(|| lines.map(line).collect())
    }

    pub(super) fn text(&self, column: &str) -> &str {
        self.columns.get(column).map_or("", |at| self.fields.get(*at))
    }

    pub(super) fn number(&self, column: &str) -> u64 {
        self.text(column).parse().unwrap_or_default()
    }

    /// The line of a backend as a whole.
    pub(super) fn is_backend(&self) -> bool {
        self.text("type") == "1"
    }

    pub(super) fn is_server(&self) -> bool {
        self.text("type") == "2"
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.text("addr").parse().ok()
    }

    /// In flight and in the server's own queue: exact, see `scur+qcur` under load in the contract tests.
    pub(super) fn in_flight(&self) -> u64 {
        self.number("scur") + self.number("qcur")
    }

    /// Requests, or connections where HAProxy does not look into them.
    pub(super) fn requests(&self) -> u64 {
        self.number(if self.text("req_tot").is_empty() { "stot" } else { "req_tot" })
    }

    /// What the application answered 5xx, refused, or broke off, as far as HAProxy counts it.
    pub(super) fn errors(&self) -> u64 {
        self.number("hrsp_5xx") + self.number("econ") + self.number("eresp")
    }
}

/// The workers a master has, from `show proc`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Workers {
    pub(super) current: Vec<u32>,
    /// From before the last reload, still serving what they had.
    pub(super) old: Vec<u32>,
}

impl Workers {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut workers = Workers::default();
        let mut section = "";
        let mut lines = text.lines();
        lines.next()?.starts_with("#<PID>").then_some(())?;
        for line in lines {
            if line.starts_with('#') {
                section = line.trim();
                continue;
            }
            let mut words = line.split_ascii_whitespace();
            let (Some(pid), Some("worker")) = (words.next().and_then(|pid| pid.parse().ok()), words.next()) else {
                continue;
            };
            match section {
                "# workers" => workers.current.push(pid),
                "# old workers" => workers.old.push(pid),
                _ => {}
            }
        }
        Some(workers)
    }
}

/// A stream of `show sess`: its id, and the backend and server it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) id: String,
    pub(super) backend: String,
    pub(super) server: String,
}

impl Stream {
    /// Streams of clients; HAProxy's own command line is none.
    pub(super) fn parse_all(text: &str) -> Vec<Stream> {
        text.lines()
            .filter(|line| line.starts_with("0x") && !line.contains(" fe=GLOBAL "))
            .filter_map(|line| {
                let word = |key: &str| line.split(' ').find_map(|word| word.strip_prefix(key)).map(str::to_owned);
                Some(Stream { id: line.split(':').next()?.to_owned(), backend: word("be=")?, server: word("srv=")? })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_read_by_name_and_connections_stand_in_for_requests() {
        let stats = Stat::parse_all("# pxname,svname,qcur,scur,stot,req_tot,addr\nshop,s1,1,2,9,,[::1]:80\n").unwrap();
        assert_eq!((stats[0].in_flight(), stats[0].requests()), (3, 9));
        assert_eq!(stats[0].address(), "[::1]:80".parse().ok());
        assert_eq!(Stat::parse_all("No such proxy.\n"), None);
    }

    #[test]
    fn old_workers_are_told_from_current_ones() {
        let text = "#<PID>          <type>          <reloads>       <uptime>        <version>      \n\
            30930           master          2 [failed: 0]   0d00h00m21s     2.6.12\n# workers\n\
            31569           worker          0               0d00h00m02s     2.6.12\n# old workers\n\
            31288           worker          1               0d00h00m19s     2.6.12\n# programs\n";
        assert_eq!(Workers::parse(text), Some(Workers { current: vec![31569], old: vec![31288] }));
        assert_eq!(Workers::parse("Unknown command\n"), None);
    }

    #[test]
    fn only_streams_of_clients_count() {
        let text = "0x7f30: proto=tcpv4 src=127.0.0.1:43558 fe=f be=shop srv=s1 ts=00\n\
            0x55ba: proto=sockpair src=unix:3 fe=GLOBAL be=<NONE> srv=<none> ts=00\n";
        let stream = Stream { id: "0x7f30".into(), backend: "shop".into(), server: "s1".into() };
        assert_eq!(Stream::parse_all(text), [stream]);
    }
}
