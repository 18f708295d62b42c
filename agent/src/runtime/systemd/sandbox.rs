//! What a unit of an application may not do, unless root of its host says otherwise in a drop-in.
//!
//! One table, because it is told to systemd as typed properties and judged by `systemd-analyze security` as the text of a unit.
//! Nothing here keeps a program from what services do: compilers of their own (JIT) and /proc/meminfo stay.

use super::bus::Properties;
use std::fmt;

/// What a property is, on the bus and in a unit's file.
#[derive(Debug, Clone, Copy)]
enum Value {
    Yes,
    Word(&'static str),
    /// Only these.
    Only(&'static [&'static str]),
    Words(&'static [&'static str]),
    /// None of the namespaces there are.
    NoNamespaces,
    Errno(i32, &'static str),
}

use Value::{Errno, NoNamespaces, Only, Word, Words, Yes};

const SANDBOX: &[(&str, Value)] = &[
    ("NoNewPrivileges", Yes),
    ("PrivateTmp", Yes),
    ("PrivateDevices", Yes),
    ("PrivateMounts", Yes),
    ("ProtectSystem", Word("strict")),
    ("ProtectHome", Word("yes")),
    ("ProtectProc", Word("invisible")),
    ("ProtectKernelTunables", Yes),
    ("ProtectKernelModules", Yes),
    ("ProtectKernelLogs", Yes),
    ("ProtectControlGroups", Yes),
    ("ProtectClock", Yes),
    ("ProtectHostname", Yes),
    ("RestrictSUIDSGID", Yes),
    ("RestrictRealtime", Yes),
    ("RestrictNamespaces", NoNamespaces),
    ("RestrictAddressFamilies", Only(&["AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"])),
    ("LockPersonality", Yes),
    ("SystemCallArchitectures", Words(&["native"])),
    // Landlock takes away, and is not among what systemd 252 thinks services call.
    (
        "SystemCallFilter",
        Only(&["@system-service", "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self"]),
    ),
    ("SystemCallErrorNumber", Errno(1, "EPERM")),
];

/// What root keeps of its powers, where a manifest names it: its files are its own, and it may become somebody else.
const OF_ROOT: &[(&str, u32)] = &[
    ("CAP_CHOWN", 0),
    ("CAP_DAC_OVERRIDE", 1),
    ("CAP_FOWNER", 3),
    ("CAP_FSETID", 4),
    ("CAP_KILL", 5),
    ("CAP_SETGID", 6),
    ("CAP_SETUID", 7),
    ("CAP_NET_BIND_SERVICE", 10),
];

/// The powers of a unit: none for any other user, who could not have any without new privileges.
fn powers(user: Option<&str>) -> &'static [(&'static str, u32)] {
    match user {
        Some("root") => OF_ROOT,
        None | Some(_) => &[],
    }
}

pub(super) fn confine(properties: &mut Properties, user: Option<&str>) {
    for (name, value) in SANDBOX {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        match *value {
            Yes => properties.set(name, true),
            Word(word) => properties.text(name, word),
            Only(words) => properties.set(name, (true, owned(words))),
            Words(words) => properties.set(name, owned(words)),
            NoNamespaces => properties.set(name, 0_u64),
            Errno(number, _) => properties.set(name, number),
        }
    }
    let mask: u64 = powers(user).iter().map(|(_, bit)| 1 << bit).sum();
    properties.set("CapabilityBoundingSet", mask);
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Yes | NoNamespaces => f.write_str("yes"),
            Word(word) | Errno(_, word) => f.write_str(word),
            Only(words) | Words(words) => f.write_str(&words.join(" ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// The exposure of a unit by systemd's own measure: 0 is nothing, 10 is everything.
    fn exposure(user: Option<&str>) -> Option<f64> {
        let mut text = "[Service]\nType=exec\nExecStart=/bin/true\n".to_owned();
        SANDBOX.iter().for_each(|(name, value)| text.push_str(&format!("{name}={value}\n")));
        let powers: Vec<_> = powers(user).iter().map(|(name, _)| *name).collect();
        text.push_str(&format!("CapabilityBoundingSet={}\n", powers.join(" ")));
        text.push_str(&user.map_or_else(|| "DynamicUser=yes\n".to_owned(), |user| format!("User={user}\n")));
        let folder = tempfile::tempdir().unwrap();
        let unit = folder.path().join("baton-shop-0.service");
        std::fs::write(&unit, text).unwrap();
        let said =
            Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager"]).arg(unit).output().ok()?;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let sum = text.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_else(|| panic!("{said:?}"));
        sum.rsplit_once(": ").unwrap().1.split(' ').next().unwrap().parse().ok()
    }

    #[test]
    fn an_application_is_exposed_by_no_more_than_three_and_by_little_more_where_it_asks_for_root() {
        // Not everywhere: then the units of the packages are not judged either, and that is said there.
        let exposures = (exposure(None), exposure(Some("shop")), exposure(Some("root")));
        let (Some(own), Some(named), Some(root)) = exposures else { return };
        assert!(own <= 3.0 && named <= 3.0, "{own}, {named}");
        assert!(root <= 4.5, "{root}");
    }
}
