//! `baton version`.

use crate::exit::Exit;
use crate::output::Output;
use crate::render::page::Page;
use serde_json::json;

/// Prints the version of this program and of the conversation it can follow.
#[must_use]
pub fn run(output: &Output) -> Exit {
    let version = env!("CARGO_PKG_VERSION");
    output.answer(Page::new().text(format!("baton {version}")));
    output.json(&json!({ "version": version, "protocol": baton_proto::PROTOCOL }));
    Exit::Done
}
