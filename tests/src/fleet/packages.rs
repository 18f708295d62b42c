//! Baton's packages, in both formats, and what is done with them on a host.

use super::host::Host;
use anyhow::{Context as _, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// Where packages lie on a host before they are installed.
const LAID_OUT: &str = "/var/tmp/baton";

/// Each as packaging/build names it.
const NAMES: [&str; 3] = ["baton", "baton-agent", "baton-coordinator"];

/// Debian's rpm says what it is not for, and knows no package of the system.
const RPM: [&str; 3] = ["rpm", "--force-debian", "--nodeps"];

/// A format of packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Deb,
    Rpm,
}

/// One file of each.
#[derive(Debug, Clone)]
pub struct Packages {
    format: Format,
    files: Vec<PathBuf>,
}

impl Packages {
    /// Finds one file of each.
    ///
    /// # Errors
    /// When one is missing; the help says how they are made.
    pub fn find(folder: &Path, format: Format) -> anyhow::Result<Self> {
        let found = NAMES.map(|name| {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            let file = entries.map(|entry| entry.path()).find(|path| format.is_of(name, path));
            file.with_context(|| {
                format!("no .{} of {name} in {}: run packaging/build first", format.ending(), folder.display())
            })
        });
        Ok(Self { format, files: found.into_iter().collect::<anyhow::Result<_>>()? })
    }

    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Copies them to a host.
    ///
    /// # Errors
    /// When there is no room.
    pub fn lay_out(&self, host: &Host) -> anyhow::Result<()> {
        let folder = host.root().join(LAID_OUT.trim_start_matches('/'));
        fs::create_dir_all(&folder)?;
        for file in &self.files {
            fs::copy(file, folder.join(file.file_name().unwrap_or_default()))?;
        }
        Ok(())
    }

    /// Installs some of them as a user would, whichever version of them is installed.
    ///
    /// # Errors
    /// When the package manager refuses.
    pub fn install(&self, host: &Host, names: &[&str]) -> anyhow::Result<()> {
        let wanted = self.files.iter().filter(|file| names.iter().any(|name| self.format.is_of(name, file)));
        let paths = wanted.filter_map(|file| Some(format!("{LAID_OUT}/{}", file.file_name()?.to_string_lossy())));
        let paths = paths.collect::<Vec<_>>();
        self.ask(host, &["dpkg", "--install"], &["--upgrade", "--replacepkgs", "--oldpackage"], &paths)?;
        for name in names {
            let (installed, meant) = (self.installed(host, name)?, self.version(name)?);
            ensure!(installed == meant, "{name} {installed} is installed on {}, not {meant}", host.name);
        }
        Ok(())
    }

    /// Which version of a package is here.
    ///
    /// # Errors
    /// When its file's name has none.
    pub fn version(&self, name: &str) -> anyhow::Result<String> {
        let file =
            self.files.iter().find(|file| self.format.is_of(name, file)).with_context(|| format!("no package {name}"))?;
        let file = file.file_name().unwrap_or_default().to_string_lossy();
        let version = file[name.len() + 1..].split(['_', '-']).next();
        Ok(version.with_context(|| format!("{file} names no version"))?.to_owned())
    }

    fn installed(&self, host: &Host, name: &str) -> anyhow::Result<String> {
        let asked: &[&str] = match self.format {
            Format::Deb => &["dpkg-query", "--show", "--showformat", "${Version}", name],
            Format::Rpm => &["rpm", "--query", "--queryformat", "%{VERSION}", name],
        };
        Ok(host.run(asked)?.trim().to_owned())
    }

    /// Takes some of them away; what they were told and what they keep stays.
    ///
    /// # Errors
    /// When the package manager refuses.
    pub fn remove(&self, host: &Host, names: &[&str]) -> anyhow::Result<()> {
        self.ask(host, &["dpkg", "--remove"], &["--erase"], names)
    }

    /// Takes some of them away with what they were told and what they keep, as far as the format knows of such a thing.
    ///
    /// # Errors
    /// When the package manager refuses.
    pub fn purge(&self, host: &Host, names: &[&str]) -> anyhow::Result<()> {
        self.ask(host, &["dpkg", "--purge"], &["--erase"], names)
    }

    fn ask(&self, host: &Host, dpkg: &[&str], rpm: &[&str], what: &[impl AsRef<str>]) -> anyhow::Result<()> {
        let command = match self.format {
            Format::Deb => dpkg.to_vec(),
            Format::Rpm => [&RPM, rpm].concat(),
        };
        let words = command.into_iter().chain(what.iter().map(AsRef::as_ref)).collect::<Vec<_>>();
        host.run(&words).map(drop)
    }
}

impl Format {
    #[must_use]
    pub const fn ending(self) -> &'static str {
        match self {
            Self::Deb => "deb",
            Self::Rpm => "rpm",
        }
    }

    /// Whether a file is a package of this name, and not of one that only begins like it.
    fn is_of(self, name: &str, file: &Path) -> bool {
        let of_format = file.extension().is_some_and(|ending| ending == self.ending());
        let file = file.file_name().unwrap_or_default().to_string_lossy();
        let version = file.strip_prefix(name).and_then(|rest| rest.strip_prefix(['_', '-']));
        of_format && version.is_some_and(|version| version.starts_with(|first: char| first.is_ascii_digit()))
    }
}
