//! Secrets: found on this host when an instance starts, given to it as files, and remembered nowhere.
//!
//! A value is in no argument, no environment, no journal, no log line and no message; what is said of a secret is its name and
//! where it should have been.

use crate::allow::Files;
use baton_core::problem::{Code, Problem};
use baton_core::secret::Secret;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The largest value: as much as systemd takes.
const LARGEST: u64 = 1024 * 1024;
/// How long a command may take to print one.
const PATIENCE: Duration = Duration::from_secs(10);

/// What of this host no release is given, whatever `[allow]` says: keys, stores, ledgers.
const OWN: [&str; 5] =
    ["/etc/baton", "/var/lib/baton-agent", "/var/lib/baton-coordinator", "/run/baton-agent", "/run/baton"];
/// The same in any home: an operator's credentials.
const OF_OPERATORS: [&str; 2] = [".config", "baton"];

/// The longest of what a program says of itself.
const LONGEST_REASON: usize = 200;
/// Has what systemd encrypted.
const SYSTEMD_CREDS: &str = "/usr/bin/systemd-creds";

/// Where an instance looks for them: systemd's name for it, under every runtime.
pub const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// A value that shows itself to nobody by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(Vec<u8>);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Finds every secret of a release, in the files that are its service's.
///
/// # Errors
/// B0212 names the secret and where it should be, and never what is there.
pub async fn find(secrets: &BTreeMap<String, Secret>, files: &Files) -> Result<BTreeMap<String, Hidden>, Problem> {
    let mut found = BTreeMap::new();
    for (name, secret) in secrets {
        let value = match secret {
            Secret::File { path } => read(Path::new(path), files).map_err(|error| error.to_string()),
            Secret::EnvFile { path, variable } => {
                let text = read(Path::new(path), files).map_err(|error| error.to_string());
                text.and_then(|text| variable_of(&text, variable.as_deref().unwrap_or(name)))
            }
            Secret::SystemdCreds { path, name } => decrypted(path, name.as_deref(), files).await,
            Secret::Exec { command } => printed(command).await,
        };
        let value = value.map_err(|why| {
            Problem::new(Code(212), format!("the secret {name} cannot be had on this host"))
                .saw("found at", secret.to_string())
                .saw("reason", why)
                .help(help(secret))
        })?;
        found.insert(name.clone(), Hidden(value));
    }
    Ok(found)
}

/// What mends it, by where the secret was looked for.
const fn help(secret: &Secret) -> &'static str {
    match secret {
        Secret::File { .. } => {
            "put a regular file there, or change run.secrets in baton.toml; [allow] secrets in the host's agent.toml says where one may be"
        }
        Secret::EnvFile { .. } => {
            "put a regular file with a line NAME=value there, or name another variable behind # in run.secrets; [allow] secrets in \
             the host's agent.toml says where one may be"
        }
        Secret::SystemdCreds { .. } => {
            "systemd-creds encrypt on this very host makes it; its name is that of the file, or stands behind # in run.secrets"
        }
        Secret::Exec { .. } => {
            "run the command as root on the host: it should print the secret within seconds and end with 0; [allow] commands in the \
             host's agent.toml says which may be run"
        }
    }
}

/// Whether a file is one of those that Baton is known by, or keeps what it knows in.
fn is_own(path: &Path) -> bool {
    let is_operators = |folders: &[Component<'_>]| folders.iter().map(|it| it.as_os_str()).eq(OF_OPERATORS);
    let components: Vec<_> = path.components().collect();
    OWN.iter().any(|folder| path.starts_with(folder)) || components.windows(2).any(is_operators)
}

fn read(path: &Path, files: &Files) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // A pipe would keep the agent waiting.
    let file = OpenOptions::new().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    // Where it really is, whatever links lead there.
    let real = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    if is_own(&real) {
        return Err(io::Error::other("it is Baton's own, which no release is given"));
    }
    if real != path && !files.have(&real) {
        let real = crate::text::line(&real.display().to_string(), LONGEST_REASON);
        return Err(io::Error::other(format!(
            "it is a link to {real}, which [allow] secrets of this host's agent.toml does not name"
        )));
    }
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if about.mode() & 0o004 != 0 {
        tracing::warn!(file = %path.display(), "every user of this host may read this secret: chmod 600");
    }
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other(format!("larger than {LARGEST} bytes")));
    }
    Ok(bytes)
}

