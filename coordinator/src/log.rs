//! The log: to standard error, and as much as `BATON_LOG` asks for.

use std::io::{self, IsTerminal};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What is logged when nobody says: `sqlx` tells more than anybody wants to read, and says twice what it returns.
const USUAL: &str = "info,sqlx=warn,sqlx_core=off";

/// Begins to log. `BATON_LOG=debug`, or by place: `BATON_LOG=info,baton_coordinator=debug`.
pub fn start() {
    let asked = std::env::var("BATON_LOG").ok().filter(|asked| !asked.is_empty());
    let wanted = asked.and_then(|asked| asked.parse::<Targets>().ok());
    let wanted = wanted.or_else(|| USUAL.parse().ok()).unwrap_or_default();
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    tracing_subscriber::registry().with(lines).with(wanted).init();
}
