//! What a unit is called, what it is told, and how it is read back.
//!
//! Everything goes to systemd as typed properties, never as text of a unit file: a value cannot become a directive.

use super::bus::{Properties, State};
use super::sandbox;
use crate::runtime::command::{self, Program};
use crate::runtime::handing::{self, Outcome};
use crate::runtime::{Launch, MARK, Running, START};
use crate::secrets;
use baton_core::fleet::InstanceKey;
use baton_core::name::{Digest, ReleaseId, ServiceName};
use baton_core::problem::Problem;
use baton_core::release::{Signal, Stop};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use zbus_systemd::zbus::wire::{Fd, Variant};

/// `baton-shop-0.service`.
pub(super) fn name(key: &InstanceKey) -> String {
    format!("baton-{}-{}.service", key.service, key.slot)
}

/// The user of a service whose manifest names none. Systemd makes it up for as long as something of the service runs.
///
/// Its prefix is nobody else's: a user that does exist would be taken as it is. A name has 31 characters at most.
fn own_user(service: &ServiceName) -> String {
    let name = format!("baton-app-{service}");
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    match name.len() <= USER_MAX && name.chars().all(plain) {
        true => name,
        false => format!("baton-app-{}", Digest::of(service.as_str().as_bytes()).short()),
    }
}

const USER_MAX: usize = 31;

/// The instance a unit is of; none for units of other origin.
pub(super) fn key(name: &str) -> Option<InstanceKey> {
    let (service, slot) = name.strip_prefix("baton-")?.strip_suffix(".service")?.rsplit_once('-')?;
    format!("{service}/{slot}").parse().ok()
}

/// The unit of an instance. An application gets a world it cannot change, and a state folder of its own to write to.
pub(super) fn properties(launch: &Launch, program: &Program, mark: &str, credentials: &Path) -> Properties {
    let mut properties = Properties::default();
    let service = launch.key.service.to_string();
    let given = Path::new(CREDENTIALS).join(name(&launch.key));
    let mut all = secrets::variables(&given, launch.secrets.keys().cloned());
    all.extend(command::environment(&launch.env));
    let mut environment: Vec<_> = all.iter().map(|(name, value)| format!("{name}={value}")).collect();
    environment.push(format!("{MARK}={mark}"));
    if !launch.listen.is_empty() {
        environment.push(format!("LISTEN_FDNAMES={}", handing::names(&service, &launch.listen)));
    }
    environment.push(format!("{START}={}", launch.start));
    properties.text("Description", &format!("{service}, slot {}, run by Baton", launch.key.slot));
    // The start is over once the program itself runs, so that one that cannot is seen at once.
    properties.text("Type", "exec");
    properties.execute(&program.words());
    properties.text("WorkingDirectory", &launch.folder.display().to_string());
    properties.set("Environment", environment);
    match &launch.user {
        Some(user) => properties.text("User", user),
        None => {
            // One for all slots of the service: they share its state folder.
            properties.text("User", &own_user(&launch.key.service));
            properties.set("DynamicUser", true);
        }
    }
    if !launch.secrets.is_empty() {
        let load = |name: &String| (name.clone(), credentials.join(name).display().to_string());
        properties.set("LoadCredential", launch.secrets.keys().map(load).collect::<Vec<_>>());
        // A core dump would be a copy of them.
        properties.set("LimitCORE", 0_u64);
    }
    properties.text("KillMode", "mixed");
    properties.set("KillSignal", number(launch.stop.signal));
    properties.set("TimeoutStopUSec", u64::try_from(launch.stop.timeout.as_micros()).unwrap_or(u64::MAX));
    // An exit 0 leaves the unit there to be read.
    properties.set("RemainAfterExit", true);
    sandbox::confine(&mut properties, launch.user.as_deref());
    properties.set("StateDirectory", vec![format!("baton/{service}")]);
    properties.text("SyslogIdentifier", &service);
    let fields = [("BATON_SERVICE", service), ("BATON_RELEASE", launch.release.to_string())];
    properties.set("LogExtraFields", fields.map(|(name, value)| format!("{name}={value}").into_bytes()).to_vec());
    properties
}

