//! Debian's own tools, asked about the agent's package.

use baton_core::name::{Architecture, PackageVersion};
use baton_core::problem::{Code, Problem};
use baton_core::upgrade::Package;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The one package this room is about.
pub(super) const PACKAGE: &str = "baton-agent";

/// The fields of a package that come from its installation, and stand in no package.
const OF_THE_INSTALLATION: [&str; 3] = ["Status:", "Conffiles:", "Config-Version:"];

/// Where the package keeps each file of its configuration a second time, as it came: people change the one below /etc.
const AS_IT_CAME: &str = "/usr/share/baton-agent";

/// Looks at what is installed, at most: it changes a few times in a second while dpkg works, and not in a few milliseconds.
const LOOKS_MAX: u32 = 10;

/// The packages of one root: `/`, and in tests another.
#[derive(Debug, Clone, Default)]
pub(super) struct Dpkg {
    root: Option<PathBuf>,
}

/// What is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Installed {
    pub(super) version: PackageVersion,
    pub(super) architecture: Architecture,
    /// Dpkg's word: `installed`, or how far it came.
    pub(super) status: String,
}

/// A file of the configuration: dpkg keeps what people made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Conffile {
    path: String,
    /// Of the text that came with the package.
    md5: String,
    /// It is there since an earlier version, and no part of this one.
    obsolete: bool,
}

impl Conffile {
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (path, md5) = (words.next()?.to_owned(), words.next()?.to_owned());
        Some(Self { path, md5, obsolete: words.any(|word| word == "obsolete") })
    }
}

impl Dpkg {
    #[cfg(test)]
    pub(super) fn below(root: &Path) -> Self {
        Self { root: Some(root.to_owned()) }
    }

    /// The agent's package; none where dpkg does not know it.
    pub(super) fn installed(&self) -> Option<Installed> {
        agreed(|| self.told())
    }

    fn told(&self) -> Option<Installed> {
        let format = "${Version}\t${Architecture}\t${db:Status-Status}";
        let told = said(self.query().args(["--show", "--showformat", format, PACKAGE])).ok()?;
        let mut fields = told.split('\t');
        let installed = Installed {
            version: fields.next()?.parse().ok()?,
            architecture: fields.next()?.parse().ok()?,
            status: fields.next()?.trim().to_owned(),
        };
        (!matches!(installed.status.as_str(), "not-installed" | "config-files")).then_some(installed)
    }

    /// Installs a package over the one that is there; a configuration that people changed stays theirs.
    ///
    /// # Errors
    /// What dpkg wrote.
    pub(super) fn install(&self, file: &Path) -> Result<(), String> {
        let mut dpkg = self.command("dpkg", "--root");
        dpkg.args(["--force-confold", "--install"]).arg(file).env("DEBIAN_FRONTEND", "noninteractive");
        said(&mut dpkg).map(drop)
    }

    /// Builds the package that is installed out of what is installed.
    ///
    /// # Errors
    /// B0556: with what could not be read, copied or built.
    pub(super) fn repack(&self, into: &Path) -> Result<(), Problem> {
        let refuse = |seen: String| {
            Problem::new(Code(556), "the way back cannot be prepared: the installed package cannot be packed again")
                .saw("seen", seen)
                .help("apt install --reinstall ./baton-agent_*.deb on this host, then baton agents resume")
        };
        let folder = into.parent().unwrap_or(into);
        let tree = tempfile::tempdir_in(folder).map_err(|error| refuse(error.to_string()))?;
        fs::set_permissions(tree.path(), Permissions::from_mode(0o755)).map_err(|error| refuse(error.to_string()))?;
        self.lay_out(tree.path()).map_err(refuse)?;
        let mut build = Command::new("dpkg-deb");
        build.args(["--root-owner-group", "-Zgzip", "-z1", "--build"]).arg(tree.path()).arg(into);
        said(&mut build).map(drop).map_err(refuse)
    }

    /// Lays the installed files out as `dpkg-deb --build` wants them.
    fn lay_out(&self, tree: &Path) -> Result<(), String> {
        let list = said(self.query().args(["--listfiles", PACKAGE]))?;
        let configuration = self.configuration()?;
        let is_configuration = |path: &str| configuration.iter().any(|file| file.path == path);
        for path in list.lines().filter(|line| line.starts_with('/') && *line != "/." && !is_configuration(line)) {
            match copy(&self.path(path), &tree.join(path.trim_start_matches('/'))) {
                // Documentation may have been left out on purpose.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                ended => ended.map_err(|error| format!("{path}: {error}"))?,
            }
        }
        let control = tree.join("DEBIAN");
        fs::create_dir(&control).map_err(|error| error.to_string())?;
        let mut known = String::new();
        for file in configuration.iter().filter(|file| !file.obsolete) {
            // What cannot be had as it came is left out, and dpkg leaves it alone.
            let Some(original) = self.original(file) else { continue };
            let to = tree.join(file.path.trim_start_matches('/'));
            fs::create_dir_all(to.parent().unwrap_or(tree)).map_err(|error| error.to_string())?;
            copy(&original, &to).map_err(|error| format!("{}: {error}", original.display()))?;
            known.push_str(&file.path);
            known.push('\n');
        }
        if !known.is_empty() {
            fs::write(control.join("conffiles"), known).map_err(|error| error.to_string())?;
        }
        // Neither the list of files nor that of the configuration is among these.
        for name in said(self.query().args(["--control-list", PACKAGE]))?.lines() {
            let path = said(self.query().args(["--control-path", PACKAGE, name]))?;
            copy(Path::new(path.trim()), &control.join(name)).map_err(|error| format!("{name}: {error}"))?;
        }
        let status = said(self.query().args(["--status", PACKAGE]))?;
        fs::write(control.join("control"), of_the_package(&status)).map_err(|error| error.to_string())
    }

