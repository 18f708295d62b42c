//! Waiting for something that is no rollout, with what it waits for said once for each change.

use super::target::WaitArgs;
use crate::Context;
use crate::connection::Connection;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::follow::interrupted;
use crate::render::page::Page;
use baton_proto::v1::{FleetView, ServiceView};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// Waits until nothing is left to wait for. `left` says what is, a line each.
///
/// # Errors
/// When the coordinator cannot be asked. What was asked for goes on.
pub async fn until(
    connection: &mut Connection,
    wait: &WaitArgs,
    context: Context<'_>,
    left: impl Fn(&FleetView) -> Vec<String>,
) -> Result<Exit, Failure> {
    let began = Instant::now();
    let mut said = BTreeSet::new();
    let interrupted = interrupted();
    tokio::pin!(interrupted);
    loop {
        let view = connection.view("").await.map_err(|problem| Failure::new(problem, Exit::TimedOut))?;
        let left = left(&view);
        if left.is_empty() {
            return Ok(Exit::Done);
        }
        for line in left {
            // Numbers change with every look; a reason is said once.
            if said.insert(line.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default().to_owned()) {
                context.output.note(Page::new().text(line));
            }
        }
        if wait.timeout.is_some_and(|timeout| began.elapsed() >= timeout) {
            return Ok(Exit::TimedOut);
        }
        tokio::select! {
            () = sleep(LOOK) => {}
            () = &mut interrupted => return Ok(Exit::Interrupted),
        }
    }
}

/// The services that run on a host, with what is waited for there: the word and the sentence.
pub fn on_host<'a>(
    view: &'a FleetView,
    host: &'a str,
) -> impl Iterator<Item = (&'a ServiceView, Option<(&'a str, &'a str)>)> {
    let runs = view.services.iter().filter(move |service| service.hosts.iter().any(|own| own.host == host));
    runs.map(move |service| {
        let waiting = service.waiting.iter().find(|waiting| waiting.host == host);
        (service, waiting.map(|waiting| (waiting.reason.as_str(), waiting.text.as_str())))
    })
}

/// The word for how such a wait ended, where it did not simply succeed.
#[must_use]
pub const fn word(exit: Exit, done: &'static str) -> &'static str {
    match exit {
        Exit::Done => done,
        Exit::Interrupted => "interrupted",
        _ => "timed_out",
    }
}
