//! A process of its own that stops another one at its durable steps, and kills at one of them.
//!
//! With `ptrace`, from outside: the programs under test have no hooks and are the ones that are shipped. Every thread is traced
//! and no child, so the steps are those of that process alone. A call is stopped at its entry, before the kernel carries it out,
//! and again at its exit, before the program hears of it: whoever dies there has done it, and told nobody.

use super::step::{Moment, Note, Step, clock_s};
use anyhow::{Context as _, bail};
use clap::Parser;
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

/// The first word of its command line.
pub const TRACER: &str = "tracer";
/// The longest path there is.
const PATH_MAX: usize = 4096;
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// `bench tracer …`
#[derive(Debug, Parser)]
#[command(name = TRACER, hide = true)]
struct Order {
    /// Whose durable steps are counted
    #[arg(long)]
    watched: i32,
    /// Who is killed
    #[arg(long = "victim", required = true)]
    victims: Vec<i32>,
    /// At which step, from 1
    #[arg(long)]
    at: u64,
    #[arg(long, value_enum)]
    moment: Moment,
}

/// Traces as the command line says, and tells what it sees in lines of JSON.
///
/// # Errors
/// When the process cannot be traced.
pub fn main(words: &[String]) -> anyhow::Result<()> {
    let order = Order::parse_from(words);
    let mut tracer = Tracer { watched: Pid::from_raw(order.watched), order, number: 0, under_way: BTreeMap::new() };
    tracer.attach()?;
    say(&Note::Attached)?;
    match tracer.follow()? {
        Some(step) => {
            say(&Note::Kills { step, at_s: clock_s() })?;
            tracer.kill()?;
            say(&Note::Killed)
        }
        None => say(&Note::Gone),
    }
}

struct Tracer {
    watched: Pid,
    order: Order,
    /// Durable steps so far.
    number: u64,
    /// The step each thread is in the middle of.
    under_way: BTreeMap<Pid, Step>,
}

impl Tracer {
    /// Takes hold of every thread there is; those that begin later are traced from their first instruction.
    fn attach(&self) -> anyhow::Result<()> {
        let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE;
        let mut known = BTreeSet::new();
        loop {
            let before = known.len();
            for entry in std::fs::read_dir(format!("/proc/{}/task", self.watched)).context("it does not run")? {
                let Some(thread) = entry?.file_name().to_str().and_then(|name| name.parse().ok()).map(Pid::from_raw) else {
                    continue;
                };
                if !known.insert(thread) {
                    continue;
                }
                match ptrace::seize(thread, options) {
                    Ok(()) => ptrace::interrupt(thread).context("cannot stop a thread")?,
                    // It ended meanwhile, or began under one that is traced already.
                    Err(Errno::ESRCH) => {}
                    Err(Errno::EPERM) if thread != self.watched && before > 0 => {}
                    Err(error) => bail!("cannot trace process {}: {error}", self.watched),
                }
            }
            if known.len() == before {
                return Ok(());
            }
        }
    }

    /// Lets everything go on, from stop to stop, until the step has come. None: the process ended before.
    fn follow(&mut self) -> anyhow::Result<Option<Step>> {
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Ok(status) => status,
                Err(Errno::ECHILD) => return Ok(None),
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error).context("cannot wait for the process"),
            };
            let signal = match status {
                WaitStatus::PtraceSyscall(thread) => {
                    if let Some(step) = self.syscall(thread)? {
                        return Ok(Some(step));
                    }
                    None
                }
                WaitStatus::Stopped(_, signal) => Some(signal),
                WaitStatus::PtraceEvent(..) => None,
                _ => continue,
            };
            let Some(thread) = status.pid() else { continue };
            match ptrace::syscall(thread, signal) {
                // It was killed while it stood.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error).context("cannot let a thread go on"),
            }
        }
    }

    /// A thread stands at the entry or the exit of a system call. Returns the step at which this is the moment to kill.
    fn syscall(&mut self, thread: Pid) -> anyhow::Result<Option<Step>> {
        let entered = match ptrace::syscall_info(thread) {
            Ok(info) => info.op == libc::PTRACE_SYSCALL_INFO_ENTRY,
            Err(Errno::ESRCH) => return Ok(None),
            Err(error) => return Err(error).context("cannot look at a system call"),
        };
        let is_it = |step: &Step, moment: Moment| step.number == self.order.at && self.order.moment == moment;
        if !entered {
            return Ok(self.under_way.remove(&thread).filter(|step| is_it(step, Moment::After)));
        }
        let Some((call, path)) = self.durable(thread) else { return Ok(None) };
        self.number += 1;
        let step = Step { number: self.number, call: call.to_owned(), path };
        say(&Note::Step(step.clone()))?;
        if is_it(&step, Moment::Before) {
            return Ok(Some(step));
        }
        self.under_way.insert(thread, step);
        Ok(None)
    }

    /// What a thread is about to do, where that is a durable step: the call, and the file.
    fn durable(&self, thread: Pid) -> Option<(&'static str, String)> {
        // `number argument argument … stack instruction`, in hexadecimal but for the first.
        let text = std::fs::read_to_string(format!("/proc/{}/task/{thread}/syscall", self.watched)).ok()?;
        let mut words = text.split_ascii_whitespace();
        let number = words.next()?.parse::<i64>().ok()?;
        let arguments = words.map_while(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok());
        let arguments = arguments.collect::<Vec<_>>();
        let of_file = |index: usize| {
            let link = std::fs::read_link(format!("/proc/{}/fd/{}", self.watched, arguments.get(index)?)).ok()?;
            Some(link.display().to_string())
        };
        let named = |index: usize| self.text_at(*arguments.get(index)?);
        match number {
            libc::SYS_fsync => Some(("fsync", of_file(0).unwrap_or_default())),
            libc::SYS_fdatasync => Some(("fdatasync", of_file(0).unwrap_or_default())),
            libc::SYS_renameat => Some(("rename", named(3).unwrap_or_default())),
            libc::SYS_renameat2 => Some(("rename", named(3).unwrap_or_default())),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_rename => Some(("rename", named(1).unwrap_or_default())),
            _ => None,
        }
    }

    fn text_at(&self, address: u64) -> Option<String> {
        let memory = std::fs::File::open(format!("/proc/{}/mem", self.watched)).ok()?;
        let mut bytes = vec![0; PATH_MAX];
        let read = memory.read_at(&mut bytes, address).ok()?;
        let end = bytes.iter().take(read).position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(bytes.get(..end)?).into_owned())
    }

    /// Kills, and returns when the killed are gone.
    fn kill(&self) -> anyhow::Result<()> {
        let victims = self.order.victims.iter().copied().map(Pid::from_raw).collect::<Vec<_>>();
        for victim in &victims {
            match kill(*victim, Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => bail!("cannot kill process {victim}: {error}"),
            }
        }
        if victims.contains(&self.watched) {
            // Its threads are reported to whoever traces them, and only then is it gone for its parent.
            while !matches!(waitpid(None, Some(WaitPidFlag::__WALL)), Err(Errno::ECHILD)) {}
        }
        while victims.iter().any(|victim| super::is_alive(victim.as_raw())) {
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }
}

fn say(note: &Note) -> anyhow::Result<()> {
    let mut line = serde_json::to_string(note)?;
    line.push('\n');
    std::io::stdout().lock().write_all(line.as_bytes()).context("nobody listens any more")
}
