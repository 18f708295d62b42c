//! `baton certificates list` and `baton certificates revoke WHOSE`.

use crate::Context;
use crate::connection::Connection;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::render::certificates::certificates;
use crate::render::page::Page;
use baton_proto::v1::{ListCertificatesRequest, RevokeCertificatesRequest};
use clap::{Args, Subcommand};

/// `baton certificates`.
#[derive(Debug, Args)]
pub struct CertificatesArgs {
    #[command(subcommand)]
    pub what: Option<Certificates>,
}

/// What to do with certificates. Without a word: list them.
#[derive(Debug, Subcommand)]
pub enum Certificates {
    /// Every certificate that has not ended
    List,
    /// Accept a certificate no more, and cut what is open with it
    Revoke {
        /// An identity such as host/web1 or deployer/ana, or one serial number
        whose: String,
        /// Why, for the record
        #[arg(long, value_name = "REASON", default_value = "")]
        why: String,
    },
}

/// Lists or revokes certificates.
///
/// # Errors
/// When the coordinator refuses, or nobody has such a certificate.
pub async fn run(args: CertificatesArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let mut connection = Connection::open(context.connect)?;
    let output = context.output;
    match args.what.unwrap_or(Certificates::List) {
        Certificates::List => {
            let list = connection.control.list_certificates(ListCertificatesRequest {}).await?.into_inner();
            output.answer(&certificates(&list));
            output.json(&list);
            output.next("baton certificates revoke host/NAME");
        }
        Certificates::Revoke { whose, why } => {
            let request = RevokeCertificatesRequest { whose: whose.clone(), why };
            let list = connection.control.revoke_certificates(request).await?.into_inner();
            output.answer(Page::new().text(format!("{whose} is not accepted any more")));
            output.json(&list);
            output.next(&match whose.strip_prefix("host/") {
                Some(host) => format!("baton token create --name {host}, and on its machine: baton-agent join --replace"),
                None => "baton certificates list".to_owned(),
            });
        }
    }
    Ok(Exit::Done)
}
