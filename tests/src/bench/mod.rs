//! What Baton itself costs: the time of a rollout that is nobody else's, and the memory of a fleet at rest. And how well it
//! judges.

mod balancers;
mod chance;
mod crash;
mod floods;
mod handover;
mod idle;
mod judge;
mod kills;
mod plan;
mod rollout;
mod sampler;
mod soak;
mod throughput;
mod timeline;

use crate::crash::{Strategy, Victim};
use baton_cli::demo::stage::Front;
use clap::{Parser, Subcommand};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Measures what Baton costs, and how well it judges
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Line {
    #[command(subcommand)]
    bench: Bench,
    /// One JSON document
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// An in-place rolling release, one host at a time, under load: wall time against what nobody could avoid
    Rollout(RolloutArgs),
    /// Members out and in again under load, on every balancer that is installed, and hand-overs without one: failed requests, and
    /// how soon it is seen
    Balancers(BalancersArgs),
    /// What the built-in balancer carries beside HAProxy, with the same wrk line
    Throughput(ThroughputArgs),
    /// Memory and CPU of an agent and a coordinator with nothing to do
    Idle(IdleArgs),
    /// Peers that send too much: what others wait at the coordinator meanwhile, and its memory
    Floods(FloodsArgs),
    /// Releases on one host without a balancer, under new connections to its public socket
    Handover(HandoverArgs),
    /// The guard on simulated traffic, beside what others do
    Judge(JudgeArgs),
    /// A pass of the planner over ten thousand hosts, and a whole simulated rollout
    Plan(PlanArgs),
    /// `kill -9` at every durable step of every part and every strategy, one by one: many minutes
    Crash(CrashArgs),
    /// `kill -9` of the balancer at random instants of rollouts: no request may reach an instance that should have none
    Kills(KillsArgs),
    /// Releases and rollbacks by every strategy that serves throughout, one after the other, under load behind HAProxy
    Soak(SoakArgs),
}

#[derive(Debug, clap::Args)]
struct RolloutArgs {
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u8).range(2..=100))]
    hosts: u8,
    #[arg(long, value_enum, default_value_t = Front::Haproxy)]
    balancer: Front,
    /// Requests a second
    #[arg(long, default_value_t = 300)]
    rate: u32,
    /// How long an instance takes to start, in milliseconds
    #[arg(long, default_value_t = 200)]
    start_ms: u64,
    /// How long an instance must have been ready, in milliseconds
    #[arg(long, default_value_t = 200)]
    healthy_ms: u64,
}

#[derive(Debug, clap::Args)]
struct HandoverArgs {
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=1000))]
    releases: u32,
    /// And on, until so many connections were to be made
    #[arg(long, default_value_t = 0)]
    connections: u64,
    /// New connections a second
    #[arg(long, default_value_t = 3000)]
    rate: u32,
    /// How long an instance takes to start, in milliseconds
    #[arg(long, default_value_t = 50)]
    start_ms: u64,
    /// How long an instance must have been ready, in milliseconds
    #[arg(long, default_value_t = 100)]
    healthy_ms: u64,
}

#[derive(Debug, clap::Args)]
struct BalancersArgs {
    /// Members taken out, killed and put back, for each balancer
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(2..=1_000_000))]
    cycles: u64,
    /// And on, until clients have sent so many requests: of each balancer, three failures in a hundred thousand would be seen
    /// with 99.7 % certainty
    #[arg(long, default_value_t = 200_000)]
    requests: u64,
    /// Times nine clients: kept and fresh connections, POSTs, slow requests, a stream
    #[arg(long, default_value_t = 2)]
    clients: usize,
    /// Only these, by the names they have in the result
    #[arg(long = "balancer")]
    balancers: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct ThroughputArgs {
    /// How often each is measured, one after the other
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: u8,
    /// How long each measurement takes, in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(2..=4000))]
    connections: u16,
}

