//! `fleet`: real systemd hosts on this machine, and Baton's test on them.

use anyhow::Context as _;
use baton_tests::fleet::contract::{self, ContractArgs};
use baton_tests::fleet::life::{self, UpArgs};
use baton_tests::fleet::network::{self, Direction};
use baton_tests::fleet::record::Fleet;
use baton_tests::fleet::trial::{self, LifetimeArgs, TrialArgs};
use clap::{Parser, Subcommand};
use std::io::Write as _;
use std::process::ExitCode;

/// Boots real systemd hosts in namespaces of this machine and installs Baton on them.
#[derive(Debug, Parser)]
#[command(name = "fleet")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Boot a fleet: a coordinator, hosts and load balancers
    Up(UpArgs),
    /// Run a command on a host
    Exec {
        host: String,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Lose every packet of a host
    Cut {
        host: String,
        /// Which packets
        #[arg(long, value_enum, default_value = "both")]
        direction: Direction,
    },
    /// End the cuts of a host
    Heal { host: String },
    /// Boot a host again
    Reboot {
        host: String,
        /// As when the power fails, instead of asking systemd
        #[arg(long)]
        power: bool,
    },
    /// What is up
    List,
    /// Play Baton's test on a fleet of its own: releases under load, while what can die does
    Test(TrialArgs),
    /// Live with the packages from nothing to nothing, as .deb and as .rpm, on hosts of its own
    Lifetime(LifetimeArgs),
    /// Run the agent's contract tests with systemd on a host of their own
    Contract(ContractArgs),
    /// End the fleet: no process, mount or namespace stays
    Down,
}

fn main() -> ExitCode {
    match act(Cli::parse().verb) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr().lock(), "fleet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Up(args) => list(&life::up(&args).context("`fleet down` cleans up")?)?,
        Verb::Exec { host, command } => return exec(&host, &command),
        Verb::Cut { host, direction } => network::cut(&Fleet::load()?.host(&host)?.name, direction)?,
        Verb::Heal { host } => network::heal(&Fleet::load()?.host(&host)?.name)?,
        Verb::Reboot { host, power: false } => Fleet::load()?.host(&host)?.reboot()?,
        Verb::Reboot { host, power: true } => Fleet::load()?.host(&host)?.lose_power()?,
        Verb::List => list(&Fleet::load()?)?,
        Verb::Test(args) => return test(&args),
        Verb::Lifetime(args) => trial::live(&args)?,
        Verb::Contract(args) => contract::keep(&args)?,
        Verb::Down => life::down()?,
    }
    Ok(ExitCode::SUCCESS)
}

fn exec(host: &str, command: &[String]) -> anyhow::Result<ExitCode> {
    let words = command.iter().map(String::as_str).collect::<Vec<_>>();
    let status = Fleet::load()?.host(host)?.command(&words)?.status()?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn test(args: &TrialArgs) -> anyhow::Result<ExitCode> {
    let summary = trial::play(args)?;
    if args.json {
        writeln!(std::io::stdout().lock(), "{}", serde_json::to_string_pretty(&summary)?)?;
    }
    Ok(if summary.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn list(fleet: &Fleet) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for host in &fleet.hosts {
        let state = if host.leader().is_some() { "up" } else { "down" };
        writeln!(out, "{:<8} {:<12} {state}", host.name, host.address)?;
    }
    writeln!(out, "clients run in the namespace `{}`; `fleet exec coord -- baton status` is a way in", network::HUB)?;
    Ok(())
}
