//! What is started: the program, its environment, its user. The same for every runtime and for exec probes.

use super::handing;
use crate::text;
use baton_core::problem::{Code, Problem};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where a program without a slash is looked up when the release has none of that name.
const SEARCH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that exists and may be executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub path: PathBuf,
    pub arguments: Vec<String>,
}

impl Program {
    /// Its path, and what it is called with.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        std::iter::once(self.path.display().to_string()).chain(self.arguments.iter().cloned()).collect()
    }
}

/// A user of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

/// Finds the program of a command.
///
/// # Errors
/// B0201: there is no such program. B0202: it cannot be executed.
pub fn resolve(command: &[String], folder: &Path) -> Result<Program, Problem> {
    let Some((name, arguments)) = command.split_first() else {
        return Err(Problem::new(Code(201), "the command is empty").help("name a program in run.command"));
    };
    let found = candidates(name, folder).into_iter().find(|path| path.exists());
    let path = found.ok_or_else(|| missing(name, folder))?;
    executable(name, &path)?;
    Ok(Program { path, arguments: arguments.to_vec() })
}

/// What is executed where a program is begun by a part of this agent, which then becomes it.
#[must_use]
pub(super) fn begun(parts: &[String], program: &Program) -> Program {
    let Some((own, before)) = parts.split_first() else { return program.clone() };
    let own_words = before.iter().cloned().chain([handing::BEGIN.to_owned(), "--".to_owned()]);
    let words = program.words().iter().map(|word| handing::spell(word)).collect::<Vec<_>>();
    Program { path: own.into(), arguments: own_words.chain(words).collect() }
}

/// The environment of an instance: nothing of the agent's own, a search path, then what the release says.
#[must_use]
pub fn environment(env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from([("PATH".to_owned(), SEARCH.to_owned())]);
    all.extend(env.clone());
    all
}

/// The user a process runs as.
///
/// # Errors
/// There is no such process any more.
pub fn user_of(pid: u32) -> std::io::Result<User> {
    let process = std::fs::metadata(format!("/proc/{pid}"))?;
    Ok(User { uid: process.uid(), gid: process.gid() })
}

/// Looks a user up in `/etc/passwd`.
///
/// # Errors
/// B0203: there is no such user.
pub fn user(name: &str) -> Result<User, Problem> {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let user = fields.next().filter(|user| *user == name)?;
        let (_password, uid, gid) = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some((user, User { uid, gid }))
    });
    found.map(|(_, user)| user).ok_or_else(|| {
        Problem::new(Code(203), format!("the user `{}` does not exist on this host", text::line(name, 80)))
            .help("create it, or name another in run.user")
    })
}

/// Why a program that exists did not start, from the kernel's answer.
#[must_use]
pub fn not_started(path: &Path, error: &io::Error) -> Problem {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => match interpreter(path) {
            Some(interpreter) => {
                Problem::new(Code(201), format!("`{interpreter}`, which `{shown}` is written for, does not exist"))
                    .help(format!("install it on this host, or change the first line of `{shown}`"))
            }
            None => Problem::new(Code(201), format!("`{shown}` exists, but not the loader it was linked for"))
                .help("build it for this host's system, or link it statically"),
        },
        io::ErrorKind::PermissionDenied => not_executable(&shown.to_string(), path),
        _ => Problem::new(Code(204), format!("`{shown}` could not be started: {}", text::io_error(error)))
            .help("is it built for this host's processor, and is it a program?"),
    }
}

/// `SIGTERM`, `signal 42`.
#[must_use]
pub fn signal_name(signal: i32) -> String {
    const NAMES: [(i32, &str); 14] = [
        (1, "SIGHUP"),
        (2, "SIGINT"),
        (3, "SIGQUIT"),
        (4, "SIGILL"),
        (6, "SIGABRT"),
        (7, "SIGBUS"),
        (8, "SIGFPE"),
        (9, "SIGKILL"),
        (10, "SIGUSR1"),
        (11, "SIGSEGV"),
        (12, "SIGUSR2"),
        (13, "SIGPIPE"),
        (15, "SIGTERM"),
        (31, "SIGSYS"),
    ];
    let name = NAMES.iter().find(|(number, _)| *number == signal);
    name.map_or_else(|| format!("signal {signal}"), |(_, name)| (*name).to_owned())
}

fn candidates(name: &str, folder: &Path) -> Vec<PathBuf> {
    // Joining an absolute path gives that path.
    let mut paths = vec![folder.join(name)];
    if !name.contains('/') {
        paths.extend(SEARCH.split(':').map(|search| Path::new(search).join(name)));
    }
    paths
}

