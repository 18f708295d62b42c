//! `baton config check`, `baton config show [--origin]`, `baton config explain KEY` and `baton config schema`.

mod key;
mod schema;

pub use schema::schema;

use crate::errors::Failure;
use crate::exit::Exit;
use crate::manifest::{FileArgs, load};
use crate::output::Output;
use crate::render::page::{Line, Page, Tone};
use crate::render::table::Table;
use crate::render::units::counted;
use baton_core::manifest::{Origin, Setting};
use clap::{Args, Subcommand};
use serde_json::json;

/// `baton config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub what: Config,
}

/// What to do with a manifest.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Find everything that is wrong, without asking anybody
    Check {
        #[command(flatten)]
        file: FileArgs,
    },
    /// Show every setting with its value
    Show {
        #[command(flatten)]
        file: FileArgs,
        /// And where the value comes from
        #[arg(long)]
        origin: bool,
    },
    /// Say what a key of the manifest is for, what it may be, and what holds without it
    Explain {
        /// A key, such as run.stop.timeout, or a table, such as run
        #[arg(value_name = "KEY")]
        key: String,
    },
    /// Print the JSON Schema of a manifest, for editors
    Schema,
}

/// Checks or shows a manifest.
///
/// # Errors
/// When it cannot be read, or anything in it is wrong.
pub fn run(args: &ConfigArgs, output: &Output) -> Result<Exit, Failure> {
    match &args.what {
        Config::Check { file } => {
            let loaded = load(file, output)?;
            let manifest = &loaded.manifest;
            let hosts = counted(manifest.hosts.len() as u64, "host", "hosts");
            let path = loaded.path.display().to_string();
            output.answer(Page::new().text(format!("{path} is right: {} on {hosts}", manifest.service)));
            output.json(&json!({ "file": path, "service": manifest.service, "warnings": manifest.warnings }));
            output.next(&format!("baton plan{} {} VERSION", file.again(), manifest.service));
        }
        Config::Show { file, origin } => {
            let loaded = load(file, output)?;
            let settings = loaded.manifest.origins();
            let path = loaded.path.display().to_string();
            output.answer(&show(settings, if *origin { Some(&path) } else { None }));
            output.json(&json!({ "file": path, "settings": settings }));
            if !*origin {
                output.next("baton config show --origin");
            }
        }
        Config::Explain { key } => {
            let keys = key::found(key)?;
            output.answer(&key::page(&keys));
            output.json(&json!({ "keys": keys.iter().map(|key| key::document(key)).collect::<Vec<_>>() }));
        }
        // A document of its own, whatever was asked for.
        Config::Schema => output.answers().write(&format!("{:#}\n", schema())),
    }
    Ok(Exit::Done)
}

fn show(settings: &[Setting], origin_in: Option<&str>) -> Page {
    let mut table = Table::new(if origin_in.is_some() { &["KEY", "VALUE", "FROM"] } else { &["KEY", "VALUE"] });
    for setting in settings {
        let mut row = vec![Line::of(setting.key), Line::of(&setting.value)];
        row.extend(origin_in.map(|path| match setting.origin {
            Origin::Default => Line::default().span(Tone::Quiet, "default"),
            Origin::Manifest { line } => Line::of(format!("{path}:{line}")),
        }));
        table.row(row);
    }
    table.page()
}

#[cfg(test)]
mod tests {
    use super::show;
    use crate::render::page::Look;
    use crate::verbs::init::starter;
    use baton_core::name::ServiceName;

    #[test]
    fn every_setting_says_where_it_comes_from() {
        let text = starter(&ServiceName::new("shop").unwrap());
        let manifest = baton_core::manifest::parse("baton.toml", &text).unwrap();
        let shown = show(manifest.origins(), Some("baton.toml")).to_text(Look::default());
        let line = |key: &str| {
            shown.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{key}: {shown}")).to_owned()
        };
        let nth = text.lines().position(|line| line.starts_with("service")).unwrap() + 1;
        assert!(line("service ").ends_with(&format!("baton.toml:{nth}")), "{shown}");
        assert!(line("health.interval ").ends_with("default"), "{shown}");
        assert!(!show(manifest.origins(), None).to_text(Look::default()).contains("default"));
    }
}
