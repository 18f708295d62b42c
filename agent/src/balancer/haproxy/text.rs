//! What HAProxy says, as values: `show info`, `show stat`, `show servers state`, `show proc`, `show sess`.

use baton_core::fleet::spec::MemberState;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// A process of HAProxy, from `show info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Info {
    pub(super) pid: u32,
    /// Seconds since 1970: with the pid, the process's identity.
    pub(super) started: u64,
    /// An old worker after a reload answers, too, and must not be told anything.
    pub(super) stopping: bool,
    /// Client connections, idle ones too.
    pub(super) connections: u64,
}

impl Info {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::trim);
        if field("Name") != Some("HAProxy") {
            return None;
        }
        Some(Self {
            pid: field("Pid")?.parse().ok()?,
            started: field("Start_time_sec")?.parse().ok()?,
            stopping: field("Stopping")? != "0",
            connections: field("CurrConns")?.parse().ok()?,
        })
    }

    pub(super) fn identity(&self) -> String {
        format!("{}@{}", self.pid, self.started)
    }
}

/// A server's line of `show servers state`, which is also its line in the state file (format 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row(Vec<String>);

/// Bits of `srv_admin_state`.
const FORCED_MAINT: u32 = 0x01;
const ANY_MAINT: u32 = 0x01 | 0x02 | 0x20;
const CONFIG_MAINT: u32 = 0x04;
const FORCED_DRAIN: u32 = 0x08;
const ANY_DRAIN: u32 = 0x08 | 0x10;

/// Columns, from 0.
const BACKEND_ID: usize = 0;
const BACKEND: usize = 1;
const SERVER: usize = 3;
const ADDRESS: usize = 4;
const OPERATION: usize = 5;
const ADMIN: usize = 6;
const WEIGHT: usize = 7;
const CONFIG_WEIGHT: usize = 8;
const AGENT: usize = 14;
const PORT: usize = 18;

/// Bits of `srv_agent_state`: configured, and not disabled by hand.
const AGENT_CHECK: u32 = 0x02 | 0x04;

/// `srv_op_state` of a server that is routed to, and of one that is not.
const RUNNING: &str = "2";
const STOPPED: &str = "0";

impl Row {
    /// All rows of a listing or a file; anything that is no row is skipped.
    pub(super) fn parse_all(text: &str) -> impl Iterator<Item = Row> + '_ {
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let fields: Vec<String> = line.split_ascii_whitespace().map(str::to_owned).collect();
            let numbers = [OPERATION, ADMIN, WEIGHT, CONFIG_WEIGHT, AGENT];
            (fields.len() > PORT && numbers.iter().all(|field| fields[*field].parse::<u32>().is_ok())).then_some(Row(fields))
        })
    }

    pub(super) fn backend_id(&self) -> &str {
        &self.0[BACKEND_ID]
    }

    pub(super) fn backend(&self) -> &str {
        &self.0[BACKEND]
    }

    pub(super) fn server(&self) -> &str {
        &self.0[SERVER]
    }

    /// Backend and server: how HAProxy finds a line of the state file again.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.backend(), self.server())
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        let ip: IpAddr = self.0[ADDRESS].parse().ok()?;
        Some(SocketAddr::new(ip, self.0[PORT].parse().ok()?))
    }

    /// What HAProxy was told about it, by anyone.
    pub(super) fn told(&self) -> MemberState {
        match self.number(ADMIN) {
            admin if admin & ANY_MAINT != 0 => MemberState::Out,
            admin if admin & ANY_DRAIN != 0 => MemberState::Drain,
            _ => MemberState::Ready,
        }
    }

    /// False when HAProxy's own check says it is down.
    pub(super) fn is_up(&self) -> bool {
        self.0[OPERATION] != STOPPED
    }

    /// Whether something else than us takes it out and puts it in. `show stat` does not tell while it is in maintenance.
    pub(super) fn has_agent_check(&self) -> bool {
        self.number(AGENT) & AGENT_CHECK == AGENT_CHECK
    }

    pub(super) fn weight(&self) -> u16 {
        u16::try_from(self.number(WEIGHT)).unwrap_or(u16::MAX)
    }

    /// Whether its line in haproxy.cfg says `disabled`.
    pub(super) fn is_disabled_in_config(&self) -> bool {
        self.number(ADMIN) & CONFIG_MAINT != 0
    }

    /// What it would be after a restart without a line in the state file, or with one that was made for another line of
    /// haproxy.cfg.
    pub(super) fn unaided(&self) -> (MemberState, u16) {
        let state = if self.is_disabled_in_config() { MemberState::Out } else { MemberState::Ready };
        (state, u16::try_from(self.number(CONFIG_WEIGHT)).unwrap_or(u16::MAX))
    }

    /// What it would be after a restart, when this line is the one in the file and `now` is the one of the running process.
    ///
    /// Source: `srv_state_srv_update` of HAProxy: a changed `disabled` or weight in haproxy.cfg wins over the file.
    pub(super) fn after_restart(&self, now: &Row) -> (MemberState, u16) {
        let (config_state, config_weight) = now.unaided();
        let state = if self.is_disabled_in_config() == now.is_disabled_in_config() { self.told() } else { config_state };
        let weight = if self.number(CONFIG_WEIGHT) == now.number(CONFIG_WEIGHT) { self.weight() } else { config_weight };
        (state, weight)
    }

    /// The line that makes HAProxy come back with this state and weight.
    pub(super) fn with(mut self, state: MemberState, weight: u16) -> Row {
        let kept = self.number(ADMIN) & CONFIG_MAINT;
        let (admin, operation) = match state {
            MemberState::Ready => (kept, RUNNING),
            MemberState::Drain => (kept | FORCED_DRAIN, RUNNING),
            MemberState::Out => (kept | FORCED_MAINT, STOPPED),
        };
        self.0[ADMIN] = admin.to_string();
        operation.clone_into(&mut self.0[OPERATION]);
        self.0[WEIGHT] = weight.to_string();
        self
    }

    pub(super) fn line(&self) -> String {
        self.0.join(" ")
    }

    fn number(&self, field: usize) -> u32 {
        self.0[field].parse().unwrap_or_default()
    }
}

