//! What a rollout is and what happens next.
//!
//! Pure: no I/O, no clock, no async, no logging. Time is an argument ([`time::Moment`]); every decision is a function from
//! what is known to what should be.

#[macro_use]
pub mod mutant;

pub mod analysis;
pub mod fleet;
pub mod hook;
pub mod host;
pub mod manifest;
pub mod name;
pub mod problem;
pub mod prometheus;
pub mod reboot;
pub mod release;
pub mod rollout;
pub mod scrape;
pub mod secret;
pub mod settings;
pub mod strategy;
pub mod time;
pub mod upgrade;
