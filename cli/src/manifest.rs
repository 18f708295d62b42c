//! The manifest on disk: read, checked, and all that is wrong with it at once.

use crate::errors::{Failure, code, diagnostics_page};
use crate::output::Output;
use baton_core::manifest::{Manifest, at_its_line, parse};
use baton_core::problem::Problem;
use clap::Args;
use std::path::{Path, PathBuf};

/// Which manifest is meant.
#[derive(Debug, Clone, Args)]
pub struct FileArgs {
    /// The manifest
    #[arg(short, long, value_name = "FILE", default_value = "baton.toml")]
    pub file: PathBuf,
}

impl FileArgs {
    /// The words that name it once more in another command: none where it is the one that is read anyway.
    #[must_use]
    pub fn again(&self) -> String {
        let file = self.file.display().to_string();
        match file.as_str() {
            "baton.toml" => String::new(),
            plain if plain.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+".contains(c)) => format!(" -f {plain}"),
            other => format!(" -f '{}'", other.replace('\'', "'\\''")),
        }
    }
}

/// A manifest with its text: the coordinator reads it for itself.
#[derive(Debug)]
pub struct Loaded {
    pub manifest: Manifest,
    pub text: String,
    pub path: PathBuf,
}

/// Reads and checks the manifest; warnings go to stderr.
///
/// # Errors
/// When the file cannot be read, or anything in it is wrong.
pub fn load(args: &FileArgs, output: &Output) -> Result<Loaded, Failure> {
    let path = &args.file;
    let text = std::fs::read(path).map_err(|error| unreadable(path, &error))?;
    let text = String::from_utf8(text).map_err(|error| no_text(path, &error))?;
    let manifest = parse(&path.display().to_string(), &text).map_err(Failure::manifest)?;
    if !manifest.warnings.is_empty() {
        output.note(&diagnostics_page(&manifest.warnings));
    }
    Ok(Loaded { manifest, text, path: path.clone() })
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problem {
    let problem = |what: String| Problem::new(code::MANIFEST_FILE, what).saw("read", error.to_string());
    match error.kind() {
        std::io::ErrorKind::NotFound => problem(format!("there is no manifest at {}", path.display()))
            .help("baton init writes one; -f FILE names another"),
        _ => problem(format!("the manifest {} cannot be read", path.display())).help("-f FILE names another"),
    }
}

fn no_text(path: &Path, error: &std::string::FromUtf8Error) -> Problem {
    let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    Problem::new(code::MANIFEST_FILE, format!("the manifest {} is no UTF-8 text", path.display()))
        .saw("place", format!("line {line}, byte {} of the file", before.len() + 1))
        .help("save it as UTF-8, without which nobody can say what it means")
}

impl Loaded {
    /// The manifest, when it is of the service that was asked for.
    ///
    /// # Errors
    /// When it is of another one.
    pub fn of(self, service: Option<&str>) -> Result<Self, Problem> {
        match service {
            Some(asked) if asked != self.manifest.service.as_str() => Err(Problem::new(
                code::OTHER_SERVICE,
                format!("{} is the manifest of {}, not of {asked}", self.path.display(), self.manifest.service),
            )
            .help(format!("-f FILE names the manifest of {asked}"))),
            _ => Ok(self),
        }
    }

    /// Everything the coordinator has against it, at the lines it is about; None: nothing.
    #[must_use]
    pub fn conflicts(&self, problems: Vec<Problem>) -> Option<Failure> {
        let path = self.path.display().to_string();
        Failure::conflicts(problems, |problem| at_its_line(&path, &self.text, problem))
    }

    /// Where the archive of a version is: beside the manifest, unless the path says otherwise.
    #[must_use]
    pub fn artifact(&self, version: &baton_core::name::Version) -> PathBuf {
        let beside = self.path.parent().unwrap_or(Path::new(""));
        beside.join(self.manifest.artifact_of(version))
    }
}

#[cfg(test)]
mod tests {
    use super::{FileArgs, load};
    use crate::args::FormatArgs;
    use crate::errors::code;
    use crate::exit::Exit;
    use crate::output::Output;
    use crate::verbs::init::starter;
    use baton_core::name::ServiceName;

    #[test]
    fn the_next_command_names_the_file_where_it_is_another_one() {
        let again = |file: &str| FileArgs { file: file.into() }.again();
        assert_eq!([again("baton.toml"), again("deploy/shop.toml")], ["", " -f deploy/shop.toml"]);
        assert_eq!(again("it's mine.toml"), " -f 'it'\\''s mine.toml'");
    }

    fn written(text: &str) -> (tempfile::TempDir, FileArgs) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("baton.toml");
        std::fs::write(&file, text).unwrap();
        (folder, FileArgs { file })
    }

    #[test]
    fn a_missing_manifest_and_a_wrong_one_end_with_1() {
        let output = Output::new(&FormatArgs::default());
        let (folder, args) = written("service = 1\n");
        let wrong = load(&args, &output).unwrap_err();
        assert_eq!(wrong.exit, Exit::Error);
        assert!(wrong.diagnostics.len() > 1, "everything wrong is said at once");
        let missing = load(&FileArgs { file: folder.path().join("none.toml") }, &output).unwrap_err();
        assert_eq!((missing.problem.code, missing.exit), (code::MANIFEST_FILE, Exit::Error));
        assert!(missing.problem.what.starts_with("there is no manifest at"), "{missing:?}");
    }

    #[test]
    fn a_manifest_that_is_no_text_is_there_all_the_same() {
        let (_folder, args) = written("");
        std::fs::write(&args.file, b"service = \"shop\"\nhosts = [\"\xff\"]\n").unwrap();
        let wrong = load(&args, &Output::new(&FormatArgs::default())).unwrap_err().problem;
        assert!(wrong.what.ends_with("is no UTF-8 text"), "{wrong:?}");
        assert_eq!(wrong.seen, [("place".to_owned(), "line 2, byte 28 of the file".to_owned())]);
    }

    #[test]
    fn the_artifact_is_looked_for_beside_the_manifest_and_other_services_are_refused() {
        let output = Output::new(&FormatArgs::default());
        let (folder, args) = written(&starter(&ServiceName::new("shop").unwrap()));
        let loaded = load(&args, &output).unwrap();
        let expected = folder.path().join("shop-2.1.0.tar.zst");
        assert_eq!(loaded.artifact(&"2.1.0".parse().unwrap()), expected);
        assert_eq!(loaded.of(Some("blog")).unwrap_err().code, code::OTHER_SERVICE);
    }
}
