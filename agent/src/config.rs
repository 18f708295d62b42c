//! The agent's configuration: almost empty, and strict.

use crate::balancer::BalancerConfig;
use baton_core::problem::{Code, Problem};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Where it is looked for.
pub const DEFAULT_PATH: &str = "/etc/baton/agent.toml";
const DEFAULT_STATE: &str = "/var/lib/baton-agent";

/// `agent.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `HOST:PORT` of the coordinator; empty: the one this host joined.
    pub coordinator: String,
    /// The name to ask for when joining; the coordinator decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where balancers reach this host's instances; none: where its connection comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    pub state: PathBuf,
    pub runtime: RuntimeKind,
    /// Where Prometheus may ask; None: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balancer: Option<BalancerConfig>,
}

/// How instances become processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuntimeKind {
    /// systemd where it runs this host and the agent may use it, processes elsewhere.
    #[default]
    Auto,
    Systemd,
    Process,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            coordinator: String::new(),
            name: None,
            address: None,
            state: DEFAULT_STATE.into(),
            runtime: RuntimeKind::Auto,
            metrics: None,
            balancer: None,
        }
    }
}

impl Config {
    /// Reads a configuration; the default one need not be there, a named one must.
    ///
    /// # Errors
    /// B0530: the file cannot be read or understood, with the place.
    pub fn load(path: Option<&Path>) -> Result<Self, Problem> {
        let shown = path.unwrap_or(Path::new(DEFAULT_PATH));
        let refuse = |why: String| Problem::new(Code(530), format!("`{}` cannot be used", shown.display())).saw("seen", why);
        match fs::read_to_string(shown) {
            Ok(text) => toml::from_str(&text).map_err(|error| refuse(error.to_string())),
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_none() => Ok(Self::default()),
            Err(error) => {
                Err(refuse(crate::text::io_error(&error))
                    .help("--config names the file; without it every key has its default"))
            }
        }
    }

    /// The folder of certificate, key and authority.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.state.join("identity")
    }

    /// Where the coordinator is: configured, or remembered from joining.
    ///
    /// # Errors
    /// B0531: neither.
    pub fn endpoint(&self) -> Result<String, Problem> {
        if !self.coordinator.is_empty() {
            return Ok(self.coordinator.clone());
        }
        let joined = fs::read_to_string(self.endpoint_file()).map(|endpoint| endpoint.trim().to_owned());
        joined.map_err(|_| not_joined())
    }

    pub(crate) fn endpoint_file(&self) -> PathBuf {
        self.identity().join("coordinator")
    }
}

/// B0531: neither an address nor a certificate came from joining.
pub(crate) fn not_joined() -> Problem {
    Problem::new(Code(531), "this host has not joined a coordinator")
        .help("baton-agent join HOST:PORT --token-file FILE (the token: `baton token create` at the coordinator)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, Problem> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.toml");
        fs::write(&path, text).unwrap();
        Config::load(Some(&path))
    }

    #[test]
    fn an_empty_file_is_enough() {
        assert_eq!(load("").unwrap(), Config::default());
    }

    #[test]
    fn an_unknown_key_is_an_error_with_its_place() {
        let problem = load("runtime = \"process\"\ncoordinater = \"x:1\"\n").unwrap_err();
        assert!(problem.seen[0].1.contains("line 2"), "{problem:?}");
        assert!(problem.seen[0].1.contains("coordinater"));
    }

    #[test]
    fn what_is_written_counts() {
        let config = Config { coordinator: "127.0.0.1:7443".to_owned(), runtime: RuntimeKind::Process, ..Config::default() };
        assert_eq!(load("coordinator = \"127.0.0.1:7443\"\nruntime = \"process\"").unwrap(), config);
    }

    #[test]
    fn a_named_file_must_be_there_and_a_host_that_never_joined_says_how() {
        assert_eq!(Config::load(Some(Path::new("/none/agent.toml"))).unwrap_err().code, Code(530));
        let folder = tempfile::tempdir().unwrap();
        let config = Config { state: folder.path().to_owned(), ..Config::default() };
        assert_eq!(config.endpoint().unwrap_err().code, Code(531));
    }
}
