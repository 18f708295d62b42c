//! `baton init [SERVICE]`.

use crate::errors::{Failure, code};
use crate::exit::Exit;
use crate::output::Output;
use crate::render::page::Page;
use baton_core::name::ServiceName;
use baton_core::problem::Problem;
use clap::Args;
use serde_json::json;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// `baton init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The service; the folder's name where none is given
    pub service: Option<String>,
    /// Where to write
    #[arg(short, long, value_name = "FILE", default_value = "baton.toml")]
    pub file: PathBuf,
}

/// Writes a manifest to start from.
///
/// # Errors
/// When there is a file already, or none can be written.
pub fn run(args: &InitArgs, output: &Output) -> Result<Exit, Failure> {
    let service = match &args.service {
        Some(name) => name.parse().map_err(|error| {
            Problem::new(baton_core::manifest::codes::BAD_NAME, format!("{error}")).help("for example baton init shop")
        })?,
        None => folder_name(&args.file),
    };
    write_new(&args.file, &starter(&service))?;
    let file = args.file.display().to_string();
    output.answer(Page::new().text(format!("wrote {file} for the service {service}")));
    output.json(&json!({ "file": file, "service": service }));
    let named = if file == "baton.toml" { String::new() } else { format!(" -f {file}") };
    output.next(&format!("write your hosts and command into it, then baton config check{named}"));
    Ok(Exit::Done)
}

/// Fails on any file that is there, also one that appears just now.
fn write_new(file: &Path, text: &str) -> Result<(), Problem> {
    let written =
        OpenOptions::new().write(true).create_new(true).open(file).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Problem::new(code::FILE_EXISTS, format!("{} is there already and was not touched", file.display()))
                .help("-f FILE writes another one")
        }
        _ => Problem::new(code::MANIFEST_FILE, format!("{} cannot be written", file.display()))
            .saw("write", error.to_string()),
    })
}

/// The name of the manifest's folder, where it can be a service's.
fn folder_name(file: &Path) -> ServiceName {
    let absolute = std::path::absolute(file).ok();
    let folder = absolute.as_deref().and_then(Path::parent).and_then(Path::file_name).and_then(|name| name.to_str());
    let fallback = || ServiceName::new("app");
    match folder.map(ServiceName::new).and_then(Result::ok).map_or_else(fallback, Ok) {
        Ok(name) => name,
        Err(never) => unreachable!("{never}"),
    }
}

/// A manifest that is right as it stands, and says what else there is.
#[must_use]
pub fn starter(service: &ServiceName) -> String {
    include_str!("init/starter.toml").replace("SERVICE", service.as_str())
}

#[cfg(test)]
mod tests {
    use super::{InitArgs, run, starter};
    use crate::args::FormatArgs;
    use crate::errors::code;
    use crate::output::Output;
    use baton_core::name::ServiceName;

    #[test]
    fn the_starter_is_a_right_manifest_also_with_everything_uncommented() {
        let text = starter(&ServiceName::new("shop").unwrap());
        let manifest = baton_core::manifest::parse("baton.toml", &text).unwrap();
        assert_eq!(manifest.service.as_str(), "shop");
        assert!(manifest.warnings.is_empty(), "{:?}", manifest.warnings);
        // `#key = …` is a setting; `# Words` are words.
        let whole: String = text
            .lines()
            .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_owned() + "\n")
            .collect();
        assert_ne!(whole, text);
        let whole = baton_core::manifest::parse("baton.toml", &whole)
            .unwrap_or_else(|wrong| panic!("{}", wrong.iter().map(|diagnostic| diagnostic.render()).collect::<String>()));
        assert_eq!(whole.strategy, manifest.strategy, "what is commented out are the defaults");
        assert_eq!(whole.health, manifest.health, "what is commented out are the defaults");
    }

    #[test]
    fn a_file_that_is_there_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("baton.toml");
        let output = Output::new(&FormatArgs { json: true, ..FormatArgs::default() });
        std::fs::write(&file, "precious").unwrap();
        let failure = run(&InitArgs { service: Some("shop".into()), file: file.clone() }, &output).unwrap_err();
        assert_eq!(failure.problem.code, code::FILE_EXISTS);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    }
}
