//! The few words spoken with systemd.
//!
//! State is asked for, not subscribed to: a host at rest exchanges nothing, and a systemd that re-executes itself is only a
//! connection to be made again.
//!
//! Over the system bus: on systemd's private socket, which would need none, answers come from `org.freedesktop.systemd1`, and zbus
//! takes only unique names for senders.

use super::super::End;
use baton_core::problem::{Code, Problem};
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;
use tokio::sync::Mutex;
use zbus_systemd::systemd1::ManagerProxy;
use zbus_systemd::zbus::wire::{OwnedObjectPath, OwnedVariant, Variant};
use zbus_systemd::zbus::{self, Connection};

const SERVICE: &str = "org.freedesktop.systemd1";
/// Between two looks at a unit that is about to change: at first, and at last.
const LOOK_FIRST: Duration = Duration::from_millis(1);
const LOOK_LAST: Duration = Duration::from_millis(50);
const SIGKILL: i32 = 9;
/// The exit statuses systemd keeps for itself (systemd.exec(5), "Process Exit Codes").
const PREPARATION_FAILED: RangeInclusive<i32> = 200..=245;

/// A connection that is made when it is needed, and again when it broke.
#[derive(Debug, Default)]
pub(super) struct Bus(Mutex<Option<Connection>>);

/// Properties for a new unit.
#[derive(Debug, Default)]
pub(super) struct Properties(Vec<(String, OwnedVariant)>);

/// A unit as systemd says it is.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    active: String,
    sub: String,
    result: String,
    pub(super) invocation: String,
    /// Its first process, also after that ended.
    pub(super) pid: u32,
    code: i32,
    status: i32,
    pub(super) environment: Vec<String>,
    pub(super) folder: String,
    pub(super) kill_signal: i32,
    pub(super) timeout_stop_usec: u64,
    /// A start or stop of it is queued: what it is says nothing about what it is about to be.
    queued: bool,
}

impl State {
    /// A process of it runs or is about to.
    pub(super) fn is_alive(&self) -> bool {
        let active = matches!(self.active.as_str(), "active" | "activating" | "deactivating" | "reloading");
        (active || self.queued) && !self.has_exited()
    }

    /// Its first process ended well, and the unit waits to be read.
    pub(super) fn has_exited(&self) -> bool {
        self.active == "active" && self.sub == "exited"
    }

    /// Stopped, and nothing of it is left.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.active.as_str(), "inactive" | "failed") && !self.queued
    }

    /// A start or stop of it is queued.
    #[cfg(test)]
    pub(super) fn is_queued(&self) -> bool {
        self.queued
    }

    /// Systemd prepared the process and then could not make it the program: no such user, no such folder, no such file.
    pub(super) fn never_ran(&self) -> bool {
        self.active == "failed" && (self.pid == 0 || self.code == 1 && PREPARATION_FAILED.contains(&self.status))
    }

    /// The reason of a failure, in systemd's own words.
    pub(super) fn reason(&self) -> String {
        format!("{} ({}, status {})", self.sub, self.result, self.status)
    }

    /// How its first process ended; the codes are those of `waitid`.
    pub(super) fn end(&self) -> End {
        match self.code {
            1 => End::Status(self.status),
            2 | 3 => End::Signal(self.status),
            _ => End::Unseen,
        }
    }
}

impl Properties {
    pub(super) fn add(&mut self, name: &str, value: Variant<'static>) {
        // Only a value that holds a descriptor cannot be owned.
        if let Ok(value) = OwnedVariant::try_from(value) {
            self.0.push((name.to_owned(), value));
        }
    }
}

impl Bus {
    /// The names of all units that may be instances.
    pub(super) async fn units(&self) -> Result<Vec<String>, Problem> {
        let patterns = vec!["baton-*.service".to_owned()];
        let manager = self.manager().await?;
        let units = manager.list_units_by_patterns(Vec::new(), patterns).await.map_err(|error| silent(&error))?;
        Ok(units.into_iter().map(|unit| unit.0).collect())
    }

    pub(super) async fn start(&self, name: &str, properties: Properties) -> Result<(), Problem> {
        let manager = self.manager().await?;
        let started = manager.start_transient_unit(name.to_owned(), "fail".to_owned(), properties.0, Vec::new()).await;
        started.map(drop).map_err(|error| {
            let error = error.to_string();
            let problem = Problem::new(Code(204), "systemd refused the unit").saw("unit", name).saw("systemd", &error);
            match error.contains("UnitExists") {
                // Ours are cleared away before: this one is somebody else's, and left alone.
                true => problem.help(format!(
                    "a unit of this name is there that Baton did not make: `systemctl cat {name}` shows it. Stop and remove it, \
                     or give the service another name"
                )),
                false => problem,
            }
        })
    }

    /// Asks for a stop; whether it happens is for [`Self::until`] to see.
    pub(super) async fn stop(&self, name: &str) {
        if let Ok(manager) = self.manager().await {
            let _ = manager.stop_unit(name.to_owned(), "replace".to_owned()).await;
        }
    }

    /// Of a unit, the first process alone gets it.
    pub(super) async fn signal(&self, name: &str, signal: i32) {
        if let Ok(manager) = self.manager().await {
            let _ = manager.kill_unit(name.to_owned(), "main".to_owned(), signal).await;
        }
    }

    pub(super) async fn kill(&self, name: &str) {
        if let Ok(manager) = self.manager().await {
            let _ = manager.kill_unit(name.to_owned(), "all".to_owned(), SIGKILL).await;
        }
    }

