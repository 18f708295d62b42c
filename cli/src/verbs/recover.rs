//! `baton recover --without HOST...`.

use crate::Context;
use crate::connection::Connection;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::render::page::Page;
use baton_proto::v1::RecoverRequest;
use clap::Args;
use serde_json::json;

/// `baton recover`.
#[derive(Debug, Args)]
pub struct RecoverArgs {
    /// A host that was not heard and is not waited for: every one of them must be named
    #[arg(long = "without", value_name = "HOST", required = true)]
    pub without: Vec<String>,
    /// For the audit log
    #[arg(long, value_name = "TEXT")]
    pub why: String,
}

/// Lets a coordinator that was restored from a backup go on without hosts it has not heard.
///
/// # Errors
/// When another host was not heard either, or it is refused.
pub async fn run(args: RecoverArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let mut connection = Connection::open(context.connect)?;
    let RecoverArgs { without, why } = args;
    let reply = connection.control.recover(RecoverRequest { without: without.clone(), why }).await?.into_inner();
    let words = if reply.unchanged {
        "nothing to do: the coordinator decides".to_owned()
    } else {
        format!(
            "the coordinator decides again, without {}; what they were told is read when they come back",
            without.join(", ")
        )
    };
    context.output.answer(Page::new().text(words));
    let outcome = if reply.unchanged { "unchanged" } else { "recovered" };
    context.output.json(&json!({ "without": without, "outcome": outcome, "exit": Exit::Done.code() }));
    context.output.next("baton status");
    Ok(Exit::Done)
}
