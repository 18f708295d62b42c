//! What this host lets be done on it, whoever asks: its own file says so, and nobody who only speaks for a coordinator.

mod place;
mod pools;

pub use place::{InvalidPlace, Place};

use crate::runtime::command;
use baton_core::fleet::spec::HostSpec;
use baton_core::name::{ReleaseId, ServiceName};
use baton_core::problem::{Code, Problem};
use baton_core::release::Release;
use baton_core::secret::Secret;
use baton_core::settings::{File, Keys};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use toml::Spanned;
use toml::de::{DeTable, ValueDeserializer};

/// `[allow]` in `agent.toml`. In each list `*` stands for any number of characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Allow {
    /// The services that may be here.
    pub services: Vec<String>,
    /// The users that `run.user` may name. Root is none of them, whatever is listed.
    pub users: Vec<String>,
    /// Whether a release may run as root.
    pub root: bool,
    /// The files that `file:`, `env-file:` and `systemd-creds:` secrets may be read from, by what they are called and by what they
    /// are where a link leads. `{service}` stands for the service that asks.
    #[serde(deserialize_with = "paths")]
    pub secrets: Vec<String>,
    /// The programs that `exec:` secrets may come from: the agent runs them as the user it runs as.
    #[serde(deserialize_with = "paths")]
    pub commands: Vec<String>,
    /// The pools of this host's load balancer that may be changed.
    pub pools: Vec<String>,
    /// Where members of these pools may be to get requests.
    pub members: Vec<Place>,
    /// Whether the coordinator may have this host rebooted.
    pub reboot: bool,
    /// Whether a release that names no user would run as root here. No key: it follows from the runtime.
    #[serde(skip)]
    pub unnamed_is_root: bool,
}

/// The users that the packages make.
const OWN_USERS: [&str; 2] = ["baton-agent-link", "baton-coordinator"];

/// Every key, with what its value must be.
pub const KEYS: Keys = &[
    ("services", "a list of names, such as [\"shop\", \"till-*\"]"),
    ("users", "a list of users, such as [\"shop\", \"www-*\"]"),
    ("root", "true or false"),
    ("secrets", "a list of files, such as [\"/etc/{service}/*\"]"),
    ("commands", "a list of programs, such as [\"/usr/bin/pass\"]"),
    ("pools", "a list of pools, such as [\"shop\", \"till-*\"]"),
    ("members", "a list of addresses or networks, such as [\"10.0.3.0/24\", \"192.0.2.11:8101\"]"),
    ("reboot", "true or false"),
];

/// Where secrets are looked for unless a host's file says otherwise: systemd's own places for them, each service below its name. All
/// other files are read as the agent's user, which is root, and for somebody who may only deploy.
const SECRETS: [&str; 2] = ["/etc/credstore/{service}.*", "/etc/credstore.encrypted/{service}.*"];

impl Default for Allow {
    fn default() -> Self {
        let any = || vec!["*".to_owned()];
        Self {
            services: any(),
            users: any(),
            root: false,
            secrets: SECRETS.map(str::to_owned).to_vec(),
            commands: Vec::new(),
            pools: any(),
            members: vec![Place::any()],
            reboot: false,
            unnamed_is_root: false,
        }
    }
}

impl Allow {
    /// What of a spec may not be done here, and why.
    #[must_use]
    pub fn refusals(&self, spec: &HostSpec) -> BTreeMap<ReleaseId, Problem> {
        let refused = |(id, release): (&ReleaseId, &Arc<Release>)| Some((*id, self.judge(release).err()?));
        spec.releases.iter().filter_map(refused).collect()
    }

    /// Whether a release may be here.
    ///
    /// # Errors
    /// B0563: it asks for what this host does not allow.
    pub fn judge(&self, release: &Release) -> Result<(), Problem> {
        let service = release.service.as_str();
        if !any(&self.services, service) {
            let line = with("services", &self.services, service);
            return Err(refused("runs this service", &format!("service = {service:?}"), &line));
        }
        let user = release.run.user.as_deref();
        let as_root = user.map_or(self.unnamed_is_root, is_root);
        if as_root && !self.root {
            let unnamed = "no run.user, and without systemd it would run as the agent does, which is root";
            let asked = user.map_or_else(|| unnamed.to_owned(), |user| format!("run.user = {user:?}"));
            return Err(refused("lets a release run as root", &asked, "root = true"));
        }
        if let Some(user) = user.filter(|user| is_own(user)) {
            return Err(Problem::new(Code(563), format!("nobody runs a release as {user}, which is a user of Baton's own"))
                .saw("release", format!("run.user = {user:?}"))
                .help("name a user of the application's own in run.user, or none: systemd makes one up then"));
        }
        if let Some(user) = user.filter(|user| !as_root && !any(&self.users, user)) {
            let (asked, line) = (format!("run.user = {user:?}"), with("users", &self.users, user));
            return Err(refused("lets a release run as this user", &asked, &line));
        }
        let files = self.files_of(&release.service);
        for (name, secret) in &release.run.secrets {
            let (is_allowed, line) = match secret {
                Secret::File { path } | Secret::EnvFile { path, .. } | Secret::SystemdCreds { path, .. } => {
                    (any(&files.0, path), with("secrets", &self.secrets, path))
                }
                Secret::Exec { command } => {
                    let program = command.first().map_or("", String::as_str);
                    (any(&self.commands, program), with("commands", &self.commands, program))
                }
            };
            if !is_allowed {
                let asked = format!("run.secrets.{name} = \"{secret}\"");
                return Err(refused("lets a secret come from there", &asked, &line));
            }
        }
        Ok(())
    }