#[derive(Debug, clap::Args)]
struct IdleArgs {
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u8).range(1..=100))]
    hosts: u8,
    /// How long CPU time is counted, in seconds
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// How long the fleet rests before that, in seconds
    #[arg(long, default_value_t = 5)]
    rest: u64,
    /// Where baton-agent and baton-coordinator are; beside this program otherwise
    #[arg(long)]
    programs: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct FloodsArgs {
    /// Only these kinds
    #[arg(long = "flood", value_enum)]
    floods: Vec<floods::Flood>,
    /// Flooders at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000))]
    connections: u16,
    /// How often each is measured without the flood and with it
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: u8,
    /// How long each measurement takes, in seconds; a round has four
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Where baton-agent and baton-coordinator are; beside this program otherwise
    #[arg(long)]
    programs: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct JudgeArgs {
    /// Simulated rollouts of each truth
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    runs: u64,
    /// Only how long a verdict takes, and what is kept of each service
    #[arg(long)]
    state: bool,
}

#[derive(Debug, clap::Args)]
struct PlanArgs {
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    hosts: u32,
    /// Passes over each fleet
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    passes: u32,
    /// Simulated rollouts
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    rollouts: u64,
}

#[derive(Debug, clap::Args)]
struct CrashArgs {
    /// Only these strategies
    #[arg(long = "strategy", value_enum)]
    strategies: Vec<Strategy>,
    /// Only these victims
    #[arg(long = "victim", value_enum)]
    victims: Vec<Victim>,
    /// Every so many steps; 1 is each
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    stride: u64,
    /// Stages at once
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=32))]
    jobs: u8,
}

#[derive(Debug, clap::Args)]
struct KillsArgs {
    /// For each balancer, over all strategies
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    kills: u16,
    /// Where the instants come from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only these balancers; HAProxy and the built-in one otherwise
    #[arg(long = "balancer", value_enum)]
    balancers: Vec<Front>,
    /// Only these strategies; all that keep the service up otherwise
    #[arg(long = "strategy", value_enum)]
    strategies: Vec<Strategy>,
    /// Stages at once
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=32))]
    jobs: u8,
}

#[derive(Debug, clap::Args)]
struct SoakArgs {
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rollouts: u32,
    /// Requests a second
    #[arg(long, default_value_t = 100)]
    rate: u32,
}

/// Runs the bench that the command line names.
#[must_use]
pub fn main() -> ExitCode {
    let line = Line::parse();
    let outcome = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(anyhow::Error::from);
    let outcome = outcome.and_then(|runtime| {
        runtime.block_on(async {
            match line.bench {
                Bench::Rollout(args) => rollout::run(args).await,
                Bench::Handover(args) => handover::run(args).await,
                Bench::Balancers(args) => balancers::run(args).await,
                Bench::Throughput(args) => throughput::run(args).await,
                Bench::Idle(args) => idle::run(args).await,
                Bench::Floods(args) => floods::run(args).await,
                Bench::Judge(args) => judge::run(&args),
                Bench::Plan(args) => plan::run(&args),
                Bench::Crash(args) => crash::run(args).await,
                Bench::Kills(args) => kills::run(args).await,
                Bench::Soak(args) => soak::run(args).await,
            }
        })
    });
    let (text, code) = match outcome {
        Ok(Measured { document, summary, good }) => {
            let text = if line.json { format!("{document:#}\n") } else { summary };
            (text, if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(error) => {
            // Nobody reads it: nothing to do about it.
            let _ = writeln!(std::io::stderr().lock(), "error: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    code
}

/// What a bench found, for machines and for people.
#[derive(Debug)]
struct Measured {
    document: serde_json::Value,
    summary: String,
    /// Whether it is within what Baton promises.
    good: bool,
}

/// The words that start a part of a stage from this very executable.
fn part() -> anyhow::Result<Vec<String>> {
    Ok(vec![std::env::current_exe()?.display().to_string(), "demo-part".to_owned()])
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100_000.0).round() / 100.0
}
