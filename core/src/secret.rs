//! References to secrets: where a value is found on a host. The value itself is never here.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Where a host finds a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Secret {
    /// `file:/etc/shop/db`: the content of a file.
    File { path: String },
    /// `env-file:/etc/shop/env#DB`: one variable of a file of `NAME=value` lines; without `#DB`, the one that is called as the
    /// secret is.
    EnvFile { path: String, variable: Option<String> },
    /// `systemd-creds:/etc/credstore.encrypted/db#DB`: a credential that systemd encrypted for this host, under the name DB; without
    /// `#DB`, under that of its file.
    SystemdCreds { path: String, name: Option<String> },
    /// `exec:/usr/bin/pass shop/db`: what a command prints. Words are split at spaces; no shell.
    Exec { command: Vec<String> },
}

/// Text that is no reference. It never repeats the text, which may be the secret itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecret {
    #[error("a secret is written as where it is found: file:/…, env-file:/…#NAME, systemd-creds:/…#NAME or exec:/…")]
    Scheme,
    #[error("what comes after the colon is an absolute path on the hosts, without `..` and control characters")]
    Path,
}

/// The longest reference.
const LONGEST: usize = 1024;

impl FromStr for Secret {
    type Err = InvalidSecret;

    fn from_str(text: &str) -> Result<Self, InvalidSecret> {
        let (scheme, rest) = text.split_once(':').ok_or(InvalidSecret::Scheme)?;
        if !["file", "env-file", "systemd-creds", "exec"].contains(&scheme) {
            return Err(InvalidSecret::Scheme);
        }
        if text.len() > LONGEST || text.contains(char::is_control) {
            return Err(InvalidSecret::Path);
        }
        let absolute =
            |path: &str| match path.starts_with('/') && path.len() > 1 && !path.split('/').any(|part| part == "..") {
                true => Ok(path.to_owned()),
                false => Err(InvalidSecret::Path),
            };
        Ok(match scheme {
            "file" => Self::File { path: absolute(rest)? },
            "env-file" => {
                let (path, variable) = named(rest)?;
                Self::EnvFile { path: absolute(path)?, variable }
            }
            "systemd-creds" => {
                let (path, name) = named(rest)?;
                Self::SystemdCreds { path: absolute(path)?, name }
            }
            _ => {
                let command: Vec<String> = rest.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
                absolute(command.first().ok_or(InvalidSecret::Path)?)?;
                Self::Exec { command }
            }
        })
    }
}

/// A path, and the name after `#`.
fn named(text: &str) -> Result<(&str, Option<String>), InvalidSecret> {
    match text.split_once('#') {
        Some((_, "")) => Err(InvalidSecret::Path),
        Some((path, name)) => Ok((path, Some(name.to_owned()))),
        None => Ok((text, None)),
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path } => write!(f, "file:{path}"),
            Self::EnvFile { path, variable: None } => write!(f, "env-file:{path}"),
            Self::EnvFile { path, variable: Some(variable) } => write!(f, "env-file:{path}#{variable}"),
            Self::SystemdCreds { path, name: None } => write!(f, "systemd-creds:{path}"),
            Self::SystemdCreds { path, name: Some(name) } => write!(f, "systemd-creds:{path}#{name}"),
            Self::Exec { command } => write!(f, "exec:{}", command.join(" ")),
        }
    }
}

impl TryFrom<String> for Secret {
    type Error = InvalidSecret;
    fn try_from(text: String) -> Result<Self, InvalidSecret> {
        text.parse()
    }
}

impl From<Secret> for String {
    fn from(secret: Secret) -> Self {
        secret.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_read_back_as_it_was_written() {
        for text in [
            "file:/etc/shop/db",
            "env-file:/etc/shop/env",
            "env-file:/etc/shop/env#DB_URL",
            "systemd-creds:/etc/credstore.encrypted/db",
            "systemd-creds:/etc/credstore.encrypted/db#DB",
            "exec:/usr/bin/pass show shop/db",
        ] {
            assert_eq!(text.parse::<Secret>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_reference_is_refused_and_not_repeated() {
        for text in [
            "hunter2",
            "",
            "file:",
            "file:/",
            "file:etc/db",
            "file:/etc/../root",
            "file:/etc/\u{1b}x",
            "exec:",
            "exec:pass show",
            "exec: ",
            "env-file:/etc/env#",
            "systemd-creds:db",
            "systemd-creds:/etc/db#",
            "https://hunter2",
            "FILE:/etc/db",
        ] {
            let refused = text.parse::<Secret>().unwrap_err().to_string();
            assert!(!refused.contains("hunter2"), "{text}: {refused}");
        }
        assert!(format!("file:/{}", "x".repeat(2000)).parse::<Secret>().is_err());
    }
}
