//! Failure texts: what was expected, what was seen instead, what helps.

use super::watch::Seen;
use super::{Life, Wanted};
use crate::connections::{Listener, listeners, listeners_at, owner_of, sockets_of};
use crate::probe::{Kind, Question, Refusal};
use crate::runtime::{End, Exit, Running};
use crate::text;
use baton_core::problem::{Code, Problem};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

/// Nothing is known of what should be started: the spec names a release it does not carry.
pub(super) fn unknown(life: &Life) -> Problem {
    Problem::new(Code(204), format!("{} cannot be started: its release is not known here", life.name()))
}

/// The program did not start; the runtime said why.
pub(super) fn not_started(life: &Life, mut problem: Problem) -> Problem {
    problem.what = format!("{} could not be started: {}", life.name(), problem.what);
    problem
}

/// B0205: the port is somebody else's.
pub(super) fn port_taken(life: &Life, wanted: &Wanted, taken: &[Listener]) -> Problem {
    let owners: Vec<_> = taken.iter().map(owner).collect();
    let first = owners.first().cloned().unwrap_or_else(|| "another process".to_owned());
    let mut problem = Problem::new(
        Code(205),
        format!("{} was not started: its port {} is taken by {first}", life.name(), wanted.address.port()),
    );
    for (listener, owner) in taken.iter().zip(&owners) {
        problem = problem.saw("port", format!("{} is listened on by {owner}", listener.address));
    }
    problem.help("stop that program, or give the service another port: run.ports in baton.toml")
}

/// Not ready yet, and no verdict.
pub(super) fn waiting(question: &Question, refusal: &Refusal) -> Problem {
    Problem::new(Code(209), format!("not ready yet: {refusal}")).saw("probe", format!("{question}: {refusal}"))
}

/// B0211: ready before, and no longer.
pub(super) fn unready(life: &Life, question: &Question, refusal: &Refusal) -> Problem {
    Problem::new(Code(211), format!("{} is no longer ready: {refusal}", life.name()))
        .saw("probe", format!("{question}: {refusal}"))
}

/// B0206 before it was ready, B0207 afterwards: it ended by itself.
pub(super) async fn ended(life: &Life, running: &Running, exit: Exit, seen: Seen<'_>) -> Problem {
    let after = text::duration(seen.age);
    let (code, when) = match seen.was_ready {
        false => (Code(206), "exited before it was ready"),
        true => (Code(207), "exited while it was serving"),
    };
    let mut problem = Problem::new(code, format!("{} {when}", life.name()))
        .saw("process", format!("pid {} {exit}, {after} after its start", running.pid));
    if let Some(wanted) = &life.wanted {
        if !seen.was_ready && seen.tally.last().is_some() {
            problem = problem.saw("probe", probe_line(&wanted.question(&life.key, running), seen));
        }
        let stranger = listeners_at(wanted.address).unwrap_or_default();
        if let (false, Some(listener)) = (seen.was_ready, stranger.first()) {
            let owner = owner(listener);
            problem = problem.saw("port", format!("{} is listened on by {owner}", listener.address));
            return with_log(life, running, problem)
                .await
                .help(format!("port {} was taken in that moment: stop {owner}", wanted.address.port()));
        }
    }
    let full = full_disk(&running.folder);
    let problem = with_log(life, running, problem).await;
    match full {
        Some(full) => {
            problem.saw("disk", full).help("make room there: an app that cannot write its files often ends like this")
        }
        None => problem.help(exit_help(exit)),
    }
}

/// What is left where the release lies, when that is next to nothing.
fn full_disk(folder: &Path) -> Option<String> {
    let space = rustix::fs::statvfs(folder).ok()?;
    let (free, files) = (space.f_bavail.saturating_mul(space.f_frsize), space.f_favail);
    let full = is_full(free, files, space.f_files);
    full.then(|| format!("{} and {files} files are free at {}", text::bytes(free), folder.display()))
}

/// Some file systems count no files: they have none free, and none at all.
const fn is_full(free: u64, free_files: u64, files: u64) -> bool {
    const NEXT_TO_NOTHING: u64 = 256 * 1024;
    free < NEXT_TO_NOTHING || (files > 0 && free_files == 0)
}

/// B0207: it ended while no agent was there to see it.
pub(crate) async fn ended_unseen(service: &str, runtime: &dyn crate::runtime::Runtime, running: &Running) -> Problem {
    let problem = Problem::new(Code(207), format!("{service} exited while the agent was not running"))
        .saw("process", format!("pid {} is gone", running.pid));
    log_lines(problem, runtime.log(running).await)
        .help("how it ended nobody saw: its own logs and the host's, from before the agent's last start, may say")
}

