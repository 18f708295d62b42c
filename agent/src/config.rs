//! The agent's configuration: almost empty, and strict.

use crate::allow::{self, Allow};
use crate::balancer::{self, BalancerConfig};
use baton_core::name::HostName;
use baton_core::problem::{Code, Problem};
use baton_core::settings::{self, Keys, Mistakes};
use baton_proto::tls::with_port;
use serde::{Deserialize, Deserializer, Serialize};
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

/// Where it is looked for.
pub const DEFAULT_PATH: &str = "/etc/baton/agent.toml";
const UNUSABLE: Code = Code(530);
const DEFAULT_STATE: &str = "/var/lib/baton-agent";

/// `agent.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `HOST:PORT` of the coordinator; empty: the one this host joined.
    pub coordinator: String,
    /// The name to ask for when joining; the coordinator decides.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "host_name")]
    pub name: Option<String>,
    /// Where balancers reach this host's instances; none: where its connection comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    pub state: PathBuf,
    pub runtime: RuntimeKind,
    /// Where Prometheus may ask; None: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
    /// Whether the coordinator may upgrade this agent's own package.
    pub upgrades: bool,
    /// What may be done on this host, whoever asks.
    pub allow: Allow,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balancer: Option<BalancerConfig>,
}

/// Every key, with what its value must be.
pub const KEYS: Keys = &[
    ("coordinator", "the coordinator's address, such as \"coord.example.net:7443\""),
    ("name", "a host's name in quotes, such as \"web1\""),
    ("address", "an IP address, such as \"192.0.2.11\""),
    ("state", "a folder, such as \"/var/lib/baton-agent\""),
    ("runtime", "one of \"auto\", \"systemd\" and \"process\""),
    ("metrics", "an address with a port, such as \"127.0.0.1:9465\""),
    ("upgrades", "true or false"),
    ("allow", "a table: [allow]"),
    ("balancer", "a table: [balancer], with its `driver`"),
];

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
            upgrades: true,
            allow: Allow::default(),
            balancer: None,
        }
    }
}

impl Config {
    /// Reads a configuration; the default one need not be there, a named one must.
    ///
    /// # Errors
    /// B0530: the file cannot be read, or everything in it that cannot be understood, with its place.
    pub fn load(path: Option<&Path>) -> Result<Self, Mistakes> {
        let shown = path.unwrap_or(Path::new(DEFAULT_PATH));
        match fs::read_to_string(shown) {
            Ok(text) => Self::parse(&shown.display().to_string(), &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_none() => Ok(Self::default()),
            Err(error) => Err(Problem::new(UNUSABLE, format!("cannot read {}", shown.display()))
                .saw("seen", crate::text::io_error(&error))
                .help("--config names the file; without it every key has its default")
                .into()),
        }
    }

    fn parse(path: &str, text: &str) -> Result<Self, Mistakes> {
        toml::from_str(text).map_err(|error| {
            let file = settings::File { code: UNUSABLE, path, text };
            let mut found = mistakes(&file);
            found.sort_by_key(|(at, _)| *at);
            match found.is_empty() {
                true => file.refusal("", KEYS, &error).into(),
                false => Mistakes(found.into_iter().map(|(_, problem)| problem).collect()),
            }
        })
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
            return Ok(with_port(&self.coordinator));
        }
        let joined = fs::read_to_string(self.endpoint_file()).map(|endpoint| endpoint.trim().to_owned());
        joined.map_err(|_| not_joined())
    }

    pub(crate) fn endpoint_file(&self) -> PathBuf {
        self.identity().join("coordinator")
    }
}

/// A name that a host can have: the coordinator would refuse any other, and later.
fn host_name<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    HostName::deserialize(from).map(|name| Some(name.to_string()))
}

/// Everything that is wrong, table by table; nothing where the file is no TOML at all.
fn mistakes(file: &settings::File<'_>) -> Vec<(usize, Problem)> {
    let Ok(mut root) = DeTable::parse(file.text) else { return Vec::new() };
    let (balancer, allow) = (taken(&mut root, "balancer"), taken(&mut root, "allow"));
    let mut found = file.every("", KEYS, root, |table| Config::deserialize(ValueDeserializer::from(table)).err());
    found.extend(balancer.into_iter().flat_map(|table| balancer::mistakes(file, table)));
    found.extend(allow.into_iter().flat_map(|table| allow::mistakes(file, table)));
    found
}