/// Hands sockets to a unit's first process, which becomes the program once it has them.
pub(super) fn hand(properties: &mut Properties, sockets: &[Arc<OwnedFd>]) -> Result<Outcome, Problem> {
    let (input, outcome) = handing::hand(sockets).map_err(|error| handing::unhanded(&error))?;
    properties.descriptor("StandardInputFileDescriptor", input);
    Ok(outcome)
}

/// Whether systemd executes a program's words as they are, also when it was told to reload before it got to it.
///
/// It writes a transient unit into a file, reads that again, and a systemd before 253 makes `\;` of a `;` on the way. Whatever is
/// not plain is spelled out for the part of this agent that begins the program.
pub(super) fn stays_as_it_is(program: &Program) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b" !#&()*+,-./:<=>?@[]^_`{|}~".contains(&byte);
    program.words().iter().all(|word| word.bytes().all(plain))
}

/// Where systemd lays a unit's credentials: memory that only the unit sees.
const CREDENTIALS: &str = "/run/credentials";

/// A word that systemd would fill variables into, so that it stays as it is.
///
/// `ExecStartEx` could say so for the whole line. But a systemd before 253 writes that name into the unit's file, does not know it
/// when it reads the file again at the next `daemon-reload`, and keeps the instance as a unit with a bad setting.
fn literally(word: &str) -> String {
    word.replace('$', "$$")
}

/// Reads an instance back from its unit; none when it is not this agent's. The incarnation is the bare invocation.
pub(super) fn read(state: &State, key: &InstanceKey, mark: &str) -> Option<Running> {
    let variable = |name: &str| state.environment.iter().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    (variable(MARK) == Some(mark)).then_some(())?;
    Some(Running {
        key: key.clone(),
        release: ReleaseId(variable("BATON_RELEASE")?.parse().ok()?),
        start: variable(START).and_then(|start| start.parse().ok()).unwrap_or_default(),
        incarnation: state.invocation.clone(),
        pid: state.pid,
        folder: state.folder.trim_start_matches(['!', '-']).into(),
        stop: Stop { signal: signal(state.kill_signal), timeout: Duration::from_micros(state.timeout_stop_usec) },
    })
}

const SIGNALS: [(Signal, i32); 5] =
    [(Signal::Term, 15), (Signal::Int, 2), (Signal::Quit, 3), (Signal::Usr1, 10), (Signal::Usr2, 12)];

pub(super) fn number(signal: Signal) -> i32 {
    SIGNALS.iter().find(|(known, _)| *known == signal).map_or(15, |(_, number)| *number)
}

fn signal(number: i32) -> Signal {
    SIGNALS.iter().find(|(_, known)| *known == number).map_or(Signal::Term, |(signal, _)| *signal)
}

impl Properties {
    pub(super) fn text(&mut self, name: &str, value: &str) {
        self.set(name, value.to_owned());
    }

    /// The command line, its words as they are.
    pub(super) fn execute(&mut self, words: &[String]) {
        let literal: Vec<_> = words.iter().map(|word| literally(word)).collect();
        self.set("ExecStart", vec![(words.first().cloned().unwrap_or_default(), literal, false)]);
    }

    pub(super) fn descriptor(&mut self, name: &str, descriptor: OwnedFd) {
        self.set(name, Fd::from(descriptor));
    }

    pub(super) fn set(&mut self, name: &str, value: impl Into<Variant<'static>>) {
        self.add(name, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_named_after_its_slot_and_read_back() {
        for text in ["shop/0", "shop-2/11", "a_b/255"] {
            let instance: InstanceKey = text.parse().unwrap();
            assert_eq!(key(&name(&instance)), Some(instance));
        }
    }

    #[test]
    fn every_service_has_a_user_that_can_be_one_and_is_nobody_elses() {
        let user = |name: &str| own_user(&name.parse().unwrap());
        assert_eq!(user("shop"), "baton-app-shop");
        let long = ["a-service-with-a-rather-long-name-1", "a-service-with-a-rather-long-name-2"].map(user);
        assert!(long[0] != long[1] && long.iter().all(|name| name.len() <= USER_MAX), "{long:?}");
        assert_ne!(user("coordinator"), "baton-coordinator", "the coordinator's own");
    }

    #[test]
    fn units_of_other_origin_are_not_taken_for_instances() {
        for name in
            ["baton-agent.service", "baton-coordinator.service", "shop-0.service", "baton-shop-0.socket", "baton-0.service"]
        {
            assert_eq!(key(name), None, "{name}");
        }
    }
}
