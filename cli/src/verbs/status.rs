//! `baton status [SERVICE]`.

use super::target::one_service;
use crate::Context;
use crate::connection::Connection;
use crate::errors::{Failure, from_wire, problem_page};
use crate::exit::Exit;
use crate::render::frame::{Drawing, frame};
use crate::render::page::Page;
use crate::render::status::{fleet, troubles};
use baton_proto::v1::{FleetView, HostView};
use clap::Args;

/// `baton status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// One service, with its hosts
    pub service: Option<String>,
}

/// Shows services, their hosts and rollouts.
///
/// # Errors
/// When the coordinator cannot be asked.
pub async fn run(args: StatusArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let mut connection = Connection::open(context.connect)?;
    let output = context.output;
    if args.service.is_some() {
        let (service, view) = one_service(&mut connection, args.service.as_deref()).await?;
        let hosts: Vec<HostView> =
            view.hosts.iter().filter(|host| service.hosts.iter().any(|own| own.host == host.name)).cloned().collect();
        let mut page = frame(&service, &Drawing { plain: output.plain, ..Drawing::default() });
        page.extend(troubles(&hosts)).extend(own_problems(&view));
        output.answer(&page);
        output.json(&service);
        output.next(&format!("baton why {}", service.name));
        return Ok(Exit::Done);
    }
    let view = connection.view("").await?;
    let mut page = fleet(&view);
    page.extend(own_problems(&view));
    output.answer(&page);
    output.json(&view);
    output.next(&next(&view));
    Ok(Exit::Done)
}

/// What keeps the coordinator itself from deciding.
pub(super) fn own_problems(view: &FleetView) -> Page {
    let mut page = Page::new();
    for problem in &view.problems {
        page.extend(problem_page(&from_wire(problem)));
    }
    page
}

fn next(view: &FleetView) -> String {
    match (view.services.as_slice(), view.hosts.as_slice()) {
        ([], []) => "baton token create --hosts 3".to_owned(),
        ([], _) => "baton init   and   baton deploy SERVICE VERSION".to_owned(),
        ([only], _) => format!("baton status {}", only.name),
        _ => "baton status SERVICE".to_owned(),
    }
}
