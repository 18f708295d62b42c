//! `baton why [SERVICE|ROLLOUT|HOST]`.

use super::status::own_problems;
use super::target::not_deployed_here;
use crate::Context;
use crate::connection::Connection;
use crate::errors::{Failure, code};
use crate::exit::Exit;
use crate::render::page::{Line, Page};
use crate::render::why;
use baton_core::problem::Problem;
use baton_proto::v1::{FleetView, HostView, ServiceView};
use clap::Args;
use serde_json::json;

/// `baton why`.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// A service, its rollout or a host; where none is named, every service
    #[arg(value_name = "SERVICE|ROLLOUT|HOST")]
    pub name: Option<String>,
}

/// Says why something is as it is.
///
/// # Errors
/// When the coordinator cannot be asked, or nothing has that name.
pub async fn run(args: WhyArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let view = Connection::open(context.connect)?.view("").await?;
    let output = context.output;
    match subject(&view, args.name.as_deref())? {
        Subject::Services(services) => {
            let mut page = Page::new();
            for (nth, service) in services.iter().enumerate() {
                if nth > 0 {
                    page.line(Line::default());
                }
                page.extend(why::service(service, &view));
            }
            page.extend(own_problems(&view));
            output.answer(&page);
            output.json(&json!({ "services": services }));
            if let [only] = services.as_slice() {
                output.next(&format!("baton status {}", only.name));
            }
        }
        Subject::Host(host) => {
            output.answer(why::host(host, &view).extend(own_problems(&view)));
            output.json(&json!({ "host": host }));
            output.next(&format!("baton hosts show {}", host.name));
        }
    }
    Ok(Exit::Done)
}

enum Subject<'a> {
    Services(Vec<&'a ServiceView>),
    Host(&'a HostView),
}

/// Services first: a host that is called like a service is asked about with `hosts show`.
fn subject<'a>(view: &'a FleetView, name: Option<&str>) -> Result<Subject<'a>, Problem> {
    let Some(name) = name else {
        let services: Vec<&ServiceView> = view.services.iter().collect();
        let none =
            || Problem::new(code::UNKNOWN_NAME, "there is no service yet").help("baton deploy brings the first release");
        return if services.is_empty() { Err(none()) } else { Ok(Subject::Services(services)) };
    };
    let is_rollout = |service: &&ServiceView| service.rollout.as_ref().is_some_and(|rollout| rollout.id == name);
    let service = view.services.iter().find(|service| service.name == name);
    let service = service.or_else(|| view.services.iter().find(is_rollout)).map(|service| Subject::Services(vec![service]));
    let host = || view.hosts.iter().find(|host| host.name == name).map(Subject::Host);
    service.or_else(host).ok_or_else(|| {
        if let Some(problem) = not_deployed_here(name, view) {
            return problem;
        }
        let names = view.services.iter().map(|service| &service.name).chain(view.hosts.iter().map(|host| &host.name));
        let names: Vec<&str> = names.map(String::as_str).collect();
        Problem::new(code::UNKNOWN_NAME, format!("no service and no host is called {name}"))
            .saw("there are", if names.is_empty() { "none".to_owned() } else { names.join(", ") })
            .help("baton status shows services, baton hosts list shows hosts, baton show a rollout of before")
    })
}

#[cfg(test)]
mod tests {
    use super::{Subject, subject};
    use crate::render::example;

    #[test]
    fn a_name_is_a_service_or_a_host() {
        let fleet = example::fleet();
        assert!(matches!(subject(&fleet, Some("shop")), Ok(Subject::Services(services)) if services.len() == 1));
        assert!(matches!(subject(&fleet, Some("web3")), Ok(Subject::Host(host)) if host.name == "web3"));
        let rollout = fleet.services[0].rollout.as_ref().expect("a rollout").id.clone();
        assert!(matches!(subject(&fleet, Some(&rollout)), Ok(Subject::Services(services)) if services[0].name == "shop"));
        assert!(matches!(subject(&fleet, None), Ok(Subject::Services(_))));
        let Err(unknown) = subject(&fleet, Some("web9")) else { panic!() };
        assert_eq!(unknown.seen[0].1, "shop, lb1, web2, web3, web4");
    }
}
