//! `baton releases [SERVICE]`.

use super::target::no_service;
use crate::Context;
use crate::connection::Connection;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::render::releases::releases;
use baton_core::problem::Problem;
use baton_proto::problem::code as usage;
use baton_proto::v1::ServiceRequest;
use clap::Args;

/// `baton releases`.
#[derive(Debug, Args)]
#[command(override_usage = "baton releases [OPTIONS] [SERVICE]")]
pub struct ReleasesArgs {
    /// Of this service only
    #[arg(value_name = "SERVICE", num_args = 0..=2)]
    words: Vec<String>,
}

impl ReleasesArgs {
    /// The service that is named; the word `list`, as with other nouns, may stand before it.
    fn service(self) -> Result<Option<String>, Failure> {
        let mut words = self.words.into_iter();
        match (words.next(), words.next()) {
            (Some(list), service) if list == "list" => Ok(service),
            (service, None) => Ok(service),
            (_, Some(more)) => {
                let problem = Problem::new(usage::USAGE, format!("`{more}` is one word too many"));
                Err(problem.help("baton releases SERVICE lists those of one service").into())
            }
        }
    }
}

/// Lists releases.
///
/// # Errors
/// When the coordinator cannot be asked.
pub async fn run(args: ReleasesArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let service = args.service()?;
    let mut connection = Connection::open(context.connect)?;
    let view = connection.view("").await?;
    // The call is about one service: all of them are asked for one by one.
    let names = match service {
        Some(name) if view.services.iter().all(|service| service.name != name) => {
            return Err(no_service(&name, &view).into());
        }
        Some(name) => vec![name],
        None => view.services.into_iter().map(|service| service.name).collect(),
    };
    let mut list = baton_proto::v1::ReleaseList::default();
    for service in names {
        let request = ServiceRequest { service, why: String::new() };
        list.releases.extend(connection.control.list_releases(request).await?.into_inner().releases);
    }
    context.output.answer(&releases(&list));
    context.output.json(&list);
    context.output.next("baton deploy SERVICE VERSION");
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::ReleasesArgs;

    #[test]
    fn the_word_list_may_stand_before_the_service() {
        let service = |words: &[&str]| ReleasesArgs { words: words.iter().map(|&word| word.into()).collect() }.service();
        for (words, named) in
            [(&[][..], None), (&["list"], None), (&["shop"], Some("shop")), (&["list", "shop"], Some("shop"))]
        {
            assert_eq!(service(words).unwrap().as_deref(), named, "{words:?}");
        }
        assert!(service(&["shop", "blog"]).is_err());
    }
}
