//! TLS over real sockets, with authorities made for each test.

mod authority;
mod certificates;
mod conversation;
mod files;
mod joining;
mod local;
mod network;
mod reload;

pub(super) use authority::{Authority, Wish};
pub(super) use conversation::{Server, ask, connect, connect_to, join_with};
