//! The server-state file: what HAProxy does after a restart.
//!
//! HAProxy reads it at start and never writes it. Lines of servers that are not ours are kept as they are: an operator may
//! write the same file before a reload.

use super::row::Row;
use crate::balancer::{durable, problem};
use crate::durable::Prepared;
use baton_core::fleet::spec::MemberState;
use baton_core::problem::Problem;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// Names of the columns, as HAProxy 2.2 and later write them.
const HEADER: &str = "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight \
srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state \
bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr \
srv_agent_port";

/// The file's lines, by backend and server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct StateFile(BTreeMap<String, Row>);

impl StateFile {
    /// Reads the file. One that is missing, or of a format HAProxy would refuse, has no lines: HAProxy would start by its
    /// configuration alone.
    pub(super) fn read(path: &Path) -> Result<Self, Problem> {
        match std::fs::read_to_string(path) {
            Ok(text) if text.lines().next().is_some_and(|version| version.trim() == "1") => {
                Ok(Self(Row::parse_all(&text).map(|row| (row.name(), row)).collect()))
            }
            Ok(_) => Ok(Self::default()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(problem::state_file(path, &error)),
        }
    }

    /// What a running server would be after a restart.
    pub(super) fn after_restart(&self, now: &Row) -> (MemberState, u16) {
        self.0.get(&now.name()).map_or_else(|| now.unaided(), |line| line.after_restart(now))
    }

    /// The file with these lines; None: it has them.
    pub(super) fn changed(&self, lines: impl IntoIterator<Item = Row>) -> Option<Self> {
        let mut file = self.clone();
        lines.into_iter().for_each(|line| file.set(line));
        (file != *self).then_some(file)
    }

    pub(super) fn set(&mut self, row: Row) {
        self.0.insert(row.name(), row);
    }

    /// The lines of one backend.
    pub(super) fn rows<'a>(&'a self, backend: &'a str) -> impl Iterator<Item = &'a Row> + 'a {
        self.0.values().filter(move |row| row.backend() == backend)
    }

    fn text(&self) -> String {
        let mut text = format!("1\n{HEADER}\n");
        for row in self.0.values() {
            text.push_str(&row.line());
            text.push('\n');
        }
        text
    }

    /// Replaces the file, whole: a HAProxy that starts from now on reads the new one. After a power cut it does so once
    /// [`settle`] is through. What was made ready for it is used, or thrown away.
    pub(super) async fn put(&self, path: &Path, ready: Option<Ready>) -> Result<(), Problem> {
        // A rename: waiting for another thread would take longer.
        if ready.filter(|ready| ready.is(self)).is_some_and(|ready| ready.prepared.put().is_ok()) {
            return Ok(());
        }
        durable::put(path, self.text()).await.map_err(|error| problem::state_file(path, &error))
    }

    /// Makes the file ready to be put.
    pub(super) async fn prepare(self, path: &Path) -> Option<Ready> {
        // What cannot be written is said when it has to be.
        let prepared = durable::prepare(path, self.text()).await.ok()?;
        Some(Ready { file: self, prepared, at: Instant::now() })
    }
}

/// A state file that nobody reads yet.
#[derive(Debug)]
pub(super) struct Ready {
    file: StateFile,
    prepared: Prepared,
    at: Instant,
}

/// What was made ready longer ago was made for something that did not happen.
const FRESH: Duration = Duration::from_secs(1);

impl Ready {
    /// Whether it is this file, and was written just now.
    pub(super) fn is(&self, file: &StateFile) -> bool {
        self.file == *file && self.at.elapsed() < FRESH
    }
}

/// Waits until a file that was put is there after a power cut, too.
pub(super) async fn settle(path: &Path) -> Result<(), Problem> {
    durable::settle(path).await.map_err(|error| problem::state_file(path, &error))
}

/// When the file was last written, in seconds since 1970.
pub(super) fn written_at(path: &Path) -> Option<u64> {
    let modified = std::fs::metadata(path).ok()?.modified().ok()?;
    modified.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs())
}
