//! What Baton's programs say to Prometheus: the text format, and the small server behind `/metrics`.
//!
//! Off unless a configuration says where. Read-only, plain HTTP, for loopback or a proxy.

mod serve;
#[cfg(test)]
mod tests;
mod text;

pub use serve::serve;
pub use text::{Exposition, Kind, flag};
