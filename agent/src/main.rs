//! `baton-agent`: joins, runs, says what it sees.

use anyhow::Context;
use baton_agent::balancer::{BalancerConfig, builtin};
use baton_agent::config::{Config, DEFAULT_PATH};
use baton_agent::enroll::Claim;
use baton_agent::link::{self, Place};
use baton_agent::runtime::{handing, hold};
use baton_agent::{artifact, enroll, ledger::Ledger, local, log, preflight, upgrade};
use baton_core::fleet::report::{HostReport, InstanceState, ReleaseState};
use baton_core::fleet::spec::HostSpec;
use baton_core::name::{ReleaseId, ServiceName};
use baton_core::problem::{Code, Problem};
use baton_core::settings::Mistakes;
use baton_proto::token::{JoinToken, masked};
use baton_proto::unit;
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use tokio::signal::unix::{SignalKind, signal};

/// Runs on every host of a fleet: starts and stops what the coordinator asks for, and drives the local balancer.
#[derive(Debug, Parser)]
#[command(name = "baton-agent", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Join a coordinator: makes a key here and gets a certificate for it
    Join {
        /// The coordinator's address; port 7443 where none is named
        #[arg(value_name = "HOST[:PORT]")]
        coordinator: String,
        /// The file that holds the token `baton token create` gave
        #[arg(long)]
        token_file: PathBuf,
        /// The name to ask for; this machine's own otherwise
        #[arg(long)]
        name: Option<String>,
        /// Take the place of the host that has this name, also where this machine has joined already: new hardware, or a
        /// certificate that ended. Needs a token made for the name; what was there before is revoked
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Run the agent
    Run {
        /// Leave the network to `baton-agent link`, which comes to this socket; otherwise one process does everything
        #[arg(long, value_name = "SOCKET")]
        link: Option<PathBuf>,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// The half of the agent that faces the network, for `baton-agent run --link`
    #[command(hide = true)]
    Link {
        /// Where the other half waits
        socket: PathBuf,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Show what this host does, with or without a coordinator
    Status {
        /// As one JSON document
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Look at the configuration
    Config {
        #[command(subcommand)]
        what: Look,
    },
    /// Take a service on this host back to the release before, with or without a coordinator
    Rollback {
        service: ServiceName,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// The built-in balancer's own process; the agent starts it
    #[command(hide = true)]
    Balancer(builtin::Args),
    /// Unpacks one archive, confined, as standard input says; the agent starts it
    #[command(hide = true)]
    Unpack,
    /// Installs the agent's own package, as its record says; the agent starts it
    #[command(hide = true, name = upgrade::APPLY)]
    UpgradeApply { state: PathBuf },
    /// Has the public sockets of this host; the agent starts it
    #[command(hide = true, name = handing::HOLD)]
    HoldSockets,
    /// Becomes an application that is handed sockets; the agent starts it
    #[command(hide = true, name = handing::BEGIN)]
    Begin {
        #[arg(last = true, required = true)]
        program: Vec<OsString>,
    },
}

#[derive(Debug, Subcommand)]
enum Look {
    /// Find everything that is wrong with it, without starting anything
    Check(ConfigFile),
}

/// This very program, also after an upgrade replaced its file.
const THIS: &str = "/proc/self/exe";

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration [default: /etc/baton/agent.toml]
    #[arg(long)]
    config: Option<PathBuf>,
}

impl ConfigFile {
    fn load(&self) -> Result<Config, Mistakes> {
        Config::load(self.config.as_deref())
    }
}

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| misused(&error));
    match start(cli.verb) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has had enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Ends with what is wrong with the command line. A token that stands where its file belongs is not shown.
fn misused(error: &clap::Error) -> ! {
    let text = error.render().to_string();
    let shown = masked(&text);
    if shown == text {
        error.exit()
    }
    let help = "a token is read from its file: --token-file FILE";
    let _ = writeln!(std::io::stderr(), "{shown}\nhelp: {help}");
    std::process::exit(2)
}

fn start(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Join { coordinator, token_file, name, replace, config } => {
            let claim = if replace { Claim::Replace } else { Claim::New };
            runtime()?.block_on(join(&config, coordinator, token_file, name, claim))
        }
        Verb::Run { link, config } => {
            give_memory_back();
            log::start();
            let place = link.map_or(Place::Within, Place::Beside);
            runtime()?.block_on(baton_agent::run(config.load()?, &[THIS], place, ended()))
        }
        Verb::Link { socket, config } => {
            give_memory_back();
            log::start();
            runtime()?.block_on(link::run(&config.load()?, &socket, ended()))
        }
        Verb::Status { json, config } => runtime()?.block_on(status(&config.load()?, json)),
        Verb::Config { what: Look::Check(file) } => check(&file),
        Verb::Rollback { service, config } => runtime()?.block_on(rollback(&config.load()?, &service)),
        Verb::Balancer(args) => {
            log::start();
            runtime()?.block_on(builtin::serve(args))
        }
        Verb::Unpack => Ok(artifact::unpack_as_asked()?),
        Verb::UpgradeApply { state } => {
            log::start();
            Ok(upgrade::upgrade_as_recorded(&state)?)
        }
        Verb::HoldSockets => Ok(hold()?),
        Verb::Begin { program } => Ok(handing::begin(&program)?),
    }
}

/// One thread: an agent at rest must not be noticed.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Says that the configuration is right, and what it comes to.
fn check(file: &ConfigFile) -> anyhow::Result<()> {
    let config = file.load()?;
    config.balancer.iter().try_for_each(BalancerConfig::check)?;
    let at = file.config.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
    let state = match at.exists() {
        true => "is right",
        false => "is not there, so every key has its default",
    };
    let mut out = anstream::stdout().lock();
    writeln!(out, "{} {state}", at.display())?;
    writeln!(out, "  coordinator  {}", config.endpoint().unwrap_or_else(|_| "none yet: baton-agent join".to_owned()))?;
    writeln!(out, "  state        {}", config.state.display())?;
    writeln!(out, "  balancer     {}", config.balancer.as_ref().map_or("none", BalancerConfig::driver))?;
    Ok(())
}

async fn join(
    file: &ConfigFile,
    coordinator: String,
    token_file: PathBuf,
    name: Option<String>,
    claim: Claim,
) -> anyhow::Result<()> {
    let mut config = file.load()?;
    config.name = name.or(config.name);
    let (coordinator, token) = (baton_proto::tls::with_port(&coordinator), enroll::token(&token_file)?);
    if let Some(warning) = baton_proto::token::exposed(&token_file) {
        writeln!(anstream::stderr(), "{warning}")?;
    }
    preflight(&config, &coordinator, &token, claim).await?;
    let identity = enroll::join(&config, &coordinator, &token, claim).await?;
    let mut out = anstream::stdout().lock();
    writeln!(out, "joined {coordinator} as {identity}")?;
    writeln!(out, "next: {}", next(file.config.as_deref(), claim))?;
    Ok(())
}

/// What starts the agent: its unit, where that reads the same configuration.
fn next(config: Option<&Path>, claim: Claim) -> String {
    match config.filter(|config| *config != Path::new(DEFAULT_PATH)) {
        // One that runs goes on with the certificate it started with.
        None if claim == Claim::Replace => {
            format!("{} && {}", unit::command("enable", "baton-agent"), unit::command("restart", "baton-agent"))
        }
        None => unit::command("enable --now", "baton-agent"),
        Some(config) => format!("baton-agent run --config {}", config.display()),
    }
}

/// Says what was looked at, and ends with the first thing that keeps this machine from joining.
async fn preflight(config: &Config, coordinator: &str, token: &JoinToken, claim: Claim) -> Result<(), Problem> {
    let mut out = anstream::stderr().lock();
    let mut first = None;
    for check in preflight::examine(config, coordinator, token, claim).await {
        let (mark, seen) = match &check.outcome {
            Ok(seen) => ("ok", seen.clone()),
            Err(problem) => ("bad", problem.what.clone()),
        };
        // Nobody reads it: nothing to do about it.
        let _ = writeln!(out, "{mark:<4} {:<12} {seen}", check.name);
        first = first.or(check.outcome.err());
    }
    first.map_or(Ok(()), Err)
}

async fn status(config: &Config, json: bool) -> anyhow::Result<()> {
    let report = match local::ask(&config.state).await {
        Ok(report) => Some(report),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => None,
        Err(error) => return Err(error).context("the agent did not answer"),
    };
    let mut out = anstream::stdout().lock();
    match report {
        Some(report) if json => writeln!(out, "{}", serde_json::to_string(&report)?)?,
        Some(report) => {
            // What people call a release, and its port, only the ledger says; without it the report is still worth reading.
            let ledger = Ledger::open(&config.state).ok();
            show(&mut out, &report, ledger.as_ref().and_then(Ledger::spec))?;
        }
        None => {
            config.endpoint()?;
            let ledger = Ledger::open(&config.state).context("cannot read the ledger")?;
            anyhow::ensure!(!json, "the agent does not run; nothing is known but its ledger");
            writeln!(out, "the agent does not run; its ledger:")?;
            let stamp = ledger.stamp();
            writeln!(out, "epoch {} generation {}", stamp.epoch, stamp.generation)?;
            for (key, instance) in ledger.spec().into_iter().flat_map(|spec| &spec.instances) {
                writeln!(out, "  {key}  {}  on {}", named(ledger.spec(), instance.release), instance.address)?;
            }
        }
    }
    Ok(())
}

async fn rollback(config: &Config, service: &ServiceName) -> anyhow::Result<()> {
    let answer = local::go_back(&config.state, service).await.map_err(|error| {
        Problem::new(Code(542), "the agent on this host does not answer, and it is who would start the release before")
            .saw("seen", error.to_string())
            .help(format!("{}; it needs no coordinator", unit::command("start", "baton-agent")))
    })?;
    let mut out = anstream::stdout().lock();
    writeln!(out, "{service}: this host goes back to {}; other hosts are not touched", answer?)?;
    writeln!(out, "next: baton-agent status; once the coordinator is there: baton rollback {service}")?;
    Ok(())
}

/// `2.1.0 (5c0ffee5)`: the version people know a release by, and which one of that version it is.
fn named(spec: Option<&HostSpec>, id: ReleaseId) -> String {
    match spec.and_then(|spec| spec.releases.get(&id)) {
        Some(release) => format!("{} ({})", release.version, id.0.short()),
        None => id.0.short(),
    }
}

fn show(out: &mut impl Write, report: &HostReport, spec: Option<&HostSpec>) -> io::Result<()> {
    writeln!(out, "epoch {} generation {}", report.observed.epoch, report.observed.generation)?;
    for (key, instance) in &report.instances {
        let state = match &instance.state {
            InstanceState::Starting { since, .. } => format!("starting for {} s", since.as_secs()),
            InstanceState::Ready { since } => format!("ready for {} s", since.as_secs()),
            InstanceState::Unready { since, problem } => format!("not ready for {} s: {problem}", since.as_secs()),
            InstanceState::Stopping { since } => format!("stopping for {} s", since.as_secs()),
            InstanceState::Failed { problem } => format!("failed: {problem}"),
        };
        let address = spec.and_then(|spec| spec.instances.get(key)).map(|wanted| format!("  on {}", wanted.address));
        writeln!(out, "  {key}  {}{}  {state}", named(spec, instance.release), address.unwrap_or_default())?;
    }
    for (id, state) in &report.releases {
        let state = match state {
            ReleaseState::Fetching { done, total } => format!("fetching, {done} of {total} bytes"),
            ReleaseState::Held => "held".to_owned(),
            ReleaseState::Rejected { problem } => format!("rejected: {problem}"),
        };
        writeln!(out, "  release {}  {state}", named(spec, *id))?;
    }
    for (name, pool) in &report.pools {
        writeln!(out, "  pool {name}")?;
        for (key, member) in &pool.members {
            writeln!(out, "    {key}  {:?}  {} open  {} served", member.running, member.in_flight, member.requests)?;
        }
        pool.problem.iter().try_for_each(|problem| writeln!(out, "    {problem}"))?;
    }
    report.problems.iter().try_for_each(|problem| writeln!(out, "  {problem}"))
}

/// Begins again with an allocator that returns what a fetch or an unpacking needed for a moment.
///
/// glibc reads its settings once, before `main`. With its own ones an agent keeps 4 MiB more after its first deploy: large
/// buffers come from the heap once one of them was freed, and every thread that unpacks leaves an arena behind.
fn give_memory_back() {
    const SETTINGS: [(&str, &str); 3] =
        [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "65536"), ("MALLOC_TRIM_THRESHOLD_", "65536")];
    if std::env::var_os(SETTINGS[0].0).is_some() {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        // Only returns when it failed; the agent is then no worse than any other program.
        let _ = Command::new(program).args(std::env::args_os().skip(1)).envs(SETTINGS).exec();
    }
}

/// SIGTERM or SIGINT.
async fn ended() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

/// The whole problem with its evidence where there is one, or all of them; the chain of causes otherwise.
fn complain(error: &anyhow::Error) {
    let mut out = anstream::stderr().lock();
    let _ = match (error.downcast_ref::<Problem>(), error.downcast_ref::<Mistakes>()) {
        (Some(problem), _) => show_problem(&mut out, problem),
        (_, Some(Mistakes(found))) => found.iter().try_for_each(|problem| show_problem(&mut out, problem)),
        _ => writeln!(out, "error: {error:#}"),
    };
}

fn show_problem(out: &mut impl Write, problem: &Problem) -> io::Result<()> {
    writeln!(out, "error[{}]: {}", problem.code, problem.what)?;
    for (label, evidence) in &problem.seen {
        writeln!(out, "  {label:<9} {}", evidence.replace('\n', "\n            "))?;
    }
    problem.help.iter().try_for_each(|help| writeln!(out, "help: {help}"))
}
