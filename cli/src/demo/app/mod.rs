//! The demo's service: small, polite, and able to misbehave on request.
//!
//! It is what Baton replaces in `baton demo`, in the end-to-end tests and in the benches, so it keeps its own record: what it
//! executed stands in its log, whatever clients and balancers believe.

mod answered;
mod journal;
mod serve;
mod socket;

use super::clock::duration;
use anyhow::Context as _;
use clap::Args;
use journal::Journal;
use listenfd::ListenFd;
use serve::App;
use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How an instance behaves.
#[derive(Debug, Clone, Args)]
pub struct AppArgs {
    /// Where to listen.
    #[arg(long)]
    pub listen: SocketAddr,
    /// What `/version` and the header `x-version` say.
    #[arg(long, default_value = "1")]
    pub version_text: String,
    /// How long the start takes before it listens.
    #[arg(long, value_parser = duration, default_value = "0s")]
    pub start_delay: Duration,
    /// One line for each order and for the end of each request is appended here. While a file of this name with `.incident` is
    /// there, every answer takes so many milliseconds longer as stand in it, whatever the release.
    #[arg(long)]
    pub log: Option<PathBuf>,
    /// Run, but never listen.
    #[arg(long)]
    pub never_listen: bool,
    /// Ignore `--listen`'s port and listen on this one.
    #[arg(long)]
    pub listen_elsewhere: Option<u16>,
    /// What `/healthz` answers.
    #[arg(long, default_value_t = 200)]
    pub status: u16,
    /// How many of a hundred requests fail; the health check and WebSockets never do.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub fail_percent: u8,
    /// How long every answer takes at least; the health check's and WebSockets do not.
    #[arg(long, value_parser = duration, default_value = "0s")]
    pub takes: Duration,
    /// Exit with this code instead of listening.
    #[arg(long)]
    pub exit: Option<i32>,
    /// How long `/slow` takes.
    #[arg(long, value_parser = duration, default_value = "150ms")]
    pub slow: Duration,
    /// How long it must have been quiet after the stop signal before the process ends.
    #[arg(long, value_parser = duration, default_value = "2ms")]
    pub linger: Duration,
    /// How long clients of sockets that were handed over may still use connections they have open when the stop signal comes.
    #[arg(long, value_parser = duration, default_value = "500ms")]
    pub grace: Duration,
    /// How long those of them that have just connected have for their first request.
    #[arg(long, value_parser = duration, default_value = "5s")]
    pub patience: Duration,
}

/// Runs an instance until `stop` resolves and the last request is answered; gives the exit code.
///
/// # Errors
/// When the address cannot be bound or the log cannot be written.
pub async fn run(args: AppArgs, stop: impl Future<Output = ()>) -> anyhow::Result<i32> {
    tokio::pin!(stop);
    let journal = Journal::open(args.log.as_deref(), &args.version_text)?;
    journal.mark("start");
    say(&format!("shop {}: starting", args.version_text));
    tokio::select! {
        () = &mut stop => return Ok(0),
        () = tokio::time::sleep(args.start_delay) => {}
    }
    if let Some(code) = args.exit {
        say(&format!("shop {}: cannot go on, exiting with {code}", args.version_text));
        return Ok(code);
    }
    if args.never_listen {
        say(&format!("shop {}: waiting for a database that never comes", args.version_text));
        stop.await;
        return Ok(0);
    }
    let address = match args.listen_elsewhere {
        Some(port) => SocketAddr::new(args.listen.ip(), port),
        None => args.listen,
    };
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    say(&format!("shop {}: listening on {}", args.version_text, listener.local_addr()?));
    let public = handed_over()?;
    for listener in &public {
        say(&format!("shop {}: handed over {}", args.version_text, listener.local_addr()?));
    }
    journal.mark("listen");
    let app = App::new(args, journal);
    tokio::spawn(withdrawn(Arc::clone(&app), signal(SignalKind::user_defined1())?));
    app.serve(listener, public, stop).await;
    Ok(0)
}

/// Upon SIGUSR1 it fails its health check, and serves all else: whoever asks it how it is sends nobody any more.
async fn withdrawn(app: Shared, mut asked: Signal) {
    while asked.recv().await.is_some() {
        say(&format!("shop {}: asked to fail its health check", app.args.version_text));
        app.withdraw();
    }
}

/// The sockets this instance was started with, as systemd hands them over.
fn handed_over() -> anyhow::Result<Vec<TcpListener>> {
    let mut handed = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..handed.len() {
        let listener = handed.take_tcp_listener(index).context("what was handed over is no listening socket")?;
        if let Some(listener) = listener {
            // Blocking or not is a property of the socket, which instances share: each says what it needs.
            listener.set_nonblocking(true)?;
            listeners.push(TcpListener::from_std(listener)?);
        }
    }
    Ok(listeners)
}

/// Runs an instance on a listener that exists already; for tests that need its port first.
///
/// # Errors
/// When the log cannot be written.
pub async fn run_on(listener: TcpListener, args: AppArgs, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let journal = Journal::open(args.log.as_deref(), &args.version_text)?;
    tokio::pin!(stop);
    App::new(args, journal).serve(listener, Vec::new(), stop).await;
    Ok(())
}

/// What an instance says of itself goes to its standard output, where the agent keeps the last lines as evidence.
fn say(line: &str) {
    // Nobody listens: nothing to do about it.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

type Shared = Arc<App>;
