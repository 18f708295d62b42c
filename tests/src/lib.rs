//! What tests share: real hosts to run on.

pub mod bench;
pub mod e2e;
pub mod fleet;
