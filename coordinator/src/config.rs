//! The coordinator's settings: where it listens, where it keeps what it knows.

use baton_core::problem::{Code, Problem};
use baton_core::settings::{File, Keys, Mistakes};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::DeTable;

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
        false => Err(D::Error::custom(format!("`{text}` is out of bounds"))),
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
    /// B1007 names the file, the line and the key, of everything that is wrong.
    pub fn load(path: Option<&Path>) -> Result<Self, Mistakes> {
        let at = path.unwrap_or(Path::new(DEFAULT_PATH));
        match std::fs::read_to_string(at) {
            Ok(text) => Self::parse(at, &text),
            Err(error) if error.kind() == ErrorKind::NotFound && path.is_none() => Ok(Self::default()),
            Err(error) => Err(Problem::new(Code(1007), format!("cannot read {}", at.display()))
                .saw("file system", error.to_string())
                .help("name the file with --config")
                .into()),
        }
    }

    fn parse(at: &Path, text: &str) -> Result<Self, Mistakes> {
        toml::from_str(text).map_err(|error| {
            let path = at.display().to_string();
            let file = File { code: Code(1007), path: &path, text };
            let read = |table| Self::deserialize(toml::de::ValueDeserializer::from(table)).err();
            let mut found = DeTable::parse(text).map(|root| file.every("", KEYS, root, read)).unwrap_or_default();
            found.sort_by_key(|(at, _)| *at);
            match found.is_empty() {
                true => file.refusal("", KEYS, &error).into(),
                false => Mistakes(found.into_iter().map(|(_, problem)| problem).collect()),
            }
        })
    }
}

/// Every key, with what its value must be.
pub const KEYS: Keys = &[
    ("listen", "an address with a port, such as \"0.0.0.0:7443\""),
    ("socket", "the path of a socket, such as \"/run/baton/coordinator.sock\""),
    ("state", "a folder, such as \"/var/lib/baton-coordinator\""),
    ("certificate_life", "a duration from 3s to 400d, such as \"90d\""),
    ("keep_artifacts", "a whole number of artifacts, such as 10"),
    ("metrics", "an address with a port, such as \"127.0.0.1:9464\""),
];

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
            assert_eq!(parse(wrong).unwrap_err().0[0].code, Code(1007), "{wrong}");
        }
    }

    #[test]
    fn every_mistake_has_its_place_and_what_is_allowed() {
        let check = |text: &str, expect: [&str; 3]| {
            let Mistakes(found) = Config::parse(Path::new("c.toml"), text).unwrap_err();
            let [refused] = found.as_slice() else { panic!("{found:?}") };
            let said = [refused.what.as_str(), refused.seen[0].1.as_str(), refused.help.as_deref().unwrap_or_default()];
            assert_eq!((refused.code, said), (Code(1007), expect), "{refused:?}");
        };
        let all = "the keys are `listen`, `socket`, `state`, `certificate_life`, `keep_artifacts`, `metrics`";
        let mistyped = ["unknown key `sokcet`", "c.toml:2:1", &format!("did you mean `socket`? {all}")];
        check("listen = \"127.0.0.1:0\"\nsokcet = \"x\"\n", mistyped);
        let version = env!("CARGO_PKG_VERSION");
        let later =
            format!("{all}; it was read by Baton {version}, and a later version may know it: upgrade that, or take it out");
        check("ca_days = \"x\"\n", ["unknown key `ca_days`", "c.toml:1:1", &later]);
        let many = "`keep_artifacts` must be a whole number of artifacts, such as 10";
        check("keep_artifacts = \"x\"\n", [many, "c.toml:1:18", ""]);
        let life = "`certificate_life` must be a duration from 3s to 400d, such as \"90d\"";
        check("\ncertificate_life = \"1s\"\n", [life, "c.toml:2:20", ""]);
        check(
            "listen = \"7443\"\n",
            ["`listen` must be an address with a port, such as \"0.0.0.0:7443\"", "c.toml:1:10", ""],
        );
    }
    #[test]
    fn all_mistakes_are_told_at_once_in_the_files_order() {
        let text = "sokcet = \"/x\"\nlisten = \"7443\"\ncertificate_life = \"1s\"\nkeep_artifacts = -1\n";
        let Mistakes(found) = Config::parse(Path::new("c.toml"), text).unwrap_err();
        let places: Vec<&str> = found.iter().map(|problem| problem.seen[0].1.as_str()).collect();
        assert_eq!(places, ["c.toml:1:1", "c.toml:2:10", "c.toml:3:20", "c.toml:4:18"], "{found:?}");
    }
}
