//! The holder of public sockets as a unit of its own: neither an upgrade nor a removal of the agent ends it.

use super::bus::{Bus, Properties};
use crate::runtime::sockets::Starter as Start;
use crate::runtime::{Answer, handing};
use baton_core::name::Digest;
use baton_core::problem::{Code, Problem};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

/// Starts holders as transient units.
#[derive(Debug)]
pub(super) struct Starter {
    bus: Arc<Bus>,
    parts: Vec<String>,
    unit: String,
}

impl Starter {
    /// One unit for each agent of a host: the name holds the agent's folder.
    pub(super) fn new(bus: Arc<Bus>, parts: Vec<String>, folder: &Path) -> Self {
        let folder = Digest::of(folder.as_os_str().as_encoded_bytes()).short();
        Self { bus, parts, unit: format!("baton-sockets.{folder}.service") }
    }

    async fn launch(&self, asked: OwnedFd) -> Result<(), Problem> {
        let mut words = self.parts.clone();
        words.push(handing::HOLD.to_owned());
        let mut properties = Properties::default();
        properties.text("Description", "Public sockets of this host's services, held by Baton");
        properties.text("Type", "exec");
        properties.execute(&words);
        properties.descriptor("StandardInputFileDescriptor", asked);
        for protection in
            ["NoNewPrivileges", "PrivateDevices", "ProtectKernelTunables", "ProtectControlGroups", "ProtectClock"]
        {
            properties.set(protection, true);
        }
        properties.text("ProtectSystem", "strict");
        // One that ended and was not read yet is in the way of the next.
        self.bus.reset(&self.unit).await;
        self.bus.start(&self.unit, properties).await?;
        let state = self.bus.settled(&self.unit).await?;
        if state.is_alive() {
            return Ok(());
        }
        Err(Problem::new(Code(214), "the unit that holds public sockets could not be started")
            .saw("unit", format!("{}: {}", self.unit, state.reason()))
            .help(format!("journalctl -u {} on this host says more", self.unit)))
    }
}

impl Start for Starter {
    fn start(&self, asked: OwnedFd) -> Answer<'_, Result<(), Problem>> {
        Box::pin(self.launch(asked))
    }
}
