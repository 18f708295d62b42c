//! The load balancers that a fleet can have, each set up on a host of its own as its page in docs/ says.

mod envoy;
mod haproxy;
mod nginx;

use super::host::Host;
use super::pool::Pool;
use super::record::Fleet;
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use std::env;
use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

/// A kind of load balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Front {
    /// Debian's
    Haproxy,
    /// 1.27.4 or later, `BATON_NGINX_NEW`: one before it loses idle connections of clients at each reload
    Nginx,
    /// `BATON_ENVOY`
    Envoy,
}

impl Front {
    /// The unit that runs it.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
        }
    }

    /// The `[balancer]` table of the agent beside it.
    #[must_use]
    pub const fn settings(self) -> &'static str {
        match self {
            Self::Haproxy => haproxy::SETTINGS,
            Self::Nginx => nginx::SETTINGS,
            Self::Envoy => envoy::SETTINGS,
        }
    }

    /// Sets it up for the pools it serves and starts it.
    ///
    /// # Errors
    /// When it cannot be installed, or refuses its configuration.
    pub fn install(self, host: &Host, fleet: &Fleet) -> anyhow::Result<()> {
        match self {
            Self::Haproxy => haproxy::install(host, fleet)?,
            Self::Nginx => nginx::install(host)?,
            Self::Envoy => envoy::install(host)?,
        }
        host.run(&["systemctl", "enable", self.unit()])?;
        host.run(&["systemctl", "restart", self.unit()])?;
        Ok(())
    }

    /// What of this machine its host gets a copy of; `None`: every host has it.
    ///
    /// # Errors
    /// When it is not there; the error says how it comes.
    pub fn program(self) -> anyhow::Result<Option<PathBuf>> {
        let (name, variable) = match self {
            Self::Haproxy => return Ok(None),
            Self::Nginx => ("nginx-new", "BATON_NGINX_NEW"),
            Self::Envoy => ("envoy", "BATON_ENVOY"),
        };
        let named = env::var_os(variable).map(PathBuf::from);
        let path = env::var_os("PATH").unwrap_or_default();
        let in_path = env::split_paths(&path).map(|folder| folder.join(name));
        match named.into_iter().chain(in_path).find(|program| program.is_file()) {
            Some(program) => Ok(Some(program)),
            None => bail!(
                "no {name}: neither {variable} nor PATH leads to it. `.ci/run balancers` fetches one, `--fronts haproxy` does without"
            ),
        }
    }

    fn pools(self) -> impl Iterator<Item = &'static Pool> {
        Pool::behind(self)
    }

    /// Puts its program where a distribution would not: what is not from a package is in /usr/local.
    fn bring(self, host: &Host, place: &str) -> anyhow::Result<()> {
        let program = self.program()?.context("it comes with the host")?;
        let file = host.root().join(place.trim_start_matches('/'));
        fs::copy(&program, &file).with_context(|| format!("cannot copy {}", program.display()))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }
}

/// As its makers write it.
impl fmt::Display for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
            Self::Envoy => "Envoy",
        })
    }
}