fn missing(name: &str, folder: &Path) -> Problem {
    let name = text::line(name, 200);
    let place = if name.starts_with('/') { "on this host" } else { "in the release" };
    let looked =
        if name.contains('/') || name.is_empty() { String::new() } else { " and in the system's folders".to_owned() };
    let mut problem = Problem::new(Code(201), format!("the command `{name}` does not exist {place}"))
        .saw("looked for", format!("{}{looked}", folder.join(&name).display()));
    if let Some((what, names)) = neighbours(&name, folder) {
        problem = problem.saw(what, names);
    }
    problem.help("check run.command in baton.toml, and what the archive holds")
}

/// What there is where the program was expected: most often a typo, or a folder more or less in the archive.
fn neighbours(name: &str, folder: &Path) -> Option<(String, String)> {
    let mut place = folder.join(name).parent()?.to_path_buf();
    while !place.is_dir() {
        place = place.parent()?.to_path_buf();
    }
    let shown = place.strip_prefix(folder).ok()?.display().to_string();
    let mut names: Vec<_> = fs::read_dir(&place).ok()?.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    let more = if names.len() > 12 { ", …" } else { "" };
    let names: Vec<_> = names.iter().take(12).map(|name| text::line(&name.to_string_lossy(), 60)).collect();
    let what = if shown.is_empty() { "the release holds".to_owned() } else { format!("{shown}/ holds") };
    Some((what, if names.is_empty() { "nothing".to_owned() } else { format!("{}{more}", names.join(", ")) }))
}

fn executable(name: &str, path: &Path) -> Result<(), Problem> {
    let metadata = fs::metadata(path);
    let shown = text::line(name, 200);
    match metadata {
        Ok(metadata) if metadata.is_dir() => Err(Problem::new(Code(202), format!("the command `{shown}` is a folder"))
            .help("name the program inside it in run.command")),
        Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => Err(not_executable(&shown, path)),
        _ => Ok(()),
    }
}

fn not_executable(shown: &str, path: &Path) -> Problem {
    let mode = fs::metadata(path).map(|metadata| format!("{:04o}", metadata.permissions().mode() & 0o7777));
    Problem::new(Code(202), format!("the command `{shown}` may not be executed"))
        .saw("mode", mode.unwrap_or_else(|error| text::io_error(&error)))
        .help(match Path::new(shown).is_absolute() {
            // The host's own file, which is as it is on purpose.
            true => "name a program in run.command; one of the release without a leading `/`".to_owned(),
            false => format!("run `chmod +x {shown}` before the archive is made"),
        })
}

fn interpreter(path: &Path) -> Option<String> {
    let mut first = [0; 256];
    let length = fs::File::open(path).ok()?.read(&mut first).ok()?;
    let first = String::from_utf8_lossy(first.get(..length)?).into_owned();
    let line = first.strip_prefix("#!")?.lines().next()?;
    line.split_whitespace().next().map(|word| text::line(word, 120))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_relative_program_is_found_in_the_release_and_a_bare_one_on_the_host_too() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("shop");
        fs::write(&program, "").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let resolved = resolve(&command(&["shop", "--port", "1"]), folder.path()).unwrap();
        assert_eq!(resolved, Program { path: program, arguments: command(&["--port", "1"]) });
        assert!(resolve(&command(&["sh"]), folder.path()).unwrap().path.ends_with("bin/sh"));
    }

    #[test]
    fn a_missing_program_is_told_with_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("bin")).unwrap();
        fs::write(folder.path().join("bin/shopd"), "").unwrap();
        let problem = resolve(&command(&["bin/shop"]), folder.path()).unwrap_err();
        assert_eq!(problem.code, Code(201));
        assert_eq!(problem.what, "the command `bin/shop` does not exist in the release");
        assert!(problem.seen.contains(&("bin/ holds".to_owned(), "shopd".to_owned())), "{:?}", problem.seen);
    }

    #[test]
    fn a_program_that_may_not_be_executed_is_told_with_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("shop"), "").unwrap();
        fs::set_permissions(folder.path().join("shop"), fs::Permissions::from_mode(0o644)).unwrap();
        let problem = resolve(&command(&["shop"]), folder.path()).unwrap_err();
        assert_eq!((problem.code, problem.seen[0].1.as_str()), (Code(202), "0644"));
    }

    #[test]
    fn an_unknown_user_is_refused() {
        assert_eq!(user("root").unwrap(), User { uid: 0, gid: 0 });
        assert_eq!(user("nobody-of-that-name").unwrap_err().code, Code(203));
    }
}