    /// The files that secrets of a service may be read from.
    #[must_use]
    pub fn files_of(&self, service: &ServiceName) -> Files {
        Files(self.secrets.iter().map(|pattern| pattern.replace("{service}", service.as_str())).collect())
    }
}

/// The files that secrets of one service may be read from.
#[derive(Debug, Clone)]
pub struct Files(Vec<String>);

impl Files {
    /// Every file.
    #[cfg(test)]
    pub(crate) fn all() -> Self {
        Self(vec!["*".to_owned()])
    }

    /// Whether a file is one of them. What it really is decides: a link may lead anywhere.
    #[must_use]
    pub fn have(&self, path: &Path) -> bool {
        path.to_str().is_some_and(|path| any(&self.0, path))
    }
}

/// Everything that is wrong in the `[allow]` table of a file, each with where it stands.
pub(crate) fn mistakes(file: &File<'_>, allow: Spanned<DeTable<'_>>) -> Vec<(usize, Problem)> {
    file.every("allow", KEYS, allow, |table| Allow::deserialize(ValueDeserializer::from(table)).err())
}

/// Patterns of whole paths: what fits no path would allow nothing, and whoever wrote it meant something.
fn paths<'de, D: Deserializer<'de>>(list: D) -> Result<Vec<String>, D::Error> {
    let list = Vec::<String>::deserialize(list)?;
    let is_path = |text: &str| text.starts_with(['/', '*']) && !text.replace("{service}", "").contains(['{', '}']);
    match list.iter().find(|text| !is_path(text)) {
        Some(text) => Err(D::Error::custom(format!("`{text}` is no path"))),
        None => Ok(list),
    }
}

/// Whether it is root, under whatever name.
fn is_root(user: &str) -> bool {
    user == "root" || user.parse::<u32>() == Ok(0) || command::user(user).is_ok_and(|user| user.uid == 0)
}

/// Whether it is one of those that Baton's own keys and sockets belong to, under whatever name.
fn is_own(user: &str) -> bool {
    let uid = |user: &str| command::user(user).ok().map(|user| user.uid);
    OWN_USERS.contains(&user) || uid(user).is_some_and(|asked| OWN_USERS.iter().any(|own| uid(own) == Some(asked)))
}

fn any(patterns: &[String], text: &str) -> bool {
    patterns.iter().any(|pattern| fits(pattern, text))
}

/// Whether a text is what a pattern says: `*` stands for anything, and everything else for itself.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(begin) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    // The first place that fits is the best one: what is left for the others is longest then.
    for part in parts {
        let Some(at) = text.find(part) else { return false };
        text = text.get(at + part.len()..).unwrap_or_default();
    }
    text.ends_with(end)
}

/// The line that allows one more, with what is allowed now: a line takes the place of what holds without it.
fn with(key: &str, list: &[String], one: &str) -> String {
    let all: Vec<String> = list.iter().map(String::as_str).chain([one]).map(|it| format!("{it:?}")).collect();
    format!("{key} = [{}]", all.join(", "))
}

