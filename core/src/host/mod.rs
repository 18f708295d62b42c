//! The agent's half: what one host does next to match its spec.

pub mod fallback;
pub mod plan;
