//! Hooks: commands that must not happen twice.
//!
//! That a hook begins is on disk before its process is there, and how it ended before anybody is told. An agent that finds a
//! beginning without an end looks for the process, and where there is none left to ask it says that nobody knows: it never
//! runs the hook again by itself.

mod errand;
mod record;

pub(crate) use errand::{Errand, Origin, key_of_slot};
pub(crate) use record::{Record, Records};