/// A table out of another, to be looked at by itself; none where something else has its name.
fn taken<'t>(root: &mut Spanned<DeTable<'t>>, name: &str) -> Option<Spanned<DeTable<'t>>> {
    if !root.get_ref().get(name)?.get_ref().is_table() {
        return None;
    }
    let value = root.get_mut().remove(name)?;
    match (value.span(), value.into_inner()) {
        (span, DeValue::Table(table)) => Some(Spanned::new(span, table)),
        _ => None,
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

    fn load(text: &str) -> Result<Config, Mistakes> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.toml");
        fs::write(&path, text).unwrap();
        Config::load(Some(&path))
    }

    #[test]
    fn an_empty_file_is_enough() {
        assert_eq!(load("").unwrap(), Config::default());
    }

    #[track_caller]
    fn check(text: &str, expect: [&str; 3]) {
        let Mistakes(found) = Config::parse("agent.toml", text).unwrap_err();
        let [problem] = found.as_slice() else { panic!("{found:?}") };
        let said = [problem.what.as_str(), problem.seen[0].1.as_str(), problem.help.as_deref().unwrap_or_default()];
        assert_eq!((problem.code, said), (UNUSABLE, expect), "{problem:?}");
    }

    #[test]
    fn every_mistake_has_its_place_and_what_is_allowed() {
        let all = "the keys are `coordinator`, `name`, `address`, `state`, `runtime`, `metrics`, `upgrades`, `allow`, \
                   `balancer`";
        let mistyped = ["unknown key `coordinater`", "agent.toml:2:1", &format!("did you mean `coordinator`? {all}")];
        check("runtime = \"process\"\ncoordinater = \"x:1\"\n", mistyped);
        check(
            "runtime = \"docker\"\n",
            ["`runtime` must be one of \"auto\", \"systemd\" and \"process\"", "agent.toml:1:11", ""],
        );
        check("name = \"w b\"\n", ["`name` must be a host's name in quotes, such as \"web1\"", "agent.toml:1:8", ""]);
        check("address = 7\n", ["`address` must be an IP address, such as \"192.0.2.11\"", "agent.toml:1:11", ""]);
        check("allow = 7\n", ["`allow` must be a table: [allow]", "agent.toml:1:9", ""]);
        check("name = \"web1\"\n[allow]\nroot = \"yes\"\n", ["`allow.root` must be true or false", "agent.toml:3:8", ""]);
        check(
            "[allow]\nuser = []\n",
            [
                "unknown key `user` in [allow]",
                "agent.toml:2:1",
                "did you mean `users`? the keys in [allow] are `services`, `users`, `root`, `secrets`, `commands`, `pools`, `members`, `reboot`",
            ],
        );
        let places =
            "`allow.members` must be a list of addresses or networks, such as [\"10.0.3.0/24\", \"192.0.2.11:8101\"]";
        let files = "`allow.secrets` must be a list of files, such as [\"/etc/{service}/*\"]";
        for (wrong, what) in [
            ("members = [\"web1\"]", places),
            ("members = [\"10.0.3.300\"]", places),
            ("secrets = [\"x/y\"]", files),
            ("secrets = [\"/x/{servise}\"]", files),
        ] {
            check(&format!("[allow]\n{wrong}\n"), [what, "agent.toml:2:11", ""]);
        }
        check("balancer = 7\n", ["`balancer` must be a table: [balancer], with its `driver`", "agent.toml:1:12", ""]);
    }

    #[test]
    fn mistakes_in_a_balancers_table_have_their_place_too() {
        let text = |keys: &str| format!("name = \"lb1\"\n[balancer]\n{keys}\n");
        check(
            &text("driver = \"haproxi\"\n"),
            [
                "\"haproxi\" is no driver",
                "agent.toml:3:10",
                "did you mean \"haproxy\"? it can be \"haproxy\", \"nginx\", \"envoy\", \"builtin\"",
            ],
        );
        check(
            &text("driver = \"haproxy\"\nsokket = \"/x\"\nstate_file = \"/y\""),
            [
                "unknown key `sokket` in [balancer]",
                "agent.toml:4:1",
                "did you mean `socket`? the keys in [balancer] are `socket`, `master_socket`, `state_file`, `maps`, `requests`, \
                 `drift`",
            ],
        );
        check(
            &text("driver = \"haproxy\"\nsocket = \"/x\""),
            ["`balancer.state_file` is required", "agent.toml:2:1", "it must be the path of the `server-state-file`"],
        );
        check(
            &text("driver = \"builtin\"\nfall = \"x\"\nlisten = { shop = \"0.0.0.0:80\" }"),
            ["`balancer.fall` must be a whole number of checks", "agent.toml:4:8", ""],
        );
        check(
            &text(""),
            ["`balancer.driver` is required", "agent.toml:2:1", "it can be \"haproxy\", \"nginx\", \"envoy\", \"builtin\""],
        );
        check(
            &text("driver = 7"),
            [
                "`balancer.driver` must be a string",
                "agent.toml:3:10",
                "it can be \"haproxy\", \"nginx\", \"envoy\", \"builtin\"",
            ],
        );
    }

    #[test]
    fn all_mistakes_are_told_at_once_in_the_files_order() {
        let text =
            "nmae = \"lb1\"\nruntime = \"docker\"\n\n[balancer]\ndriver = \"haproxy\"\ndrift = 7\nsokket = \"/x\"\n\n";
        let Mistakes(found) = Config::parse("agent.toml", text).unwrap_err();
        let said: Vec<String> = found.iter().map(|problem| format!("{} {}", problem.seen[0].1, problem.what)).collect();
        assert_eq!(
            said,
            [
                "agent.toml:1:1 unknown key `nmae`",
                "agent.toml:2:11 `runtime` must be one of \"auto\", \"systemd\" and \"process\"",
                // Of `socket` nothing more is said: `sokket` is it.
                "agent.toml:4:1 `balancer.state_file` is required",
                "agent.toml:6:9 `balancer.drift` must be one of \"correct\" and \"leave\"",
                "agent.toml:7:1 unknown key `sokket` in [balancer]",
            ]
        );
        assert!(found.iter().all(|problem| problem.code == UNUSABLE));
    }

    #[test]
    fn what_is_written_counts() {
        let config = Config { coordinator: "127.0.0.1:7443".to_owned(), runtime: RuntimeKind::Process, ..Config::default() };
        assert_eq!(load("coordinator = \"127.0.0.1:7443\"\nruntime = \"process\"").unwrap(), config);
    }

    #[test]
    fn a_named_file_must_be_there_and_a_host_that_never_joined_says_how() {
        assert_eq!(Config::load(Some(Path::new("/none/agent.toml"))).unwrap_err().0[0].code, Code(530));
        let folder = tempfile::tempdir().unwrap();
        let config = Config { state: folder.path().to_owned(), ..Config::default() };
        assert_eq!(config.endpoint().unwrap_err().code, Code(531));
    }
}