    /// The files of its configuration, as dpkg remembers them.
    fn configuration(&self) -> Result<Vec<Conffile>, String> {
        let told = said(self.query().args(["--show", "--showformat", "${Conffiles}\n", PACKAGE]))?;
        Ok(told.lines().filter_map(Conffile::read).collect())
    }

    /// A file with the text that came with the package: had a changed one the name of what came, the next upgrade would replace it.
    fn original(&self, file: &Conffile) -> Option<PathBuf> {
        let name = Path::new(&file.path).file_name()?.to_str()?;
        let candidates = [self.path(&format!("{AS_IT_CAME}/{name}")), self.path(&file.path)];
        candidates.into_iter().find(|path| {
            said(Command::new("md5sum").arg("--").arg(path)).is_ok_and(|sum| sum.split(' ').next() == Some(&file.md5))
        })
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.as_ref().map_or_else(|| PathBuf::from(path), |root| root.join(path.trim_start_matches('/')))
    }

    pub(super) fn query(&self) -> Command {
        self.command("dpkg-query", "--root")
    }

    pub(super) fn command(&self, program: &str, root_option: &str) -> Command {
        let mut command = Command::new(program);
        if let Some(root) = &self.root {
            command.arg(format!("{root_option}={}", root.display()));
            if program == "dpkg" {
                command.args(["--force-not-root", "--force-bad-path"]);
            }
        }
        command
    }
}

/// Makes sure that a file is the very package that was told.
///
/// # Errors
/// B0552: it is no package, or another one.
pub(super) fn check(file: &Path, told: &Package) -> Result<(), Problem> {
    let fields = said(Command::new("dpkg-deb").arg("--field").arg(file).args(["Package", "Version", "Architecture"]));
    let refuse = |seen: String| {
        let expected = format!("{PACKAGE} {} for {}", told.version, told.architecture);
        Problem::new(Code(552), "what the coordinator gave is not the package that it named")
            .saw("named", expected)
            .saw("in the file", seen)
            .help("baton agents abort, then baton agents upgrade with the right package")
    };
    let fields = fields.map_err(refuse)?;
    let field = |name: &str| fields.lines().find_map(|line| line.strip_prefix(name)).map_or("", str::trim);
    let found = [field("Package:"), field("Version:"), field("Architecture:")];
    if found == [PACKAGE, told.version.as_str(), told.architecture.as_str()] {
        return Ok(());
    }
    Err(refuse(format!("{} {} for {}", found[0], found[1], found[2])))
}

/// The version that a package says it has.
pub(super) fn version_of(file: &Path) -> Option<PackageVersion> {
    said(Command::new("dpkg-deb").arg("--field").arg(file).arg("Version")).ok()?.trim().parse().ok()
}

/// What is said twice in a row. dpkg, when it ends, gathers what it noted while it worked into its database: who reads at that
/// moment may see neither the notes nor what came of them, but the state of before. An agent that is installed starts just then.
fn agreed<T: PartialEq>(mut look: impl FnMut() -> T) -> T {
    let mut said = look();
    for _ in 1..LOOKS_MAX {
        let again = look();
        if again == said {
            break;
        }
        said = again;
    }
    said
}

/// The control file of a package, from what dpkg says of its installation.
fn of_the_package(status: &str) -> String {
    let mut kept = String::new();
    let mut skips = false;
    for line in status.lines().filter(|line| !line.is_empty()) {
        if !line.starts_with(' ') {
            skips = OF_THE_INSTALLATION.iter().any(|field| line.starts_with(field));
        }
        if !skips {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let kind = fs::symlink_metadata(from)?;
    if kind.is_dir() {
        fs::create_dir_all(to)?;
        return fs::set_permissions(to, Permissions::from_mode(0o755));
    }
    if kind.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    fs::copy(from, to).map(drop)
}

/// What a program wrote, when it ended well; what it complained about, when not.
pub(super) fn said(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let ended = command.stdin(Stdio::null()).env("LC_ALL", "C.UTF-8").output();
    let Output { status, stdout, stderr } = ended.map_err(|error| format!("{name}: {error}"))?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&stderr);
    let lines: Vec<&str> = complaint.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    Err(match lines.is_empty() {
        true => format!("{name}: {status}"),
        false => lines.join("; "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_at_the_wrong_moment_is_not_believed() {
        let mut looks =
            ["1.0 half-configured", "0.9 installed", "1.0 installed", "1.0 installed", "never asked for"].into_iter();
        assert_eq!(agreed(|| looks.next().unwrap()), "1.0 installed");
        let mut changing = 0..;
        assert_eq!(agreed(|| changing.next().unwrap()), i32::try_from(LOOKS_MAX).unwrap() - 1, "nor is it asked for ever");
    }
}
