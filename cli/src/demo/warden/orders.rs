//! What is said over a warden's pipes: one JSON document a line, one reply to each order.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A program to start.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Program {
    /// Its path and its arguments.
    pub words: Vec<String>,
    pub env: BTreeMap<String, String>,
    /// Where it runs.
    pub folder: PathBuf,
    /// Its standard output and error are appended here.
    pub log: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    Start(Program),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reply {
    Started { pid: i32 },
    Refused { why: String },
}
