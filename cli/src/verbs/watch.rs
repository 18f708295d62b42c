//! `baton watch [SERVICE]`.

use super::ending;
use super::target::one_service;
use crate::Context;
use crate::connection::Connection;
use crate::errors::{Failure, code};
use crate::exit::Exit;
use crate::follow::{Follow, OnPause, follow};
use crate::outcome::{self, Wish, is_active};
use crate::render::frame::{Drawing, frame};
use crate::screen::Screen;
use baton_core::problem::Problem;
use baton_proto::v1::{FleetView, ServiceView};
use clap::Args;
use std::time::Duration;

/// `baton watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// The service; where none is named, the one with a rollout under way
    pub service: Option<String>,
    /// Stop watching after this long and end with 8; the rollout goes on
    #[arg(long, value_name = "DURATION", value_parser = super::target::duration)]
    pub timeout: Option<Duration>,
}

/// Follows a rollout until it ends.
///
/// # Errors
/// When the coordinator cannot be asked.
pub async fn run(args: WatchArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let mut connection = Connection::open(context.connect)?;
    let service = match args.service.as_deref() {
        Some(name) => one_service(&mut connection, Some(name)).await?.0,
        None => busy(&connection.view("").await?)?.clone(),
    };
    let Some(rollout) = service.rollout.as_ref().filter(|rollout| is_active(rollout)) else {
        return Ok(at_rest(&service, context));
    };
    let what = Follow {
        service: service.name.clone(),
        rollout: Some(rollout.id.clone()),
        wish: Wish::Forward,
        timeout: args.timeout,
        pause: OnPause::Wait,
    };
    let mut screen = Screen::of_answer(context.output);
    let ended = follow(&connection, what, context.output, &mut screen).await?;
    Ok(ending::tell(&service.name, &ended, context.output))
}

/// The one service something goes on with, else the only one.
fn busy(view: &FleetView) -> Result<&ServiceView, Problem> {
    let busy: Vec<&ServiceView> =
        view.services.iter().filter(|service| service.rollout.as_ref().is_some_and(is_active)).collect();
    match (busy.as_slice(), view.services.as_slice()) {
        ([only], _) => Ok(only),
        ([], [only]) => Ok(only),
        ([], []) => {
            Err(Problem::new(code::UNKNOWN_NAME, "there is no service yet").help("baton deploy brings the first release"))
        }
        ([], _) => Err(Problem::new(code::UNKNOWN_NAME, "no rollout is under way").help("baton status shows all services")),
        (several, _) => {
            let names: Vec<&str> = several.iter().map(|service| service.name.as_str()).collect();
            Err(Problem::new(code::UNKNOWN_NAME, "several rollouts are under way: which one?")
                .saw("services", names.join(", ")))
        }
    }
}

fn at_rest(service: &ServiceView, context: Context<'_>) -> Exit {
    let drawing = Drawing { plain: context.output.plain, ..Drawing::default() };
    let mut page = frame(service, &drawing);
    page.text(format!("no rollout of {} is under way · {}", service.name, outcome::health(service)));
    context.output.answer(&page);
    context.output.json(service);
    // Whoever comes late hears the same as whoever watched: a script must not take a release that was taken back for live.
    let exit = outcome::outcome(service, Wish::Forward).unwrap_or(Exit::Done);
    context.output.next(&outcome::next(service, exit));
    exit
}

#[cfg(test)]
mod tests {
    use super::busy;
    use crate::render::example;
    use baton_proto::v1::ServiceView;

    #[test]
    fn the_service_something_goes_on_with_is_watched() {
        let mut fleet = example::fleet();
        let quiet = ServiceView { name: "blog".into(), ..example::taken_back() };
        fleet.services.insert(0, quiet.clone());
        assert_eq!(busy(&fleet).unwrap().name, "shop");
        fleet.services.push(ServiceView { name: "mail".into(), ..example::service() });
        assert!(busy(&fleet).unwrap_err().what.contains("which one"));
        fleet.services = vec![quiet.clone()];
        assert_eq!(busy(&fleet).unwrap().name, "blog");
        fleet.services.push(ServiceView { name: "wiki".into(), ..quiet });
        assert!(busy(&fleet).is_err());
    }
}
