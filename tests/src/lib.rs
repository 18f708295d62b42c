//! What tests share: real hosts to run on.

pub mod fleet;
