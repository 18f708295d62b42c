//! The coordinator's program.

use anyhow::Context;
use baton_coordinator::backup;
use baton_coordinator::config::{Config, DEFAULT_PATH};
use baton_coordinator::identity::brought::AuthorityFiles;
use baton_coordinator::restore::{self, Restored, Whose};
use baton_core::name::Digest;
use baton_core::problem::Problem;
use baton_core::settings::Mistakes;
use baton_proto::unit;
use clap::{Parser, Subcommand};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Parser)]
#[command(name = "baton-coordinator", version, about = "Holds what should be, and sends each host its next safe step")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the authority, the store and the coordinator's own certificate. Run again, it changes nothing
    Init {
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Where agents and operators will connect; kept in the configuration file
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: Option<SocketAddr>,
        /// Sign with this authority instead of making one: a root's or an intermediate's certificate, in PEM
        #[arg(long, value_name = "FILE", requires = "authority_key")]
        authority_cert: Option<PathBuf>,
        /// Its key, as PKCS #8 in PEM; a copy is kept in the state folder
        #[arg(long, value_name = "FILE", requires = "authority_cert")]
        authority_key: Option<PathBuf>,
    },
    /// Copy the authority, the store and the settings into one file, also while the coordinator runs
    Backup {
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The file to write. Whoever can read it is the fleet: only its owner can
        file: PathBuf,
    },
    /// Set a coordinator up from a backup. It decides nothing until every host has said what it was told since
    Restore {
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Keep what is in the state folder aside, and take the backup's
        #[arg(long)]
        replace: bool,
        /// The file that `backup` wrote
        file: PathBuf,
    },
    /// Look at the settings
    Config {
        #[command(subcommand)]
        what: Look,
    },
    /// Drive the fleet
    Run {
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum Look {
    /// Find everything that is wrong with them, without starting anything
    Check {
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match carry_out(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn carry_out(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    match command {
        Command::Init { config, listen, authority_cert, authority_key } => {
            let brought = authority_cert.zip(authority_key).map(|(certificate, key)| AuthorityFiles { certificate, key });
            let at = config.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
            let before = listen.map(|listen| keep_listen(at, listen)).transpose()?.flatten();
            let done = Config::load(config.as_deref()).map_err(anyhow::Error::from).and_then(|config| {
                let done = runtime.block_on(baton_coordinator::init_with(&config, brought.as_ref()))?;
                Ok((config, done))
            });
            if let (Err(_), Some(before)) = (&done, before) {
                put_back(at, &before)?;
            }
            let (config, done) = done?;
            let pin = Digest::from_bytes(done.pin);
            let mut out = std::io::stdout().lock();
            if done.fresh {
                let verb = if brought.is_some() { "took the authority into" } else { "made an authority in" };
                writeln!(out, "{verb} {}", config.state.display())?;
                writeln!(out, "fingerprint  blake3:{pin}")?;
                writeln!(out, "next: {}", next("enable --now", at))?;
            } else {
                writeln!(out, "nothing to do: {} has an authority", config.state.display())?;
                writeln!(out, "fingerprint  blake3:{pin}")?;
            }
            Ok(())
        }
        Command::Backup { config, file } => {
            let at = config.unwrap_or_else(|| DEFAULT_PATH.into());
            let unrecorded = runtime.block_on(backup::backup(&settings(&at)?, &at, &file))?;
            if let Some(problem) = unrecorded {
                writeln!(std::io::stderr(), "warning: the audit log says nothing of this backup: {problem}")?;
            }
            let mut out = std::io::stdout().lock();
            writeln!(out, "wrote {}: it holds the authority's key, so guard it", file.display())?;
            writeln!(out, "releases' archives are not in it: hosts hold what they serve, and a deploy brings the rest")?;
            Ok(())
        }
        Command::Restore { config, replace, file } => {
            let at = config.unwrap_or_else(|| DEFAULT_PATH.into());
            let backup = restore::Backup::read(&file)?;
            backup.keep_settings(&at)?;
            let config = settings(&at)?;
            let done = runtime.block_on(backup.restore(&config, replace))?;
            let mut out = std::io::stdout().lock();
            writeln!(out, "restored {} as of {}, epoch {}", config.state.display(), backup.made(), backup.about.epoch)?;
            out.write_all(restored(&done).as_bytes())?;
            writeln!(out, "next: {}   and   baton status", next("start", &at))?;
            Ok(())
        }
        Command::Config { what: Look::Check { config } } => {
            let settings = Config::load(config.as_deref())?;
            let at = config.unwrap_or_else(|| DEFAULT_PATH.into());
            let state = match at.exists() {
                true => "is right",
                false => "is not there, so every key has its default",
            };
            let mut out = std::io::stdout().lock();
            writeln!(out, "{} {state}", at.display())?;
            writeln!(out, "  listen  {}", settings.listen)?;
            writeln!(out, "  socket  {}", settings.socket.display())?;
            writeln!(out, "  state   {}", settings.state.display())?;
            Ok(())
        }
        Command::Run { config } => {
            baton_coordinator::log::start();
            let config = Config::load(config.as_deref())?;
            Ok(runtime.block_on(async {
                let shutdown = asked_to_stop()?;
                anyhow::Ok(baton_coordinator::run(config, shutdown).await?)
            })?)
        }
    }
}

/// What people must know of a restore: what it did, and what it could not know.
fn restored(done: &Restored) -> String {
    let mut lines = Vec::new();
    if let Some(aside) = &done.aside {
        lines.push(format!("what was there before is kept in {}", aside.display()));
    }
    let kept = done.aside.as_ref().map(|aside| aside.join("identity").display().to_string()).unwrap_or_default();
    match &done.authority {
        Whose::Backups => {}
        Whose::Later(fingerprint) => lines.push(format!(
            "the authority changed since, and the present one stays, for hosts and operators believe that one: {fingerprint}"
        )),
        Whose::NotThere(fingerprint) => lines.push(format!(
            "the authority is the backup's again; whoever joined under the one that was there ({fingerprint}) does not come back \
             unless it joins again. Where they are to come back, restore a backup that was made with that one: it is in {kept}"
        )),
    }
    lines.push(match done.tokens {
        0 => "no join token of the backup was good any more; baton token create makes one".to_owned(),
        tokens => format!(
            "{tokens} join token{} of the backup can no longer be redeemed: some may have been used since; baton token create \
             makes others",
            if tokens == 1 { "" } else { "s" }
        ),
    });
    lines.push(match &done.revoked {
        Some(whose) if whose.is_empty() => "no certificate was revoked since".to_owned(),
        Some(whose) => format!("certificates that were revoked since stay revoked: {}", whose.join(", ")),
        None => "certificates that were revoked after the backup was made are accepted again: an export of the audit log names \
                 them (Control/RevokeCertificates, Control/RemoveHost); baton certificates list, and baton certificates revoke \
                 WHOSE for each"
            .to_owned(),
    });
    lines.push(
        "the audit log ends where the backup does, and hosts remember more: baton audit verify says what, and baton audit accept \
         puts on the record that it is lost"
            .to_owned(),
    );
    lines.push(
        "hosts look for it where they joined; on a machine with another address, write coordinator = \"HOST:PORT\" into each host's \
         /etc/baton/agent.toml and restart its agent; and see that the one before never starts again"
            .to_owned(),
    );
    if !done.awaited.is_empty() {
        lines.push(format!("it decides nothing until it has heard {}", done.awaited.join(", ")));
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// What starts the coordinator: its unit, where that reads the same settings.
fn next(verb: &str, at: &Path) -> String {
    match at == Path::new(DEFAULT_PATH) {
        true => unit::command(verb, "baton-coordinator"),
        false => format!("baton-coordinator run --config {}", at.display()),
    }
}

/// The settings at a path; a missing file at the default path is an empty one.
fn settings(at: &Path) -> Result<Config, Mistakes> {
    Config::load(Some(at).filter(|at| *at != Path::new(DEFAULT_PATH)))
}

/// Resolves on SIGTERM or SIGINT.
fn asked_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// A file's text before it was changed; None: there was no file.
type Before = Option<String>;

/// Writes `listen` into the configuration file. Returns what it was; None where it says so already.
fn keep_listen(path: &Path, listen: SocketAddr) -> anyhow::Result<Option<Before>> {
    let before = match std::fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let text = before.as_deref().unwrap_or_default();
    let said = toml::from_str::<toml::Table>(text).ok().and_then(|table| table.get("listen").cloned());
    match said {
        Some(said) if said.as_str() == Some(&listen.to_string()) => Ok(None),
        Some(said) => {
            let said = said.as_str().unwrap_or("something else");
            anyhow::bail!("{} says listen = {said}: change it there", path.display())
        }
        None => {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            }
            let text = format!("listen = \"{listen}\"\n{text}");
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(Some(before))
        }
    }
}

/// Nothing half done: what was refused leaves the file as it was.
fn put_back(path: &Path, before: &Before) -> anyhow::Result<()> {
    let put = match before {
        Some(text) => std::fs::write(path, text),
        None => std::fs::remove_file(path),
    };
    put.with_context(|| format!("{} has a new `listen`, and nothing else was done", path.display()))
}

/// The problem with its evidence, or all of them, on stderr.
fn complain(error: &anyhow::Error) {
    let mut out = std::io::stderr().lock();
    let _ = match (error.downcast_ref::<Problem>(), error.downcast_ref::<Mistakes>()) {
        (Some(problem), _) => out.write_all(shown(problem).as_bytes()),
        (_, Some(Mistakes(found))) => found.iter().try_for_each(|problem| out.write_all(shown(problem).as_bytes())),
        _ => writeln!(out, "error: {error:#}"),
    };
}

fn shown(problem: &Problem) -> String {
    let mut text = format!("error[{}]: {}\n", problem.code, problem.what);
    let widest = problem.seen.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
    for (label, evidence) in &problem.seen {
        text.push_str(&format!("  {label:<widest$}   {evidence}\n"));
    }
    if let Some(help) = &problem.help {
        text.push_str(&format!("help: {help}\n"));
    }
    text
}
