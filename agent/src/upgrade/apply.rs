//! The program that installs a package of the agent, waits for the new agent, and goes back when it does not come.
//!
//! It runs as a unit of its own from a copy of the agent's program: the package replaces the one and restarts the other.

use super::dpkg::Dpkg;
use super::mark::Mark;
use super::record::{Folder, Record, State};
use crate::durable;
use crate::text;
use baton_core::name::PackageVersion;
use baton_core::problem::{Code, Problem};
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often it is looked whether the new agent is there.
const LOOK: Duration = Duration::from_millis(200);
/// Another program may hold dpkg's lock for as long.
const LOCKED_FOR: Duration = Duration::from_secs(120);
/// Starts of an agent after which it is certain that it does not stay.
const CRASHES: u32 = 5;
/// Lines of the journal that are shown.
const LINES: &str = "12";
/// How much of what dpkg wrote is shown.
const SHOWN: usize = 600;

const UNIT: &str = "baton-agent.service";
/// Its half that faces the network, which is restarted with it; a package from before it was there has none.
const LINK: &str = "baton-agent-link.service";

/// What is done to a machine; in tests another one.
pub(super) trait Machine {
    /// Installs a package.
    fn install(&self, file: &Path) -> Result<(), String>;
    /// Makes sure that the installed agent is started, whatever happened to its unit.
    fn restart(&self);
    /// How often its unit was started again by itself.
    fn crashes(&self) -> u32;
    /// What it wrote last.
    fn journal(&self) -> Vec<String>;
}

/// This host.
struct Here(Dpkg);

impl Machine for Here {
    fn install(&self, file: &Path) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            match self.0.install(file) {
                // Somebody else installs something just now.
                Err(said) if said.contains("lock") && begun.elapsed() < LOCKED_FOR => std::thread::sleep(LOOK),
                ended => return ended,
            }
        }
    }

    fn restart(&self) {
        for words in [["reset-failed", UNIT], ["restart", UNIT]] {
            let _ = run("systemctl", &words);
        }
    }

    fn crashes(&self) -> u32 {
        let told = run("systemctl", &["show", "--property=NRestarts", "--value", UNIT, LINK]).unwrap_or_default();
        told.lines().filter_map(|line| line.trim().parse::<u32>().ok()).max().unwrap_or(0)
    }

    fn journal(&self) -> Vec<String> {
        let told =
            run("journalctl", &["--quiet", "--no-pager", "--output=cat", "--lines", LINES, "--unit", UNIT, "--unit", LINK]);
        told.unwrap_or_default().lines().map(|line| text::line(line, 300)).collect()
    }
}

fn run(program: &str, words: &[&str]) -> Option<String> {
    let ended = Command::new(program).args(words).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    ended.status.success().then(|| String::from_utf8_lossy(&ended.stdout).into_owned())
}

/// Carries out what the record in an agent's state folder says was begun.
///
/// # Errors
/// B0604: the record cannot be read or written. How the upgrade went stands in the record.
pub fn upgrade_as_recorded(state: &Path) -> Result<(), Problem> {
    let refuse = |error: io::Error| {
        Problem::new(Code(604), format!("`{}` cannot be used: {}", state.display(), text::io_error(&error)))
    };
    let folder = Folder::open(state).map_err(refuse)?;
    let Some(record) = folder.read().filter(|record| record.state == State::Begun) else { return Ok(()) };
    apply(&Here(Dpkg::default()), &Mark::default(), &folder, record).map_err(refuse)
}

/// The whole of it, on any machine.
pub(super) fn apply(machine: &dyn Machine, mark: &Mark, folder: &Folder, mut record: Record) -> io::Result<()> {
    tracing::info!(version = %record.package.version, from = %record.from, "installing another agent");
    let outcome = upgrade(machine, mark, folder, &record);
    let (state, given) = match outcome {
        Ok(()) => {
            tracing::info!(version = %record.package.version, "the new agent has a session");
            (State::Done, folder.next())
        }
        Err(seen) => {
            tracing::warn!(seen = seen.what, to = %record.from, "the new agent did not come: going back");
            let problem = go_back(machine, mark, folder, &record, seen);
            (State::Failed(problem), folder.way_back())
        }
    };
    record.state = state;
    // What is installed now is kept: it is the way back from the next one.
    fs::rename(given, folder.given())?;
    for left in [folder.next(), folder.way_back()] {
        durable::remove(&left)?;
    }
    folder.write(&record)
}

/// What was seen of a new agent that did not come.
struct Seen {
    what: String,
    journal: Vec<String>,
}

fn upgrade(machine: &dyn Machine, mark: &Mark, folder: &Folder, record: &Record) -> Result<(), Seen> {
    let _ = mark.forget();
    if let Err(said) = machine.install(&folder.next()) {
        return Err(Seen { what: format!("dpkg: {}", text::line(&said, SHOWN)), journal: Vec::new() });
    }
    comes(machine, mark, &record.package.version, record.back_within)
        .map_err(|what| Seen { what, journal: machine.journal() })
}

fn go_back(machine: &dyn Machine, mark: &Mark, folder: &Folder, record: &Record, seen: Seen) -> Problem {
    let Record { package, from, back_within, .. } = record;
    let _ = mark.forget();
    let installed = machine.install(&folder.way_back());
    machine.restart();
    let back = match &installed {
        Ok(()) => comes(machine, mark, from, *back_within),
        Err(said) => Err(format!("dpkg: {}", text::line(said, SHOWN))),
    };
    let mut problem = match &back {
        Ok(()) => {
            Problem::new(Code(553), format!("the agent {} did not come up; this host runs {from} again", package.version))
        }
        Err(_) => Problem::new(
            Code(554),
            format!("neither the agent {} nor, after it, {from} came up on this host", package.version),
        ),
    };
    problem = problem.saw("new agent", seen.what);
    if let Err(what) = back {
        problem = problem.saw("way back", what);
    }
    problem = seen.journal.into_iter().fold(problem, |problem, line| problem.saw("journal", line));
    problem.help(match installed {
        Ok(()) => "mend the package and abort this upgrade, or baton agents resume to try once more",
        Err(_) => "on this host: dpkg --audit, journalctl -u 'baton-agent*'; what runs goes on serving",
    })
}

/// Waits until an agent of this version has a session.
fn comes(machine: &dyn Machine, mark: &Mark, version: &PackageVersion, within: Duration) -> Result<(), String> {
    let begun = Instant::now();
    let before = machine.crashes();
    while begun.elapsed() < within {
        if mark.is_of(version) {
            return Ok(());
        }
        // A number that fell began anew, with a start by hand.
        let crashes = machine.crashes();
        if crashes >= CRASHES && crashes > before {
            return Err(format!("it ended {crashes} times and was started again"));
        }
        std::thread::sleep(LOOK);
    }
    Err(format!("it had no session with the coordinator after {}", text::duration(within)))
}
