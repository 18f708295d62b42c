//! A server's administrative state: a line of `show servers state`, and of the state file.

use super::fields::Fields;
use baton_core::fleet::spec::MemberState;
use std::net::{IpAddr, SocketAddr};

/// A server's line of `show servers state`, which is also its line in the state file (format 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row(Fields);

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
const CHANGED: usize = 9;
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
            let fields: Fields = line.split_ascii_whitespace().collect();
            let numbers = [OPERATION, ADMIN, WEIGHT, CONFIG_WEIGHT, AGENT];
            let is_row = fields.len() > PORT && numbers.iter().all(|field| fields.get(*field).parse::<u32>().is_ok());
            is_row.then_some(Row(fields))
        })
    }

    pub(super) fn backend_id(&self) -> &str {
        self.0.get(BACKEND_ID)
    }

    pub(super) fn backend(&self) -> &str {
        self.0.get(BACKEND)
    }

    pub(super) fn server(&self) -> &str {
        self.0.get(SERVER)
    }

    /// Backend and server: how HAProxy finds a line of the state file again.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.backend(), self.server())
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        let ip: IpAddr = self.0.get(ADDRESS).parse().ok()?;
        Some(SocketAddr::new(ip, self.0.get(PORT).parse().ok()?))
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
        self.0.get(OPERATION) != STOPPED
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
    pub(super) fn with(&self, state: MemberState, weight: u16) -> Row {
        let kept = self.number(ADMIN) & CONFIG_MAINT;
        let (admin, operation) = match state {
            MemberState::Ready => (kept, RUNNING),
            MemberState::Drain => (kept | FORCED_DRAIN, RUNNING),
            MemberState::Out => (kept | FORCED_MAINT, STOPPED),
        };
        let (admin, weight) = (admin.to_string(), weight.to_string());
        let fields = self.0.iter().enumerate().map(|(field, before)| match field {
            ADMIN => admin.as_str(),
            OPERATION => operation,
            WEIGHT => weight.as_str(),
            // It changes now.
            CHANGED => "0",
            _ => before,
        });
        Row(fields.collect())
    }

    pub(super) fn line(&self) -> String {
        self.0.iter().collect::<Vec<_>>().join(" ")
    }

    fn number(&self, field: usize) -> u32 {
        self.0.get(field).parse().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = "3 shop 2 s2 127.0.0.1 0 5 1 1 0 1 0 0 8 0 0 0 - 18102 - 0 0 - - 0";

    fn row(text: &str) -> Row {
        Row::parse_all(text).next().unwrap()
    }

    #[test]
    fn a_server_comes_back_with_the_config_bit_it_has() {
        let row = row(ROW);
        assert_eq!((row.told(), row.is_up(), row.unaided()), (MemberState::Out, false, (MemberState::Out, 1)));
        let ready = row.with(MemberState::Ready, 7);
        assert_eq!(ready.line(), "3 shop 2 s2 127.0.0.1 2 4 7 1 0 1 0 0 8 0 0 0 - 18102 - 0 0 - - 0");
        assert_eq!(ready.after_restart(&row), (MemberState::Ready, 7));
        assert_eq!(ready.with(MemberState::Out, 1), row);
    }

    #[test]
    fn a_changed_configuration_wins_over_the_file() {
        let file = row(ROW).with(MemberState::Out, 7);
        let enabled = row("3 shop 2 s2 127.0.0.1 2 0 1 9 1 1 0 0 8 0 0 0 - 18102 - 0 0 - - 0");
        assert_eq!(file.after_restart(&enabled), (MemberState::Ready, 9));
    }
}
