//! `baton certificates list` and `baton certificates revoke WHOSE`.

use crate::Context;
use crate::connection::Connection;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::outcome::is_active;
use crate::render::certificates::certificates;
use crate::render::page::Page;
use baton_proto::v1::{CertificateList, FleetView, ListCertificatesRequest, RevokeCertificatesRequest};
use clap::{Args, Subcommand};
use serde_json::json;

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
            let mut page = Page::new();
            page.text(format!("{whose} is not accepted any more"));
            // What was asked for is done, whether the fleet can be looked at or not.
            let begun = match operator(&list, &whose) {
                Some(name) => connection.view("").await.map(|view| begun_by(&view, &name)).unwrap_or_default(),
                None => Vec::new(),
            };
            for Begun { service, rollout, what, ends } in &begun {
                page.text(format!("{rollout} of {service}, {what}, goes on; to end it: {ends}"));
            }
            output.answer(&page);
            let begun: Vec<_> = begun.iter().map(Begun::document).collect();
            output.json(&json!({ "certificates": list.certificates, "begun": begun }));
            output.next(&match whose.strip_prefix("host/") {
                Some(host) => format!("baton token create --name {host}, and on its machine: baton-agent join --replace"),
                None => "baton certificates list".to_owned(),
            });
        }
    }
    Ok(Exit::Done)
}

/// A rollout that somebody began, and that does not end because its author is gone.
struct Begun {
    service: String,
    rollout: String,
    what: String,
    ends: String,
}

impl Begun {
    fn document(&self) -> serde_json::Value {
        json!({ "service": self.service, "rollout": self.rollout, "ends_with": self.ends })
    }
}

/// The name of the operator whose certificate this is; None: a host's.
fn operator(list: &CertificateList, whose: &str) -> Option<String> {
    let by_serial = list.certificates.iter().find(|certificate| certificate.serial == whose);
    let identity = by_serial.map_or(whose, |certificate| &certificate.identity);
    let (role, name) = identity.split_once('/')?;
    (role != "host").then(|| name.to_owned())
}

/// What an operator of this name began and is not over, also what waits for its turn.
fn begun_by(view: &FleetView, name: &str) -> Vec<Begun> {
    let mut begun = Vec::new();
    for service in &view.services {
        let own = service.rollout.as_ref().filter(|rollout| is_active(rollout) && rollout.by == name);
        begun.extend(own.map(|rollout| Begun {
            service: service.name.clone(),
            rollout: rollout.id.clone(),
            what: format!("to {}", rollout.to_version),
            ends: format!("baton abort {}", service.name),
        }));
        let queued = service.queue.iter().filter(|queued| queued.by == name);
        begun.extend(queued.map(|queued| Begun {
            service: service.name.clone(),
            rollout: queued.rollout.clone(),
            what: format!("to {}, which waits for its turn", queued.version),
            ends: format!("baton abort {} --queued {}", service.name, queued.rollout),
        }));
    }
    begun
}
