//! What is wrong in the `[balancer]` table, with its place.
//!
//! serde reads a table whose kind one of its keys says by way of a copy, and a copy has no places: so whatever it refused is
//! read once more here, as the driver's own table.

use super::{BuiltinConfig, EnvoyConfig, HaproxyConfig, NginxConfig};
use baton_core::problem::Problem;
use baton_core::settings::{File, Keys};
use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Error, ValueDeserializer};

/// Every driver.
pub const DRIVERS: &[&str] = &["haproxy", "nginx", "envoy", "builtin"];

const HAPROXY: Keys = &[
    ("socket", "the path of HAProxy's admin socket"),
    ("master_socket", "the path of the master process's socket"),
    ("state_file", "the path of the `server-state-file`"),
    ("maps", "a folder"),
    ("requests", "a free address of loopback with its port, such as \"127.0.0.1:8405\""),
    ("drift", "one of \"correct\" and \"leave\""),
];

const NGINX: Keys = &[
    ("include", "the path of a file that nginx.conf includes"),
    ("status", "a free address of loopback with its port, such as \"127.0.0.1:8079\""),
    ("pid_file", "a path"),
    ("binary", "a program"),
    ("config", "the path of nginx.conf"),
    ("prefix", "a folder"),
    ("upstream", "a list of lines, such as [\"least_conn\"]"),
    ("drift", "one of \"correct\" and \"leave\""),
];

const ENVOY: Keys = &[
    ("admin", "the path of a unix socket, or an address of loopback such as \"127.0.0.1:9901\""),
    ("folder", "a folder"),
    ("routes", "the path of a file with your route configuration as JSON"),
    ("drift", "one of \"correct\" and \"leave\""),
];

const BUILTIN: Keys = &[
    ("listen", "a table of pools with their addresses, such as { shop = \"0.0.0.0:80\" }"),
    (
        "tls",
        "a table of pools with their certificates, such as { shop = { certificate = \"/…/chain.pem\", key = \"/…/key.pem\" } }",
    ),
    ("balance", "one of \"round_robin\" and \"least_request\""),
    ("fall", "a whole number of checks"),
    ("control", "the path of a socket"),
    ("command", "a list of words: the program and its arguments"),
    ("drift", "one of \"correct\" and \"leave\""),
];

/// The keys of a driver beside `driver` itself, with what their values must be.
#[must_use]
pub fn keys(driver: &str) -> Keys {
    match driver {
        "haproxy" => HAPROXY,
        "nginx" => NGINX,
        "envoy" => ENVOY,
        "builtin" => BUILTIN,
        _ => &[],
    }
}

/// Everything that is wrong in the `[balancer]` table of a file, each with where it stands.
#[must_use]
pub fn mistakes<'t>(file: &File<'_>, balancer: Spanned<DeTable<'t>>) -> Vec<(usize, Problem)> {
    let (place, mut table) = (balancer.span(), balancer.into_inner());
    let choices = || DRIVERS.iter().map(|driver| format!("{driver:?}")).collect::<Vec<_>>().join(", ");
    let Some(driver) = table.remove("driver") else {
        let problem = file.problem(place.clone(), "`balancer.driver` is required", &format!("it can be {}", choices()));
        return vec![(place.start, problem)];
    };
    let at = driver.span();
    let Some(name) = driver.get_ref().as_str() else {
        let what = "`balancer.driver` must be a string";
        return vec![(at.start, file.problem(at, what, &format!("it can be {}", choices())))];
    };
    if !DRIVERS.contains(&name) {
        return vec![(at.start, file.not_a_choice("driver", name, at, DRIVERS))];
    }
    file.every("balancer", keys(name), Spanned::new(place, table), |table| read(name, table))
}

fn read(driver: &str, table: Spanned<DeValue<'_>>) -> Option<Error> {
    let table = ValueDeserializer::from(table);
    match driver {
        "haproxy" => HaproxyConfig::deserialize(table).err(),
        "nginx" => NginxConfig::deserialize(table).err(),
        "envoy" => EnvoyConfig::deserialize(table).err(),
        _ => BuiltinConfig::deserialize(table).err(),
    }
}
