//! The coordinator's settings: where it listens, where it keeps what it knows.

use baton_core::problem::{Code, Problem};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the settings are when nobody says otherwise.
pub const DEFAULT_PATH: &str = "/etc/baton/coordinator.toml";

/// Every key has a default, so the file may be empty or missing.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where agents and operators connect.
    pub listen: SocketAddr,
    /// Where `baton` on this machine connects.
    pub socket: PathBuf,
    /// Authority, fleet state and artifacts.
    pub state: PathBuf,
    /// How long certificates of hosts, operators and the coordinator itself last; they renew themselves after two thirds.
    #[serde(deserialize_with = "life")]
    pub certificate_life: Duration,
    /// How many artifacts of each service stay beside those that are in use.
    pub keep_artifacts: usize,
    /// Where Prometheus may ask; None: nowhere.
    pub metrics: Option<SocketAddr>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7443),
            socket: PathBuf::from("/run/baton/coordinator.sock"),
            state: PathBuf::from("/var/lib/baton-coordinator"),
            certificate_life: Duration::from_secs(90 * 24 * 3600),
            keep_artifacts: 10,
            metrics: None,
        }
    }
}

/// Shorter ones would be renewed all the time, longer ones would outlive the people who remember them.
const LIFE: std::ops::RangeInclusive<Duration> = Duration::from_secs(3)..=Duration::from_secs(400 * 24 * 3600);

fn life<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    let life = humantime::parse_duration(&text).map_err(|error| D::Error::custom(format!("`{text}`: {error}")))?;
    match LIFE.contains(&life) {
        true => Ok(life),
        false => Err(D::Error::custom(format!("certificate_life is {text}: from 3s to 400d, such as \"90d\""))),
    }
}

impl Config {
    /// How long certificates last, in seconds.
    #[must_use]
    pub fn life(&self) -> i64 {
        i64::try_from(self.certificate_life.as_secs()).unwrap_or(i64::MAX)
    }

    /// Reads the settings; a missing file at the default path is an empty one.
    ///
    /// # Errors
    /// B1007 names the file, the line and the key.
    pub fn load(path: Option<&Path>) -> Result<Self, Problem> {
        let at = path.unwrap_or(Path::new(DEFAULT_PATH));
        match std::fs::read_to_string(at) {
            Ok(text) => Self::parse(at, &text),
            Err(error) if error.kind() == ErrorKind::NotFound && path.is_none() => Ok(Self::default()),
            Err(error) => Err(Problem::new(Code(1007), format!("cannot read {}", at.display()))
                .saw("file system", error.to_string())
                .help("name the file with --config")),
        }
    }

    fn parse(at: &Path, text: &str) -> Result<Self, Problem> {
        toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            Problem::new(Code(1007), format!("{}:{line} is not a setting of the coordinator", at.display()))
                .saw("toml", error.message().to_owned())
                .help("the keys are listen, socket, state, certificate_life and metrics")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_means_the_defaults() {
        assert_eq!(Config::parse(Path::new("c.toml"), "").unwrap(), Config::default());
    }

    #[test]
    fn the_life_of_certificates_is_a_duration_within_bounds() {
        let parse = |life: &str| Config::parse(Path::new("c.toml"), &format!("certificate_life = \"{life}\""));
        assert_eq!(parse("30d").unwrap().life(), 30 * 24 * 3600);
        for wrong in ["1s", "10y", "soon", ""] {
            assert_eq!(parse(wrong).unwrap_err().code, Code(1007), "{wrong}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let refused = Config::parse(Path::new("c.toml"), "listen = \"127.0.0.1:0\"\nsokcet = \"x\"\n").unwrap_err();
        assert_eq!(refused.code, Code(1007));
        assert!(refused.what.contains("c.toml:2"), "{refused}");
        assert!(refused.seen[0].1.contains("sokcet"), "{refused:?}");
    }
}
