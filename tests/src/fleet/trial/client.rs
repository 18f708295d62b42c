//! Clients of the fleet: the strict load generator, inside the fleet's network.

use crate::fleet::network::{self, HUB};
use anyhow::{Context as _, anyhow};
use baton_cli::demo::load::{Config, Load, Report};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;

/// Clients that never stop asking.
#[derive(Debug)]
pub(super) struct Clients {
    load: Load,
    runtime: tokio::runtime::Runtime,
}

impl Clients {
    /// Begins to send.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub(super) fn start(target: SocketAddr, rate: u32) -> anyhow::Result<Self> {
        // The generator's own thread is born in the namespace of the thread that starts it.
        let load = inside(move || Ok(Load::start(Config::new(target, rate))?))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { load, runtime })
    }

    /// What every request met that was due since the last mark.
    ///
    /// # Errors
    /// When the generator is gone.
    pub(super) fn mark(&self) -> anyhow::Result<Report> {
        Ok(self.runtime.block_on(self.load.mark())?)
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
