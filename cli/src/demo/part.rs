//! One process of the demo: every program that takes part lives in this one executable.

use super::app::{self, AppArgs};
use super::clock::duration;
use super::load::{Config, Load, executions};
use super::stage::BROKEN_STAGE;
use super::warden;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::output::Output;
use anyhow::Context as _;
use baton_agent::enroll::Claim;
use baton_agent::link::Place;
use baton_agent::runtime::{handing, hold};
use baton_core::problem::Problem;
use clap::{Args, Subcommand};
use serde_json::json;
use std::ffi::OsString;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// `baton demo-part`: one process of the demo.
#[derive(Debug, Args)]
pub struct PartArgs {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// The coordinator, set up at its first start
    Coordinator(ProgramArgs),
    /// A host's agent, joined at its first start
    Agent(AgentArgs),
    /// The built-in balancer
    Balancer(baton_agent::balancer::builtin::Args),
    /// Unpacks one archive for an agent
    Unpack,
    /// Has a host's public sockets
    #[command(name = handing::HOLD)]
    HoldSockets,
    /// Becomes an application that is handed sockets
    #[command(name = handing::BEGIN)]
    Begin {
        #[arg(last = true, required = true)]
        program: Vec<OsString>,
    },
    /// An instance of the demo's service
    App(AppArgs),
    /// Traffic, until the time is over or a signal comes; the answer is what was counted
    Load(LoadArgs),
    /// Starts the others, and ends them all when whoever raised it is gone
    Warden(WardenArgs),
}

#[derive(Debug, Args)]
struct ProgramArgs {
    #[arg(long)]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct AgentArgs {
    #[arg(long)]
    config: PathBuf,
    /// To join with, where it has not joined yet
    #[arg(long)]
    token_file: PathBuf,
}

#[derive(Debug, Args)]
struct WardenArgs {
    /// Removed in the end
    folder: PathBuf,
}

/// Traffic from the command line.
#[derive(Debug, Args)]
struct LoadArgs {
    #[arg(long)]
    target: SocketAddr,
    /// Requests a second
    #[arg(long, default_value_t = 200)]
    rate: u32,
    #[arg(long, value_parser = duration)]
    duration: Option<Duration>,
    /// Begins every order's id
    #[arg(long)]
    tag: Option<String>,
    /// A folder with the instances' logs, to join the orders with
    #[arg(long)]
    logs: Option<PathBuf>,
}

pub(super) fn run(args: PartArgs, output: &Output) -> Result<Exit, Failure> {
    let ended = match args.part {
        Part::Coordinator(args) => coordinator(&args),
        Part::Agent(args) => agent(&args),
        Part::Balancer(args) => balancer(args),
        Part::Unpack => baton_agent::artifact::unpack_as_asked().map(|()| Exit::Done).map_err(Into::into),
        Part::HoldSockets => hold().map(|()| Exit::Done).context("cannot hold sockets"),
        Part::Begin { program } => handing::begin(&program).map(|()| Exit::Done).context("cannot begin"),
        Part::App(args) => instance(args),
        Part::Load(args) => traffic(args, output),
        Part::Warden(args) => guard(&args),
    };
    ended.map_err(|error| Problem::new(BROKEN_STAGE, format!("{error:#}")).into())
}

pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot make a runtime")
}

fn coordinator(args: &ProgramArgs) -> anyhow::Result<Exit> {
    baton_coordinator::log::start();
    let config = baton_coordinator::config::Config::load(Some(&args.config))?;
    runtime()?.block_on(async {
        baton_coordinator::init(&config).await?;
        let stop = stop_signal()?;
        baton_coordinator::run(config, stop).await?;
        Ok(Exit::Done)
    })
}

fn agent(args: &AgentArgs) -> anyhow::Result<Exit> {
    baton_agent::log::start();
    let config = baton_agent::config::Config::load(Some(&args.config))?;
    runtime()?.block_on(async {
        if !config.state.join("identity/certificate.pem").exists() {
            let token = std::fs::read_to_string(&args.token_file).context("no token to join with")?;
            let token = token.trim().parse()?;
            baton_agent::enroll::join(&config, &config.coordinator, &token, Claim::New).await?;
        }
        let stop = stop_signal()?;
        Box::pin(baton_agent::run(config, &["/proc/self/exe", "demo-part"], Place::Within, stop)).await?;
        Ok(Exit::Done)
    })
}

fn balancer(args: baton_agent::balancer::builtin::Args) -> anyhow::Result<Exit> {
    runtime()?.block_on(baton_agent::balancer::builtin::serve(args))?;
    Ok(Exit::Done)
}

fn instance(args: AppArgs) -> anyhow::Result<Exit> {
    let code = runtime()?.block_on(async { app::run(args, stop_signal()?).await })?;
    // The instance's exit code is whatever it was told to be; Baton's own table does not apply to it.
    if code != 0 {
        std::process::exit(code);
    }
    Ok(Exit::Done)
}

fn guard(args: &WardenArgs) -> anyhow::Result<Exit> {
    runtime()?.block_on(warden::serve(&args.folder))?;
    Ok(Exit::Done)
}

fn traffic(args: LoadArgs, output: &Output) -> anyhow::Result<Exit> {
    let mut config = Config::new(args.target, args.rate);
    if let Some(tag) = args.tag {
        config.tag = tag;
    }
    runtime()?.block_on(async move {
        let stop = stop_signal()?;
        let load = Load::start(config)?;
        let time_over = async {
            match args.duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! { () = stop => {} () = time_over => {} }
        let report = load.stop().await?;
        let mut answer = json!(report);
        if let Some(logs) = args.logs {
            answer["executions"] = json!(executions::join(&report.posts, &logs)?);
        }
        output.answers().write(&format!("{answer:#}\n"));
        Ok(if report.failed == 0 { Exit::Done } else { Exit::Error })
    })
}

/// Resolves at the first SIGTERM or SIGINT.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! { _ = term.recv() => {} _ = interrupt.recv() => {} }
    })
}