/// A variable of a file such as systemd's `EnvironmentFile`: `NAME=value` lines, `#` comments, quotes around a value.
fn variable_of(text: &[u8], variable: &str) -> Result<Vec<u8>, String> {
    let text = std::str::from_utf8(text).map_err(|_| "not UTF-8".to_owned())?;
    // As systemd does: what comes later takes the place of what came before.
    let mut lines = text.lines().rev().filter(|line| !line.trim_start().starts_with('#'));
    let value = lines.find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim().trim_start_matches("export ").trim() == variable).then_some(value.trim())
    });
    let value = value.ok_or_else(|| format!("it has no variable {variable}"))?;
    let inner = ['"', '\''].iter().find_map(|mark| value.strip_prefix(*mark)?.strip_suffix(*mark));
    Ok(inner.unwrap_or(value).as_bytes().to_vec())
}

/// What systemd encrypted for this host. What `systemd-creds` says when it cannot is no part of a value, so it is told.
async fn decrypted(path: &str, name: Option<&str>, files: &Files) -> Result<Vec<u8>, String> {
    // What is handed over is what was looked at.
    let encrypted = read(Path::new(path), files).map_err(|error| error.to_string())?;
    let name = name.or_else(|| Path::new(path).file_name()?.to_str());
    let mut decrypt = Command::new(SYSTEMD_CREDS);
    decrypt.args(["decrypt", "--newline=no"]).args(name.map(|name| format!("--name={name}"))).args(["-", "-"]);
    let output =
        output_of(&mut decrypt, &encrypted, Stdio::piped()).await.map_err(|why| format!("{SYSTEMD_CREDS}: {why}"))?;
    if output.status.success() {
        return bounded(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().last().map_or_else(|| output.status.to_string(), |line| crate::text::line(line, LONGEST_REASON));
    Err(format!("systemd-creds: {said}"))
}

async fn printed(command: &[String]) -> Result<Vec<u8>, String> {
    let Some((program, arguments)) = command.split_first() else { return Err("no command".to_owned()) };
    let output = output_of(Command::new(program).args(arguments), &[], Stdio::null()).await?;
    if !output.status.success() {
        return Err(format!("it ended with {}; what it wrote is not shown", output.status));
    }
    let mut value = bounded(output.stdout)?;
    // A command ends its line; a secret does not.
    value.pop_if(|last| *last == b'\n');
    Ok(value)
}

async fn output_of(command: &mut Command, input: &[u8], stderr: Stdio) -> Result<Output, String> {
    command.env_clear().stdin(Stdio::piped()).stderr(stderr).stdout(Stdio::piped()).kill_on_drop(true);
    let run = async {
        let mut child = command.spawn()?;
        let stdin = child.stdin.take();
        let feed = async move {
            // One that does not want it all has its reasons, and says them.
            if let Some(mut stdin) = stdin {
                stdin.write_all(input).await.ok();
            }
        };
        tokio::join!(child.wait_with_output(), feed).0
    };
    let output = tokio::time::timeout(PATIENCE, run).await;
    output.map_err(|_| format!("nothing for {} s", PATIENCE.as_secs()))?.map_err(|error| error.to_string())
}

fn bounded(value: Vec<u8>) -> Result<Vec<u8>, String> {
    if value.len() as u64 > LARGEST { Err(format!("it printed more than {LARGEST} bytes")) } else { Ok(value) }
}

/// Lays values down as files of mode 0400 in a folder of mode 0500 that is made anew; both belong to `owner` where one is named.
///
/// # Errors
/// B0215: the folder cannot be made.
pub fn lay_down(folder: &Path, values: &BTreeMap<String, Hidden>, owner: Option<(u32, u32)>) -> Result<(), Problem> {
    write_all(folder, values, owner).map_err(|error| {
        Problem::new(Code(215), "an instance's secrets cannot be laid down for it")
            .saw("folder", folder.display().to_string())
            .saw("reason", crate::text::io_error(&error))
    })
}

fn write_all(folder: &Path, values: &BTreeMap<String, Hidden>, owner: Option<(u32, u32)>) -> io::Result<()> {
    take_away(folder)?;
    // Only whoever is allowed to look may walk through; what is below is each instance's own.
    if let Some(parent) = folder.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o711).create(parent)?;
    }
    fs::DirBuilder::new().mode(0o700).create(folder)?;
    for (name, value) in values {
        let path = folder.join(name);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(&path)?;
        file.write_all(&value.0)?;
        own(&path, owner)?;
    }
    own(folder, owner)
}

