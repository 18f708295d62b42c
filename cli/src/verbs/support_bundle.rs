//! `baton support-bundle FILE`.

use super::audit::{collect, document};
use crate::Context;
use crate::connection::{Connection, config_folder};
use crate::doctor::{Places, examine};
use crate::errors::{Failure, code};
use crate::exit::Exit;
use crate::render::page::Page;
use crate::scrub;
use baton_core::problem::Problem;
use baton_proto::v1::{HistoryRequest, ListAuditRequest};
use clap::Args;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Entries of the audit log, rollouts, and lines of each unit's journal.
const AUDIT: u64 = 500;
const ROLLOUTS: u32 = 50;
const LINES: &str = "2000";

/// The units that are Baton's own. What applications write is not handed on.
const UNITS: [&str; 3] = ["baton-coordinator.service", "baton-agent.service", "baton-agent-link.service"];
const SETTINGS: [&str; 2] = ["coordinator", "agent"];

/// `baton support-bundle`.
#[derive(Debug, Args)]
pub struct SupportBundleArgs {
    /// The file to write, such as baton.tar.zst; never overwritten
    pub file: PathBuf,
    /// Where this machine's files are
    #[arg(long, value_name = "FOLDER", default_value = "/", hide = true)]
    pub root: PathBuf,
}

/// Collects what somebody who helps needs to see, without secrets. What cannot be had is said in its place.
///
/// # Errors
/// When the file is there already or cannot be written.
pub async fn run(args: SupportBundleArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let places = Places { root: args.root.clone(), login: config_folder().ok(), manifest: PathBuf::from("baton.toml") };
    let mut files = BTreeMap::new();
    let versions = json!({ "baton": env!("CARGO_PKG_VERSION"), "system": system(&args.root) });
    files.insert("versions.json".to_owned(), text(&versions));
    files.insert("doctor.json".to_owned(), text(&examine(&places, context.connect).await));
    for (name, said) in asked(context).await {
        files.insert(name.to_owned(), said.unwrap_or_else(|failure| format!("not to be had: {}\n", failure.problem)));
    }
    for name in SETTINGS {
        if let Ok(settings) = std::fs::read_to_string(args.root.join("etc/baton").join(format!("{name}.toml"))) {
            files.insert(format!("settings/{name}.json"), scrub::settings(&settings));
        }
    }
    for unit in UNITS {
        files.insert(format!("journal/{unit}.txt"), journal(unit));
    }
    write(&args.file, &files).map_err(|error| {
        Problem::new(code::NOT_WRITTEN, format!("{} cannot be written", args.file.display()))
            .saw("file system", error.to_string())
            .help("name a file that is not there yet, in a folder you may write to")
    })?;
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    let mut page = Page::new();
    page.text(format!("wrote {}: {}", args.file.display(), names.join(", ")));
    page.text("it holds names of hosts, services and people, and no secrets; look into it before you hand it on");
    context.output.answer(&page);
    context.output.json(&json!({ "file": args.file, "holds": names }));
    Ok(Exit::Done)
}

/// What the coordinator says. Of why a service is as it is, the waiting reasons stand in its status.
async fn asked(context: Context<'_>) -> Vec<(&'static str, Result<String, Failure>)> {
    let mut connection = match Connection::open(context.connect) {
        Ok(connection) => connection,
        Err(problem) => return vec![("status.json", Err(problem.into()))],
    };
    let status = connection.view("").await.map(|view| clean(&view)).map_err(Failure::from);
    let request = HistoryRequest { limit: ROLLOUTS, ..HistoryRequest::default() };
    let history = connection.control.history(request).await.map(|list| clean(&list.into_inner())).map_err(Failure::from);
    let audit = collect(&mut connection, ListAuditRequest { after: 0, newest: AUDIT }).await;
    let audit = audit.map(|entries| entries.iter().map(|entry| clean(&document(entry)["entry"])).collect());
    vec![("status.json", status), ("history.json", history), ("audit.jsonl", audit)]
}

fn clean(value: &impl Serialize) -> String {
    let mut value = serde_json::to_value(value).unwrap_or_default();
    scrub::words(&mut value);
    format!("{value}\n")
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

fn system(root: &Path) -> serde_json::Value {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default().trim().to_owned();
    let release = read("etc/os-release");
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or_default();
    json!({ "os": name.trim_matches('"'), "kernel": read("proc/sys/kernel/osrelease") })
}

/// The end of a unit's journal, where whoever asks may read it.
fn journal(unit: &str) -> String {
    let asked = Command::new("journalctl").args(["--no-pager", "--output=short-iso", "-n", LINES, "-u", unit]).output();
    match asked {
        Ok(said) if said.status.success() => String::from_utf8_lossy(&said.stdout).into_owned(),
        Ok(said) => format!("not to be had: {}\n", String::from_utf8_lossy(&said.stderr).trim()),
        Err(error) => format!("not to be had: {error}\n"),
    }
}

/// The whole file or none, its owner's alone.
fn write(to: &Path, files: &BTreeMap<String, String>) -> io::Result<()> {
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mode = std::fs::Permissions::from_mode(0o600);
    let mut file = tempfile::Builder::new().permissions(mode).tempfile_in(folder)?;
    let mut archive = tar::Builder::new(zstd::Encoder::new(&mut file, 0)?);
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        archive.append_data(&mut header, name, text.as_bytes())?;
    }
    archive.into_inner()?.finish()?.flush()?;
    file.persist_noclobber(to)?;
    Ok(())
}
