//! The coordinator's settings: where it listens, where it keeps what it knows.

use baton_core::problem::{Code, Problem};
use serde::Deserialize;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

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
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7443),
            socket: PathBuf::from("/run/baton/coordinator.sock"),
            state: PathBuf::from("/var/lib/baton-coordinator"),
        }
    }
}

impl Config {
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
                .help("the keys are listen, socket and state")
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
    fn an_unknown_key_is_refused_with_its_line() {
        let refused = Config::parse(Path::new("c.toml"), "listen = \"127.0.0.1:0\"\nsokcet = \"x\"\n").unwrap_err();
        assert_eq!(refused.code, Code(1007));
        assert!(refused.what.contains("c.toml:2"), "{refused}");
        assert!(refused.seen[0].1.contains("sokcet"), "{refused:?}");
    }
}