/// B0210: it runs, and did not become ready in its time.
pub(super) async fn never_ready(
    life: &Life,
    wanted: &Wanted,
    running: &Running,
    question: &Question,
    seen: Seen<'_>,
) -> Problem {
    let limit = text::duration(wanted.release.health.start_timeout);
    let listening = listening(life, running);
    let problem = Problem::new(Code(210), format!("{} did not become ready within {limit}", life.name()))
        .saw("process", process_line(running, &listening))
        .saw("probe", probe_line(question, seen));
    with_log(life, running, problem).await.help(never_ready_help(wanted, &listening, seen))
}

fn process_line(running: &Running, listening: &[SocketAddr]) -> String {
    let where_ = match listening {
        [] => "listening on no port".to_owned(),
        addresses => {
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            format!("listening on {}", addresses.join(", "))
        }
    };
    format!("running, pid {}, {where_}", running.pid)
}

fn probe_line(question: &Question, seen: Seen<'_>) -> String {
    format!("{question}   {}", seen.tally.evidence())
}

/// Where the instance listens, whatever it was told.
fn listening(life: &Life, running: &Running) -> Vec<SocketAddr> {
    let own: BTreeSet<_> = life.runtime.processes(running).into_iter().flat_map(sockets_of).collect();
    let mut addresses: Vec<_> = listeners(None)
        .unwrap_or_default()
        .into_iter()
        .filter(|listener| own.contains(&listener.inode))
        .map(|listener| listener.address)
        .collect();
    addresses.dedup();
    addresses
}

fn never_ready_help(wanted: &Wanted, listening: &[SocketAddr], seen: Seen<'_>) -> String {
    let address = wanted.address;
    let command = wanted.release.run.command.join(" ");
    let same_port = listening.iter().find(|other| other.port() == address.port());
    match (seen.tally.last_kind(), same_port, listening.first()) {
        (Some(Kind::Redirected), ..) => {
            "redirects are not followed: name the path that answers 200 itself in health.http".to_owned()
        }
        (Some(Kind::Status), ..) => {
            "the app answers, but not with 200 to 299: its log says why; or name another path in health.http".to_owned()
        }
        (Some(Kind::Silent), ..) => "the app accepts and does not answer in time: its log says why, or raise health.timeout".to_owned(),
        (Some(Kind::Broken), ..) => "does the app speak plain HTTP on this port? For another protocol use health.tcp or health.exec".to_owned(),
        (Some(Kind::Command), ..) => "run health.exec by hand in the release's folder on this host".to_owned(),
        (Some(Kind::Stranger), ..) => "another process shares the port: stop it, or give the service another port in run.ports".to_owned(),
        (_, Some(other), _) => format!(
            "the app listens on {}, where balancers cannot reach it: let it listen on {{address}} ({}) or on every address",
            other.ip(),
            address.ip()
        ),
        (_, None, Some(other)) if !command.contains("{port}") => format!(
            "the app listens on port {} and is not told its own: put {{port}} ({}) into run.command in baton.toml",
            other.port(),
            address.port()
        ),
        (_, None, Some(_)) => format!("the app ignores {{port}} ({}). Check run.command in baton.toml", address.port()),
        (_, None, None) => "the app runs and listens nowhere: its log says what it waits for; a slow start needs a longer health.start_timeout".to_owned(),
    }
}

fn exit_help(exit: Exit) -> &'static str {
    match exit {
        Exit { end: End::Status(0), left_behind: 1.. } => {
            "it went into the background: let it run in the foreground (options such as --no-daemon, -f)"
        }
        Exit { end: End::Status(0), .. } => {
            "a service must go on running: is run.command the server itself, in the foreground?"
        }
        Exit { end: End::Signal(9), .. } => {
            "somebody killed it, or the host ran out of memory: see the kernel's log (dmesg)"
        }
        Exit { end: End::Status(126 | 127), .. } => "a shell did not find or could not run a command: see the last log line",
        _ => "its last log lines say why; run the command by hand in the release's folder on this host",
    }
}

async fn with_log(life: &Life, running: &Running, problem: Problem) -> Problem {
    log_lines(problem, life.runtime.log(running).await)
}

fn log_lines(problem: Problem, lines: Vec<String>) -> Problem {
    if lines.is_empty() {
        return problem.saw("last log", "nothing was written");
    }
    lines.into_iter().fold(problem, |problem, line| problem.saw("last log", line))
}

fn owner(listener: &Listener) -> String {
    owner_of(listener.inode).map_or_else(|| "a process this agent may not look into".to_owned(), |owner| owner.to_string())
}

#[cfg(test)]
mod tests {
    use super::is_full;

    #[test]
    fn a_disk_is_full_when_next_to_nothing_is_left_of_its_bytes_or_its_files() {
        assert!(is_full(0, 9, 9) && is_full(100_000, 9, 9));
        assert!(is_full(1 << 30, 0, 9));
        assert!(!is_full(1 << 30, 1, 9));
        assert!(!is_full(1 << 30, 0, 0), "this file system does not count them");
    }
}