fn refused(what: &str, asked: &str, line: &str) -> Problem {
    Problem::new(Code(563), format!("this host's own settings do not allow what the release asks for: nobody {what} here"))
        .saw("release", crate::text::line(asked, 300))
        .help(format!(
            "where that is meant, write it below [allow] in /etc/baton/agent.toml on this host, restart its agent and deploy \
             again: {}",
            crate::text::line(line, 2000)
        ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::hook::Hooks;
    use baton_core::name::Digest;
    use baton_core::release::{Artifact, Health, Probe, Run, Signal, Stop};
    use std::time::Duration;

    fn release(change: impl FnOnce(&mut Release)) -> Release {
        let (never, once) = (Duration::ZERO, Duration::from_secs(1));
        let mut release = Release {
            service: "shop".parse().unwrap(),
            version: "1.0.0".parse().unwrap(),
            artifact: Artifact { digest: Digest::of(b"shop"), size: 4 },
            run: Run {
                command: vec!["bin/shop".to_owned()],
                user: None,
                env: BTreeMap::new(),
                secrets: BTreeMap::new(),
                stop: Stop { signal: Signal::Term, timeout: once },
                listen: Vec::new(),
            },
            health: Health { probe: Probe::Tcp, interval: once, timeout: once, healthy_for: never, start_timeout: once },
            hooks: Hooks::default(),
        };
        change(&mut release);
        release
    }

    fn allow(text: &str) -> Allow {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn what_a_host_allows_is_what_its_file_says() {
        let as_user = |user: &str| release(|it| it.run.user = Some(user.to_owned()));
        let with = |secret: &str| release(|it| drop(it.run.secrets.insert("DB".to_owned(), secret.parse().unwrap())));
        for (settings, release, allowed) in [
            ("", release(|_| {}), true),
            ("", as_user("shop"), true),
            ("", as_user("root"), false),
            ("", as_user("0"), false),
            ("", as_user("00"), false),
            ("", as_user("+0"), false),
            ("users = [\"root\", \"*\"]", as_user("root"), false),
            ("root = true", as_user("root"), true),
            ("users = [\"*\"]", as_user("baton-agent-link"), false),
            ("root = true", as_user("baton-coordinator"), false),
            ("root = true\nusers = []", as_user("shop"), false),
            ("users = [\"www-*\"]", as_user("www-shop"), true),
            ("users = [\"www-*\"]", as_user("shop"), false),
            ("services = []", release(|_| {}), false),
            ("services = [\"s*p\"]", release(|_| {}), true),
            ("services = [\"till\"]", release(|_| {}), false),
            ("", with("file:/etc/shop/db"), false),
            ("", with("file:/etc/shadow"), false),
            ("", with("file:/etc/credstore/shop.db"), true),
            ("", with("systemd-creds:/etc/credstore.encrypted/shop.db"), true),
            ("", with("file:/etc/credstore/till.db"), false),
            ("", with("file:/etc/credstore/shop-till.db"), false),
            ("secrets = [\"/etc/{service}/*\"]", with("file:/etc/shop/db"), true),
            ("secrets = [\"/etc/{service}/*\"]", with("file:/etc/till/db"), false),
            ("secrets = [\"/etc/shop/*\"]", with("file:/etc/shop/db"), true),
            ("secrets = [\"/etc/shop/*\"]", with("env-file:/etc/shadow"), false),
            ("secrets = [\"/etc/shop/*\"]", with("systemd-creds:/etc/credstore.encrypted/db"), false),
            ("", with("exec:/usr/bin/pass show"), false),
            ("commands = [\"/usr/bin/pass\"]", with("exec:/usr/bin/pass show"), true),
            ("commands = [\"/usr/bin/pass\"]", with("exec:/usr/bin/passwd x"), false),
        ] {
            let judged = allow(settings).judge(&release);
            assert_eq!(judged.is_ok(), allowed, "{settings}: {release:?}: {judged:?}");
            assert!(judged.err().is_none_or(|problem| problem.code == Code(563) && problem.help.is_some()));
        }
        let refused = allow("").judge(&with("file:/etc/shop/db")).unwrap_err().help.clone().unwrap();
        let line = "secrets = [\"/etc/credstore/{service}.*\", \"/etc/credstore.encrypted/{service}.*\", \"/etc/shop/db\"]";
        assert!(refused.ends_with(line), "what is allowed now goes on: {refused}");
        for (settings, user, allowed) in
            [("", None, false), ("", Some("shop"), true), ("", Some("root"), false), ("root = true", None, true)]
        {
            let allow = Allow { unnamed_is_root: true, ..allow(settings) };
            let judged = allow.judge(&release(|it| it.run.user = user.map(str::to_owned)));
            assert_eq!(judged.is_ok(), allowed, "as root without systemd, {settings}: {user:?}: {judged:?}");
        }
    }

    #[test]
    fn a_star_is_anything_and_the_rest_is_itself() {
        for (pattern, text, expect) in [
            ("*", "", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "a", true),
            ("*b", "ab", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
            ("ab*bc", "abc", false),
            ("*ab*ab", "ab", false),
            ("**", "x", true),
            ("é*é", "é", false),
        ] {
            assert_eq!(fits(pattern, text), expect, "{pattern} {text}");
        }
    }
}
