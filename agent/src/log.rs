//! The log: to standard error, and as much as `BATON_LOG` asks for.

use std::io::{self, IsTerminal};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What is logged when nobody says: `zbus` tells more than anybody wants to read.
const USUAL: &str = "info,zbus=warn";

/// Begins to log. `BATON_LOG=debug`, or by place: `BATON_LOG=info,baton_agent=debug`.
pub fn start() {
    let asked = std::env::var("BATON_LOG").ok().filter(|asked| !asked.is_empty());
    let wanted = asked.and_then(|asked| asked.parse::<Targets>().ok());
    let wanted = wanted.or_else(|| USUAL.parse().ok()).unwrap_or_default();
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    tracing_subscriber::registry().with(lines).with(wanted).init();
}
