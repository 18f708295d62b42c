//! Addresses for tests, which nobody else in this process or beside it asks for.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU8, Ordering};

/// A free port on an address of its own: it stays free until whoever got it listens there.
pub(crate) fn place() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let process = std::process::id().to_le_bytes();
    let address = Ipv4Addr::new(127, 128 | process[0] >> 1, process[1], NEXT.fetch_add(1, Ordering::SeqCst));
    TcpListener::bind((address, 0)).and_then(|listener| listener.local_addr()).expect("a free port")
}