/// A server's line of `show stat`, by the header's names: versions add columns in the middle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stat(BTreeMap<String, String>);

impl Stat {
    /// All lines; none without a header.
    pub(super) fn parse_all(text: &str) -> Option<Vec<Stat>> {
        let mut lines = text.lines();
        let header: Vec<String> = csv(lines.next()?.strip_prefix("# ")?);
        header.iter().any(|name| name == "scur").then(|| {
            lines
                .map(|line| Stat(header.iter().cloned().zip(csv(line)).filter(|(_, value)| !value.is_empty()).collect()))
                .collect()
        })
    }

    pub(super) fn text(&self, column: &str) -> &str {
        self.0.get(column).map_or("", String::as_str)
    }

    pub(super) fn number(&self, column: &str) -> u64 {
        self.text(column).parse().unwrap_or_default()
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
        self.0.get("req_tot").map_or_else(|| self.number("stot"), |_| self.number("req_tot"))
    }

    /// What the application answered 5xx, refused, or broke off.
    pub(super) fn errors(&self) -> u64 {
        self.number("hrsp_5xx") + self.number("econ") + self.number("eresp")
    }
}

/// One line of CSV; HAProxy quotes what holds a comma or a quote.
fn csv(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                fields.iter_mut().last().into_iter().for_each(|field| field.push('"'));
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => fields.iter_mut().last().into_iter().for_each(|field| field.push(c)),
        }
    }
    fields
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

    const ROW: &str = "3 shop 2 s2 127.0.0.1 0 5 1 1 1 1 0 0 8 0 0 0 - 18102 - 0 0 - - 0";

    fn row(text: &str) -> Row {
        Row::parse_all(text).next().unwrap()
    }

    #[test]
    fn a_server_comes_back_with_the_config_bit_it_has() {
        let row = row(ROW);
        assert_eq!((row.told(), row.is_up(), row.unaided()), (MemberState::Out, false, (MemberState::Out, 1)));
        let ready = row.clone().with(MemberState::Ready, 7);
        assert_eq!(ready.line(), "3 shop 2 s2 127.0.0.1 2 4 7 1 1 1 0 0 8 0 0 0 - 18102 - 0 0 - - 0");
        assert_eq!(ready.after_restart(&row), (MemberState::Ready, 7));
        assert_eq!(ready.with(MemberState::Out, 1), row);
    }

    #[test]
    fn a_changed_configuration_wins_over_the_file() {
        let file = row(ROW).with(MemberState::Out, 7);
        let enabled = row("3 shop 2 s2 127.0.0.1 2 0 1 9 1 1 0 0 8 0 0 0 - 18102 - 0 0 - - 0");
        assert_eq!(file.after_restart(&enabled), (MemberState::Ready, 9));
    }

    #[test]
    fn a_quoted_field_keeps_its_commas() {
        assert_eq!(csv(r#"a,"b, ""c""",,d"#), ["a", r#"b, "c""#, "", "d"]);
    }

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