fn own(path: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    let Some((uid, gid)) = owner else { return Ok(()) };
    std::os::unix::fs::chown(path, Some(uid), Some(gid))
}

/// Takes the values of an instance away; none is as good.
///
/// # Errors
/// Those of the file system.
pub fn take_away(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// What an instance is told beside the folder: `DB_FILE` for a secret `DB`, unless the release says something else.
#[must_use]
pub fn variables(folder: &Path, names: impl Iterator<Item = String>) -> BTreeMap<String, String> {
    let file = |name: String| (format!("{name}_FILE"), folder.join(name).display().to_string());
    let mut variables: BTreeMap<String, String> = names.map(file).collect();
    if !variables.is_empty() {
        variables.insert(DIRECTORY.to_owned(), folder.display().to_string());
    }
    variables
}

/// The folder of one instance's values below another.
#[must_use]
pub fn folder(below: &Path, key: &baton_core::fleet::InstanceKey) -> PathBuf {
    below.join(format!("{}-{}", key.service, key.slot))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allow::Allow;
    use std::os::unix::fs::PermissionsExt;

    const SENTINEL: &str = "s3cr3t-of-the-test";

    async fn one(reference: &str) -> Result<Vec<u8>, Problem> {
        of(reference, &["*"]).await
    }

    async fn of(reference: &str, allowed: &[&str]) -> Result<Vec<u8>, Problem> {
        let secrets = BTreeMap::from([("DB".to_owned(), reference.parse().unwrap())]);
        let allow = Allow { secrets: allowed.iter().map(|&pattern| pattern.to_owned()).collect(), ..Allow::default() };
        find(&secrets, &allow.files_of(&"shop".parse().unwrap())).await.map(|mut found| found.remove("DB").unwrap().0)
    }

    #[tokio::test]
    async fn a_secret_comes_from_a_file_a_variable_or_a_command() {
        let folder = tempfile::tempdir().unwrap();
        let (file, env) = (folder.path().join("db"), folder.path().join("env"));
        fs::write(&file, format!("{SENTINEL}\n")).unwrap();
        fs::write(&env, format!("DB=before\n# DB=no\nOTHER=x\nexport DB=\"{SENTINEL}\"\nURL = 'a b'\n")).unwrap();
        let (file, env) = (file.display(), env.display());
        assert_eq!(one(&format!("file:{file}")).await.unwrap(), format!("{SENTINEL}\n").as_bytes());
        assert_eq!(one(&format!("env-file:{env}")).await.unwrap(), SENTINEL.as_bytes());
        assert_eq!(one(&format!("env-file:{env}#URL")).await.unwrap(), b"a b");
        assert_eq!(one("exec:/bin/echo from a command").await.unwrap(), b"from a command");
    }

    #[tokio::test]
    async fn a_secret_that_cannot_be_had_says_where_it_should_be_and_never_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let env = folder.path().join("env");
        fs::write(&env, format!("OTHER={SENTINEL}\n")).unwrap();
        let talks = folder.path().join("talks");
        fs::write(&talks, format!("#!/bin/sh\necho {SENTINEL}; echo {SENTINEL} >&2; exit 3\n")).unwrap();
        fs::set_permissions(&talks, fs::Permissions::from_mode(0o700)).unwrap();
        for (reference, why) in [
            ("file:/none/of/this".to_owned(), "No such file"),
            (format!("file:{}", folder.path().display()), "not a regular file"),
            (format!("env-file:{}", env.display()), "no variable DB"),
            (format!("exec:{}", talks.display()), "exit status: 3"),
            ("exec:/none/of/this".to_owned(), "No such file"),
            ("systemd-creds:/none/of/this".to_owned(), "No such file"),
        ] {
            let problem = one(&reference).await.unwrap_err();
            assert_eq!(problem.code, Code(212));
            assert!(problem.seen[1].1.contains(why), "{problem:?}");
            assert!(!format!("{problem:?}").contains(SENTINEL), "{problem:?}");
        }
        assert!(!format!("{:?}", Hidden(SENTINEL.into())).contains(SENTINEL));
    }

    #[tokio::test]
    async fn what_is_baton_s_own_is_no_secret_of_a_release_whatever_leads_there() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("ana/.config/baton");
        fs::create_dir_all(&kept).unwrap();
        fs::write(kept.join("key.pem"), SENTINEL).unwrap();
        let link = folder.path().join("db");
        std::os::unix::fs::symlink(kept.join("key.pem"), &link).unwrap();
        for reference in [format!("file:{}", link.display()), format!("env-file:{}", kept.join("key.pem").display())] {
            let refused = format!("{:?}", one(&reference).await.unwrap_err());
            assert!(refused.contains("no release is given") && !refused.contains(SENTINEL), "{refused}");
        }
        for own in ["/etc/baton/agent.toml", "/var/lib/baton-agent/identity/key.pem", "/root/.config/baton/key.pem"] {
            assert!(is_own(Path::new(own)), "{own}");
        }
        for other in ["/etc/shop/db", "/etc/baton-shop/db", "/home/baton/.config/shop"] {
            assert!(!is_own(Path::new(other)), "{other}");
        }
    }

    #[tokio::test]
    async fn a_link_leads_only_to_what_the_host_allows() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        for name in ["shop", "till"] {
            fs::create_dir(folder.join(name)).unwrap();
            fs::write(folder.join(name).join("db"), SENTINEL).unwrap();
        }
        let link = folder.join("shop/current");
        let (reference, allowed) = (format!("file:{}", link.display()), format!("{}/{{service}}/*", folder.display()));
        std::os::unix::fs::symlink("db", &link).unwrap();
        assert_eq!(of(&reference, &[&allowed]).await.unwrap(), SENTINEL.as_bytes());
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("../till/db", &link).unwrap();
        let refused = format!("{:?}", of(&reference, &[&allowed]).await.unwrap_err());
        assert!(refused.contains("till/db, which [allow] secrets") && !refused.contains(SENTINEL), "{refused}");
        // Nobody writes into it, and nobody waits for that.
        fs::remove_file(&link).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&link).status().unwrap().success());
        assert!(format!("{:?}", of(&reference, &[&allowed]).await.unwrap_err()).contains("not a regular file"));
    }

    #[test]
    fn values_are_for_their_owner_only_and_are_laid_down_anew() {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join("credentials/shop-0");
        let values = |name: &str| BTreeMap::from([(name.to_owned(), Hidden(SENTINEL.into()))]);
        lay_down(&folder, &values("OLD"), None).unwrap();
        lay_down(&folder, &values("DB"), None).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("DB"))), (0o700, 0o400));
        assert!(!folder.join("OLD").exists());
        let told = variables(&folder, ["DB".to_owned()].into_iter());
        assert_eq!(told["DB_FILE"], folder.join("DB").display().to_string());
        assert_eq!(told[DIRECTORY], folder.display().to_string());
        take_away(&folder).unwrap();
        take_away(&folder).unwrap();
        assert!(!folder.exists() && variables(&folder, std::iter::empty()).is_empty());
    }
}
