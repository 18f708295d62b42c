//! Clients of the fleet: the strict load generator, inside the fleet's network.

use crate::fleet::network::{self, HUB};
use anyhow::{Context as _, anyhow};
use baton_cli::demo::load::{Config, Load, Report};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

/// Clients that never stop asking.
#[derive(Debug)]
pub(super) struct Clients {
    load: Load,
    marked: Instant,
    runtime: tokio::runtime::Runtime,
}

impl Clients {
    /// Begins to send.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub(super) fn start(target: SocketAddr, rate: u32) -> anyhow::Result<Self> {
        // The generator's own thread is born in the namespace of the thread that starts it.
        let marked = Instant::now();
        let load = inside(move || Ok(Load::start(Config::new(target, rate))?))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { load, marked, runtime })
    }

    /// What every request met that was due since the last mark.
    ///
    /// # Errors
    /// When the generator is gone.
    pub(super) fn mark(&mut self) -> anyhow::Result<Phase> {
        let begun = std::mem::replace(&mut self.marked, Instant::now());
        Ok(Phase { begun, report: self.runtime.block_on(self.load.mark())? })
    }
}

/// What clients met from one mark to the next.
#[derive(Debug)]
pub(super) struct Phase {
    begun: Instant,
    pub(super) report: Report,
}

impl Phase {
    /// When the first request was due that failed.
    #[must_use]
    pub(super) fn first_failure(&self) -> Option<Instant> {
        let first = self.report.failures.iter().map(|failure| failure.at_s).reduce(f64::min)?;
        Some(self.begun + Duration::from_secs_f64(first))
    }
}

/// Does something as a client of the fleet: on a thread in the hub's namespace.
///
/// # Errors
/// When the namespace cannot be entered, or with what was done.
pub(super) fn inside<T: Send>(act: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let path = network::path(HUB);
            let namespace = File::open(&path).with_context(|| format!("cannot open {path}"))?;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("cannot enter {path}"))?;
            act()
        });
        thread.join().map_err(|_| anyhow!("a client's thread panicked"))?
    })
}
