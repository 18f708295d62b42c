//! The holder of public sockets as a process of its own, which outlives the agent as instances do.

use crate::runtime::sockets::Starter as Start;
use crate::runtime::{Answer, handing};
use crate::text;
use baton_core::problem::{Code, Problem};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Starts holders, and collects those that ended.
#[derive(Debug)]
pub(super) struct Starter {
    parts: Vec<String>,
    child: Mutex<Option<Child>>,
}

impl Starter {
    pub(super) fn new(parts: Vec<String>) -> Self {
        Self { parts, child: Mutex::default() }
    }

    fn spawn(&self, asked: OwnedFd) -> io::Result<()> {
        let (program, words) = self.parts.split_first().ok_or_else(|| io::Error::other("no program to start it with"))?;
        let mut holder = Command::new(program);
        holder.args(words).arg(handing::HOLD).current_dir("/").process_group(0);
        let holder = holder.stdin(asked).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut before) = child.replace(holder) {
            let _ = before.try_wait();
        }
        Ok(())
    }
}

impl Start for Starter {
    fn start(&self, asked: OwnedFd) -> Answer<'_, Result<(), Problem>> {
        let started = self.spawn(asked).map_err(|error| {
            let what = format!("the process that holds public sockets could not be started: {}", text::io_error(&error));
            Problem::new(Code(214), what).saw("program", self.parts.join(" "))
        });
        Box::pin(async { started })
    }
}