    /// Forgets a failure; a unit that has none is not touched.
    pub(super) async fn reset(&self, name: &str) {
        if let Ok(manager) = self.manager().await {
            let _ = manager.reset_failed_unit(name.to_owned()).await;
        }
    }

    /// Clears away a unit whose first process ended, with whatever else is in it.
    pub(super) async fn clear(&self, name: &str) {
        self.stop(name).await;
        self.until(name, State::is_over).await;
        self.reset(name).await;
    }

    /// The processes that are in a unit.
    pub(super) async fn processes(&self, name: &str) -> Vec<u32> {
        let Ok(manager) = self.manager().await else { return Vec::new() };
        let processes = manager.get_unit_processes(name.to_owned()).await.unwrap_or_default();
        processes.into_iter().map(|process| process.1).collect()
    }

    /// Waits until a start is over, one way or the other.
    pub(super) async fn settled(&self, name: &str) -> Result<State, Problem> {
        let settled = self.until(name, |state| state.active != "activating" && !state.queued).await;
        settled.ok_or_else(|| Problem::new(Code(204), "the unit vanished while it was started").saw("unit", name))
    }

    /// Looks until a unit is as asked; none when it is gone.
    pub(super) async fn until(&self, name: &str, holds: impl Fn(&State) -> bool) -> Option<State> {
        let mut wait = LOOK_FIRST;
        loop {
            match self.state(name).await {
                Ok(state) if state.invocation.is_empty() && state.is_over() => return None,
                Ok(state) if holds(&state) => return Some(state),
                // A systemd that does not answer just now will.
                Ok(_) | Err(_) => {}
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LOOK_LAST);
        }
    }

    /// A unit as it is; one that is not there is inactive and has no invocation.
    pub(super) async fn state(&self, name: &str) -> Result<State, Problem> {
        let manager = self.manager().await?;
        let path = match manager.get_unit(name.to_owned()).await {
            Ok(path) => path,
            Err(zbus::Error::MethodError(..)) => return Ok(State { active: "inactive".to_owned(), ..State::default() }),
            Err(error) => return Err(self.broken(&error).await),
        };
        let connection = manager.inner().connection().clone();
        let unit = all(&connection, &path, "org.freedesktop.systemd1.Unit").await;
        let service = all(&connection, &path, "org.freedesktop.systemd1.Service").await;
        match (unit, service) {
            (Ok(unit), Ok(service)) => Ok(read(unit, service)),
            // It went away between the two questions.
            (Err(zbus::Error::MethodError(..)), _) | (_, Err(zbus::Error::MethodError(..))) => {
                Ok(State { active: "inactive".to_owned(), ..State::default() })
            }
            (Err(error), _) | (_, Err(error)) => Err(self.broken(&error).await),
        }
    }

    async fn manager(&self) -> Result<ManagerProxy<'static>, Problem> {
        let mut connection = self.0.lock().await;
        let open = match connection.take() {
            Some(open) => open,
            None => Connection::system().await.map_err(|error| silent(&error))?,
        };
        let manager = ManagerProxy::builder(&open).cache_properties(zbus::proxy::CacheProperties::No).build().await;
        *connection = Some(open);
        manager.map_err(|error| silent(&error))
    }

    /// Drops a connection that failed, so that the next call makes another.
    async fn broken(&self, error: &zbus::Error) -> Problem {
        *self.0.lock().await = None;
        silent(error)
    }
}

async fn all(
    connection: &Connection,
    path: &OwnedObjectPath,
    interface: &str,
) -> zbus::Result<HashMap<String, OwnedVariant>> {
    let answer = connection
        .call_method(Some(SERVICE), path, Some("org.freedesktop.DBus.Properties"), "GetAll", &(interface,))
        .await?;
    answer.body().deserialize()
}

fn read(mut unit: HashMap<String, OwnedVariant>, mut service: HashMap<String, OwnedVariant>) -> State {
    let mut text = |name: &str| unit.remove(name).and_then(|value| String::try_from(value).ok()).unwrap_or_default();
    let (active, sub) = (text("ActiveState"), text("SubState"));
    let invocation = unit.remove("InvocationID").and_then(|value| Vec::<u8>::try_from(value).ok()).unwrap_or_default();
    let job = unit.remove("Job").and_then(|value| <(u32, OwnedObjectPath)>::try_from(value).ok());
    let mut number = |name: &str| service.remove(name).and_then(|value| i32::try_from(value).ok()).unwrap_or_default();
    let (code, status, kill_signal) = (number("ExecMainCode"), number("ExecMainStatus"), number("KillSignal"));
    let mut text = |name: &str| service.remove(name).and_then(|value| String::try_from(value).ok()).unwrap_or_default();
    let (result, folder) = (text("Result"), text("WorkingDirectory"));
    State {
        active,
        sub,
        result,
        invocation: invocation.iter().map(|byte| format!("{byte:02x}")).collect(),
        pid: service.remove("ExecMainPID").and_then(|value| u32::try_from(value).ok()).unwrap_or_default(),
        code,
        status,
        environment: service.remove("Environment").and_then(|value| Vec::try_from(value).ok()).unwrap_or_default(),
        folder,
        kill_signal,
        queued: job.is_some_and(|(number, _)| number != 0),
        timeout_stop_usec: service.remove("TimeoutStopUSec").and_then(|value| u64::try_from(value).ok()).unwrap_or_default(),
    }
}

fn silent(error: &zbus::Error) -> Problem {
    Problem::new(Code(208), "systemd does not answer").saw("systemd", error.to_string()).help(
        "is this host run by systemd, and the agent by root? Else set `runtime = \"process\"` in /etc/baton/agent.toml",
    )
}
