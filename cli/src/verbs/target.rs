//! What a verb is about: a service, a version, how long to wait.

use crate::connection::Connection;
use crate::errors::{Failure, code};
use crate::exit::Exit;
use crate::render::status::brought;
use baton_core::manifest::codes::BAD_NAME;
use baton_core::name::{InvalidName, ServiceName, Version};
use baton_core::problem::Problem;
use baton_core::rollout::command::NOT_DEPLOYED_HERE;
use baton_proto::v1::{FleetView, ServiceView};
use clap::Args;
use std::time::Duration;

/// `[SERVICE] VERSION`.
#[derive(Debug, Clone, Args)]
pub struct TargetArgs {
    /// The version; before it the service, to be sure that the manifest is its own
    #[arg(required = true, num_args = 1..=2, value_name = "VERSION")]
    words: Vec<String>,
}

/// Whether and how long to wait for the end.
#[derive(Debug, Clone, Default, Args)]
pub struct WaitArgs {
    /// Return as soon as it is accepted
    #[arg(long, conflicts_with = "timeout")]
    pub no_wait: bool,
    /// Stop waiting after this long and end with 8; the rollout goes on
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
}

impl TargetArgs {
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        (self.words.len() > 1).then(|| self.words[0].as_str())
    }

    #[must_use]
    pub fn version(&self) -> &str {
        self.words.last().map_or("", String::as_str)
    }

    /// The version of that service, checked.
    ///
    /// # Errors
    /// When no release can be called that, or only the service was named.
    pub fn version_of(&self, service: &ServiceName) -> Result<Version, Failure> {
        let version = self.version();
        if self.service().is_none() && version == service.as_str() {
            let problem = Problem::new(code::NO_VERSION, format!("the version is missing: {version} is the service"))
                .help(format!("the service and then the version: {version} VERSION"));
            return Err(Failure::new(problem, Exit::Usage));
        }
        Ok(version.parse().map_err(|error| bad_name(&error))?)
    }
}

/// Text that cannot be the name of anything.
fn bad_name(error: &InvalidName) -> Problem {
    Problem::new(BAD_NAME, error.to_string()).help("baton explain B0105 says what a name is made of")
}

/// A length of time on the command line.
///
/// # Errors
/// What is wrong with it, and what a right one looks like.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; it is a number and a unit, such as 30s, 5m or 1h"))
}

/// The one service that is meant: the one named, or the only one there is.
///
/// # Errors
/// When it does not exist, or there are several.
pub async fn one_service(connection: &mut Connection, named: Option<&str>) -> Result<(ServiceView, FleetView), Failure> {
    if let Some(name) = named {
        // Checked here too: a coordinator should not have to say what a name is.
        name.parse::<ServiceName>().map_err(|error| bad_name(&error))?;
    }
    let view = connection.view("").await?;
    let service = choose(&view, named)?.clone();
    Ok((service, view))
}

/// B0133: nothing is called so. B0751: something is, and nobody deployed it here.
pub(super) fn no_service(name: &str, view: &FleetView) -> Problem {
    if let Some(problem) = not_deployed_here(name, view) {
        return problem;
    }
    let names = view.services.iter().map(|service| service.name.as_str()).collect::<Vec<_>>();
    Problem::new(code::UNKNOWN_NAME, format!("there is no service {name}"))
        .saw("services", if names.is_empty() { "none".to_owned() } else { names.join(", ") })
        .help("baton status shows them")
}

/// B0751: hosts run a service of this name since another coordinator told them to.
pub(super) fn not_deployed_here(name: &str, view: &FleetView) -> Option<Problem> {
    let hosts = brought(view).remove(name)?;
    let what = format!("{name} runs on {}, and nobody deployed it here", hosts.join(", "));
    Some(
        Problem::new(NOT_DEPLOYED_HERE, what)
            .help(format!("baton deploy {name} takes it over as it runs, whatever becomes of it then")),
    )
}

fn choose<'a>(view: &'a FleetView, named: Option<&str>) -> Result<&'a ServiceView, Problem> {
    let names = || view.services.iter().map(|service| service.name.as_str()).collect::<Vec<_>>().join(", ");
    match (named, view.services.as_slice()) {
        (Some(name), []) if not_deployed_here(name, view).is_some() => Err(no_service(name, view)),
        (_, []) => {
            Err(Problem::new(code::UNKNOWN_NAME, "there is no service yet").help("baton deploy brings the first release"))
        }
        (None, [only]) => Ok(only),
        (None, _) => Err(Problem::new(code::UNKNOWN_NAME, "which service?")
            .saw("services", names())
            .help("name one behind the command")),
        (Some(name), services) => services.iter().find(|service| service.name == name).ok_or_else(|| no_service(name, view)),
    }
}

#[cfg(test)]
mod tests {
    use super::{TargetArgs, choose, duration};
    use crate::exit::Exit;
    use crate::render::example;
    use baton_core::manifest::codes::BAD_NAME;
    use baton_proto::v1::{FleetView, ServiceView};

    #[test]
    fn a_version_that_is_missing_or_cannot_be_one_is_said() {
        let shop = "shop".parse().unwrap();
        let version =
            |words: &[&str]| TargetArgs { words: words.iter().map(|&word| word.to_owned()).collect() }.version_of(&shop);
        assert_eq!(version(&["2.1.0"]).unwrap().as_str(), "2.1.0");
        assert_eq!(version(&["shop", "shop"]).unwrap().as_str(), "shop", "nobody forgot anything here");
        let forgotten = version(&["shop"]).unwrap_err();
        assert_eq!(forgotten.exit, Exit::Usage);
        assert!(forgotten.problem.what.contains("the version is missing"), "{forgotten:?}");
        let impossible = version(&["1 0"]).unwrap_err();
        assert_eq!((impossible.problem.code, impossible.exit), (BAD_NAME, Exit::Error));
    }

    #[test]
    fn a_duration_that_is_none_shows_what_one_looks_like() {
        assert!(duration("abc").unwrap_err().contains("such as 30s"));
    }

    #[test]
    fn without_a_name_the_only_service_is_meant_and_nothing_is_guessed() {
        let mut fleet = example::fleet();
        assert_eq!(choose(&fleet, None).unwrap().name, "shop");
        fleet.services.push(ServiceView { name: "blog".into(), ..example::service() });
        assert_eq!(choose(&fleet, Some("blog")).unwrap().name, "blog");
        let unsure = choose(&fleet, None).unwrap_err();
        assert_eq!(unsure.seen, [("services".to_owned(), "shop, blog".to_owned())]);
        assert!(choose(&fleet, Some("shoe")).is_err());
        assert!(choose(&FleetView::default(), Some("shop")).is_err());
        // What hosts brought from another coordinator runs, and is no service of this one.
        for others in [Vec::new(), vec![ServiceView { name: "blog".into(), ..example::service() }]] {
            fleet.services = others;
            let brought = choose(&fleet, Some("shop")).unwrap_err();
            assert_eq!(brought.code, baton_core::rollout::command::NOT_DEPLOYED_HERE);
            assert!(brought.what.contains("web2"), "{brought}");
        }
    }
}
