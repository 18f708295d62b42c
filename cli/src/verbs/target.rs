//! What a verb is about: a service, a version, how long to wait.

use crate::connection::Connection;
use crate::errors::{Failure, code};
use baton_core::name::{ServiceName, Version};
use baton_core::problem::Problem;
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
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
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

    /// The version, checked.
    ///
    /// # Errors
    /// When no release can be called that.
    pub fn checked_version(&self) -> Result<Version, Problem> {
        self.version()
            .parse()
            .map_err(|error: baton_core::name::InvalidName| Problem::new(code::UNKNOWN_NAME, error.to_string()))
    }
}

/// The one service that is meant: the one named, or the only one there is.
///
/// # Errors
/// When it does not exist, or there are several.
pub async fn one_service(connection: &mut Connection, named: Option<&str>) -> Result<(ServiceView, FleetView), Failure> {
    if let Some(name) = named {
        // Checked here too: a coordinator should not have to say what a name is.
        name.parse::<ServiceName>().map_err(|error| Problem::new(code::UNKNOWN_NAME, error.to_string()))?;
    }
    let view = connection.view("").await?;
    let service = choose(&view, named)?.clone();
    Ok((service, view))
}

fn choose<'a>(view: &'a FleetView, named: Option<&str>) -> Result<&'a ServiceView, Problem> {
    let names = || view.services.iter().map(|service| service.name.as_str()).collect::<Vec<_>>().join(", ");
    match (named, view.services.as_slice()) {
        (_, []) => {
            Err(Problem::new(code::UNKNOWN_NAME, "there is no service yet").help("baton deploy brings the first release"))
        }
        (None, [only]) => Ok(only),
        (None, _) => Err(Problem::new(code::UNKNOWN_NAME, "which service?").saw("services", names())),
        (Some(name), services) => services
            .iter()
            .find(|service| service.name == name)
            .ok_or_else(|| Problem::new(code::UNKNOWN_NAME, format!("there is no service {name}")).saw("services", names())),
    }
}

#[cfg(test)]
mod tests {
    use super::choose;
    use crate::render::example;
    use baton_proto::v1::{FleetView, ServiceView};

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
    }
}
