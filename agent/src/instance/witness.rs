//! The second witness: that an answer came from the instance, and from nobody else on its port.

use crate::connections::{listeners_at, owner_of, sockets_of};
use crate::probe::{Kind, Refusal};
use crate::runtime::{Running, Runtime};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// Remembers which listening sockets are the instance's, so that they are looked up once.
#[derive(Debug, Default)]
pub(super) struct Witness {
    known: BTreeSet<u64>,
}

impl Witness {
    /// Confirms that everyone who listens where the probe asked is the instance.
    ///
    /// An old process that still owns the port would otherwise answer the new one's probe.
    pub(super) fn confirm(&mut self, runtime: &dyn Runtime, running: &Running, address: SocketAddr) -> Result<(), Refusal> {
        let Ok(listeners) = listeners_at(address) else { return Ok(()) };
        let here: BTreeSet<u64> = listeners.iter().map(|listener| listener.inode).collect();
        if here.is_empty() {
            return Err(stranger("the answer came, but no process of this host listens there any more"));
        }
        if here.is_subset(&self.known) {
            return Ok(());
        }
        if !may_look(running.pid) {
            // Not ours to look into: the process itself is the only witness then.
            return Ok(());
        }
        let own = sockets(runtime, running, &here);
        match here.difference(&own).next() {
            None => {
                self.known = here;
                Ok(())
            }
            Some(foreign) => {
                let owner = owner_of(*foreign).map_or_else(|| "another process".to_owned(), |owner| owner.to_string());
                Err(stranger(&format!("the answer may have come from {owner}, which listens there too")))
            }
        }
    }
}

/// The instance's sockets; its first process usually has them, and the others are looked at only when it has not.
fn sockets(runtime: &dyn Runtime, running: &Running, wanted: &BTreeSet<u64>) -> BTreeSet<u64> {
    let mut own = sockets_of(running.pid);
    if !wanted.is_subset(&own) {
        own.extend(runtime.processes(running).into_iter().flat_map(sockets_of));
    }
    own
}

fn may_look(pid: u32) -> bool {
    let looked = std::fs::read_dir(format!("/proc/{pid}/fd"));
    !looked.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

fn stranger(seen: &str) -> Refusal {
    Refusal::new(Kind::Stranger, seen)
}
