//! `baton audit list`, `verify` and `export`.

use crate::Context;
use crate::connection::Connection;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::render::audit;
use baton_proto::problem::from_status;
use baton_proto::v1::{AuditEntry, ListAuditRequest, VerifyAuditRequest};
use clap::{Args, Subcommand};
use data_encoding::HEXLOWER;
use serde_json::json;

/// `baton audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    #[command(subcommand)]
    pub what: Option<Audit>,
}

/// What to do with the log. Without a word: its newest entries.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// The newest entries
    List {
        /// How many
        #[arg(long, value_name = "N", default_value_t = NEWEST)]
        newest: u64,
    },
    /// Check that nothing was changed, deleted or cut off
    Verify,
    /// The whole log on stdout, one JSON document a line, each with its hash
    Export {
        /// Only entries after this one
        #[arg(long, value_name = "ENTRY", default_value_t = 0)]
        after: u64,
    },
}

const NEWEST: u64 = 50;

/// Lists, checks or exports the log.
///
/// # Errors
/// When the coordinator cannot be asked. A log that was tampered with is no error but an answer: exit code 5.
pub async fn run(args: AuditArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let mut connection = Connection::open(context.connect)?;
    let output = context.output;
    match args.what.unwrap_or(Audit::List { newest: NEWEST }) {
        Audit::List { newest } => {
            let entries = collect(&mut connection, ListAuditRequest { after: 0, newest: newest.max(1) }).await?;
            output.answer(&audit::entries(&entries));
            output.json(&json!({ "entries": entries.iter().map(document).collect::<Vec<_>>() }));
            output.next("baton audit verify");
            Ok(Exit::Done)
        }
        Audit::Export { after } => {
            let mut stream = connection.control.list_audit(ListAuditRequest { after, newest: 0 }).await?.into_inner();
            let lines = output.answers();
            while let Some(entry) = stream.message().await.map_err(|status| from_status(&status))? {
                lines.write(&format!("{}\n", document(&entry)));
            }
            Ok(Exit::Done)
        }
        Audit::Verify => {
            let verdict = connection.control.verify_audit(VerifyAuditRequest {}).await?.into_inner();
            output.answer(&audit::verdict(&verdict));
            output.json(&json!({
                "entries": verdict.entries,
                "head": HEXLOWER.encode(&verdict.head),
                "faults": verdict.faults,
                "witnesses": verdict.witnesses,
            }));
            Ok(if verdict.faults.is_empty() { Exit::Done } else { Exit::NeedsPerson })
        }
    }
}

pub(super) async fn collect(connection: &mut Connection, request: ListAuditRequest) -> Result<Vec<AuditEntry>, Failure> {
    let mut stream = connection.control.list_audit(request).await?.into_inner();
    let mut entries = Vec::new();
    while let Some(entry) = stream.message().await.map_err(|status| from_status(&status))? {
        entries.push(entry);
    }
    Ok(entries)
}

/// An entry with its text as it was hashed, so that others can check the chain.
pub(super) fn document(entry: &AuditEntry) -> serde_json::Value {
    json!({
        "number": entry.number,
        "at": entry.at_seconds,
        "entry": audit::fields(entry),
        "text": entry.text,
        "hash": HEXLOWER.encode(&entry.hash),
    })
}
