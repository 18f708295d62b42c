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
/// What is still waited for is said again after so long.
const REMIND: Duration = Duration::from_secs(60);

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
    let mut said = Said { lines: BTreeSet::new(), last: began };
    let interrupted = interrupted();
    tokio::pin!(interrupted);
    loop {
        let view = connection.view("").await.map_err(|problem| Failure::new(problem, Exit::TimedOut))?;
        let left = left(&view);
        if left.is_empty() {
            return Ok(Exit::Done);
        }
        for line in said.news(left, Instant::now()) {
            context.output.note(Page::new().text(line));
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

/// What was said of the waiting, and when last.
struct Said {
    lines: BTreeSet<String>,
    last: Instant,
}

impl Said {
    /// What is to be said now: each reason once, and after a while all of them again.
    fn news(&mut self, left: Vec<String>, now: Instant) -> Vec<String> {
        let again = now.duration_since(self.last) >= REMIND;
        // Numbers change with every look.
        let words = |line: &str| line.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default().to_owned();
        let news: Vec<String> = left.into_iter().filter(|line| self.lines.insert(words(line)) || again).collect();
        if !news.is_empty() {
            self.last = now;
        }
        news
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

#[cfg(test)]
mod tests {
    use super::{REMIND, Said};
    use std::time::Duration;
    use tokio::time::Instant;

    #[test]
    fn a_reason_is_said_once_and_again_when_nothing_was_said_for_long() {
        let began = Instant::now();
        let mut said = Said { lines: std::collections::BTreeSet::new(), last: began };
        let mut at = |seconds, left: &[&str]| {
            said.news(left.iter().map(|line| (*line).to_owned()).collect(), began + Duration::from_secs(seconds))
        };
        assert_eq!(at(0, &["shop: 7 open"]), ["shop: 7 open"]);
        assert!(at(1, &["shop: 6 open"]).is_empty());
        assert_eq!(at(30, &["shop: 6 open", "blog: starts"]), ["blog: starts"]);
        assert!(at(29 + REMIND.as_secs(), &["shop: 5 open"]).is_empty());
        assert_eq!(at(30 + REMIND.as_secs(), &["shop: 5 open", "blog: starts"]), ["shop: 5 open", "blog: starts"]);
        assert!(at(31 + REMIND.as_secs(), &["shop: 5 open"]).is_empty());
    }
}
