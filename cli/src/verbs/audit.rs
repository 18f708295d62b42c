//! `baton audit list`, `verify`, `accept` and `export`.

use super::agents::confirm;
use crate::Context;
use crate::connection::Connection;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::export;
use crate::render::audit;
use crate::render::page::Page;
use baton_proto::problem::from_status;
use baton_proto::v1::{AcceptAuditLossRequest, AuditEntry, AuditLoss, AuditVerdict, ListAuditRequest, VerifyAuditRequest};
use clap::{Args, Subcommand};
use data_encoding::HEXLOWER;
use serde_json::json;
use std::path::PathBuf;

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
    Verify {
        /// Check what `export` wrote instead, without asking a coordinator
        #[arg(long, value_name = "EXPORT")]
        file: Option<PathBuf>,
    },
    /// Put on the record that entries are lost which hosts remember, as after a restore from a backup
    Accept {
        /// How that came, for the record
        #[arg(long, value_name = "REASON")]
        why: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
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
    let output = context.output;
    let what = args.what.unwrap_or(Audit::List { newest: NEWEST });
    if let Audit::Verify { file: Some(file) } = &what {
        let checked = export::check(file)?;
        output.answer(&audit::export(&checked));
        output.json(&json!({
            "entries": checked.entries,
            "first": checked.first,
            "last": checked.last,
            "head": checked.head,
            "faults": checked.faults.iter().map(|(line, what)| json!({ "line": line, "what": what })).collect::<Vec<_>>(),
        }));
        return Ok(if checked.faults.is_empty() { Exit::Done } else { Exit::NeedsPerson });
    }
    let mut connection = Connection::open(context.connect)?;
    match what {
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
        Audit::Verify { .. } => {
            let verdict = connection.control.verify_audit(VerifyAuditRequest {}).await?.into_inner();
            Ok(tell(&verdict, context))
        }
        Audit::Accept { why, yes } => accept(&mut connection, why, yes, context).await,
    }
}

/// Accepts what is lost now, and no more than was shown.
async fn accept(connection: &mut Connection, why: String, yes: bool, context: Context<'_>) -> Result<Exit, Failure> {
    let verdict = connection.control.verify_audit(VerifyAuditRequest {}).await?.into_inner();
    let Some(lost) = verdict.lost.clone() else {
        context.output.note(Page::new().text("nothing is lost that could be accepted"));
        return Ok(tell(&verdict, context));
    };
    if !yes {
        context.output.note(Page::new().text(audit::loss(&lost)));
        confirm("that this is lost stays on the record, and nobody is there to be asked", context)?;
    }
    let request = AcceptAuditLossRequest { heads: lost.heads, why };
    let verdict = connection.control.accept_audit_loss(request).await?.into_inner();
    Ok(tell(&verdict, context))
}

fn tell(verdict: &AuditVerdict, context: Context<'_>) -> Exit {
    let loss = |loss: &AuditLoss| {
        json!({
            "first": loss.first,
            "last": loss.last,
            "heads": loss.heads.iter().map(|head| json!({ "number": head.number, "hash": HEXLOWER.encode(&head.hash) }))
                .collect::<Vec<_>>(),
            "held_by": loss.held_by,
            "entry": loss.entry,
            "at": loss.at_seconds,
            "by": loss.by,
            "why": loss.why,
        })
    };
    context.output.answer(&audit::verdict(verdict));
    context.output.json(&json!({
        "entries": verdict.entries,
        "head": HEXLOWER.encode(&verdict.head),
        "faults": verdict.faults,
        "lost": verdict.lost.as_ref().map(loss),
        "accepted": verdict.accepted.iter().map(loss).collect::<Vec<_>>(),
        "witnesses": verdict.witnesses,
    }));
    match (verdict.faults.is_empty(), verdict.lost.is_some()) {
        (true, _) => Exit::Done,
        (false, lost) => {
            context.output.next(if lost { "baton audit accept --why REASON" } else { "baton audit export" });
            Exit::NeedsPerson
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
