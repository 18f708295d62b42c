//! What can be seen on this machine without asking anybody.

use super::{Check, Places, State, mends, now, told};
use crate::render::units::counted;
use baton_core::fleet::report::HostReport;
use baton_core::manifest::{Severity, parse};
use baton_core::problem::Problem;
use baton_proto::tls::{Credentials, authority_pin, date};
use baton_proto::unit;
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const DAY: i64 = 24 * 3600;
/// Certificates renew themselves a month before they end: two weeks are late.
const LATE: i64 = 14 * DAY;
/// No version of Baton was built before this: a clock that says so is wrong. 2025-01-01.
const EARLIEST: i64 = 1_735_689_600;
/// Below these shares of a disk, or of its files, something will soon fail.
const ROOM: u64 = 10;
const LITTLE_ROOM: u64 = 2;

/// For so long an agent may think about its answer.
const PATIENCE: Duration = Duration::from_secs(5);

const COORDINATOR: &str = "/var/lib/baton-coordinator";
const AGENT: &str = "/var/lib/baton-agent";

pub(super) fn checks(places: &Places) -> Vec<Check> {
    let mut checks = vec![clock(), manifest(places)];
    match &places.login {
        Some(folder) if folder.join("certificate.pem").exists() => {
            checks.push(private("login key", &folder.join("key.pem")));
            checks.push(ends("login certificate", folder, "baton login HOST:PORT --token-file FILE"));
        }
        _ => {
            checks.push(Check::skipped("login key", "nobody logged in here"));
            checks.push(Check::skipped("login certificate", "nobody logged in here"));
        }
    }
    checks.extend(agent(places));
    checks.extend(coordinator(places));
    checks
}

fn clock() -> Check {
    match now() < EARLIEST {
        true => Check::bad("clock", "the clock stands before 2025", "timedatectl set-ntp true, and compare `date -u`"),
        false => Check::good("clock", "the date can be right"),
    }
}

fn manifest(places: &Places) -> Check {
    const NAME: &str = "manifest";
    let text = match std::fs::read_to_string(&places.manifest) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Check::skipped(NAME, "no baton.toml in this folder"),
        Err(error) => return Check::bad(NAME, error.to_string(), "chmod u+r baton.toml"),
    };
    match parse("baton.toml", &text) {
        Ok(manifest) if manifest.warnings.is_empty() => Check::good(NAME, format!("{} can be deployed", manifest.service)),
        Ok(manifest) => {
            Check::warning(NAME, counted(manifest.warnings.len() as u64, "warning", "warnings"), "baton config check")
        }
        Err(found) => {
            let errors = found.iter().filter(|it| it.severity == Severity::Error).count();
            Check::bad(NAME, format!("{errors} errors"), "baton config check")
        }
    }
}

fn agent(places: &Places) -> Vec<Check> {
    const NAMES: [&str; 8] = [
        "agent settings",
        "agent identity",
        "agent key",
        "agent certificate",
        "agent process",
        "agent problems",
        "agent disk",
        "agent state folder",
    ];
    let state = places.at(AGENT);
    let installed = places.at("/usr/bin/baton-agent").exists();
    if !state.join("identity/certificate.pem").exists() {
        let mut checks: Vec<_> = NAMES.iter().map(|name| Check::skipped(name, "this machine is no host")).collect();
        if installed {
            let fix = "baton-agent join HOST:PORT --token-file FILE";
            checks[1] = Check::warning(NAMES[1], "the agent is installed and has not joined", fix);
        }
        return checks;
    }
    let identity = state.join("identity");
    let [mut process, problems] = running([NAMES[4], NAMES[5]], &state.join("run/agent.sock"));
    if process.state == State::Bad && !installed {
        let fix = format!("install baton-agent again; or remove {AGENT}, once no application runs from there");
        process = Check::bad(NAMES[4], "its package is not installed, and what it kept is still here", fix);
    }
    vec![
        settings(NAMES[0], &places.at("/etc/baton/agent.toml"), &places.at("/usr/bin/baton-agent")),
        readable(NAMES[1], &identity),
        private(NAMES[2], &identity.join("key.pem")),
        ends(NAMES[3], &identity, "baton token create --name NAME, then on this host: baton-agent join --replace"),
        process,
        problems,
        room(NAMES[6], &state),
        match std::fs::metadata(&state).map(|folder| (folder.mode() & 0o022, folder.uid())) {
            Ok((0, _)) => Check::good(NAMES[7], "nobody else writes there"),
            Ok(_) => Check::bad(NAMES[7], "others may write there", format!("chmod go-w {AGENT}")),
            Err(error) => Check::skipped(NAMES[7], error.to_string()),
        },
    ]
}

/// Whether the agent answers, and what it says is wrong: a coordinator that turns it away hears nothing of that.
fn running([process, problems]: [&'static str; 2], socket: &Path) -> [Check; 2] {
    let asked = UnixStream::connect(socket).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut report = Vec::new();
        stream.read_to_end(&mut report).map(|_| report)
    });
    let unasked = |why: &str| Check::skipped(problems, why);
    match asked {
        Ok(report) => match serde_json::from_slice::<HostReport>(&report) {
            Ok(report) => [Check::good(process, "it answers"), troubles(problems, &report.problems)],
            Err(_) => [Check::good(process, "it answers"), unasked("its answer is of another version")],
        },
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            [Check::skipped(process, "only root may ask it"), unasked("only root may ask it")]
        }
        Err(error) => {
            let fix = unit::command("status", "baton-agent");
            [Check::bad(process, format!("it does not answer: {error}"), fix), unasked("it does not answer")]
        }
    }
}

fn troubles(name: &'static str, problems: &[Problem]) -> Check {
    let said = problems.iter().map(told);
    let helps: BTreeSet<String> = problems.iter().map(mends).collect();
    Check::unless(name, said, "none", &helps.into_iter().collect::<Vec<_>>().join("; "))
}

fn coordinator(places: &Places) -> Vec<Check> {
    const NAMES: [&str; 5] =
        ["coordinator settings", "authority", "authority key", "coordinator certificate", "coordinator disk"];
    let state = places.at(COORDINATOR);
    let identity = state.join("identity");
    if !identity.join("authority.pem").exists() {
        let mut checks: Vec<_> =
            NAMES.iter().map(|name| Check::skipped(name, "this machine is no coordinator, or only root may see")).collect();
        if places.at("/usr/bin/baton-coordinator").exists() && std::fs::read_dir(&state).is_ok() {
            checks[1] = Check::warning(NAMES[1], "the coordinator is installed and not set up", "baton-coordinator init");
        }
        return checks;
    }
    let authority = std::fs::read_to_string(identity.join("authority.pem"));
    vec![
        settings(NAMES[0], &places.at("/etc/baton/coordinator.toml"), &places.at("/usr/bin/baton-coordinator")),
        match authority.is_ok_and(|text| authority_pin(&text).is_ok()) {
            true => Check::good(NAMES[1], "it can be read"),
            false => Check::bad(NAMES[1], "it cannot be read", "restore /var/lib/baton-coordinator/identity from a backup"),
        },
        private(NAMES[2], &identity.join("authority.key.pem")),
        ends(NAMES[3], &identity, &format!("{} renews it", unit::command("restart", "baton-coordinator"))),
        room(NAMES[4], &state),
    ]
}

/// Whether a service can read its settings. Of what may stand there the program that reads them knows best; where it is not to be
/// had, whether they can be read at all.
fn settings(name: &'static str, path: &Path, program: &Path) -> Check {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Check::good(name, "none, so the defaults hold"),
        Err(error) => return Check::skipped(name, error.to_string()),
    };
    let checked = Command::new(program).args(["config", "check", "--config"]).arg(path).stdin(Stdio::null()).output();
    if let Ok(checked) = checked {
        return match checked.status.success() {
            true => Check::good(name, format!("{} can be used", path.display())),
            false => {
                let fix = format!("{} config check says where, and what may stand there", program.display());
                Check::bad(name, complaint(&String::from_utf8_lossy(&checked.stderr)), fix)
            }
        };
    }
    match toml::from_str::<toml::Table>(&text) {
        Ok(_) => Check::good(name, format!("{} is TOML", path.display())),
        Err(error) => Check::bad(name, error.message().to_owned(), format!("edit {}", path.display())),
    }
}

/// What a program says on stderr is wrong, without its evidence; all of it where it lists several.
fn complaint(said: &str) -> String {
    let errors: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("error")).collect();
    let first = || said.lines().find(|line| !line.trim().is_empty()).unwrap_or("its program cannot use it");
    let all = if errors.is_empty() { vec![first()] } else { errors };
    all.into_iter().map(|error| error.trim_start_matches(':').trim()).collect::<Vec<_>>().join("; ")
}

/// Whether a key is its owner's alone.
fn private(name: &'static str, path: &Path) -> Check {
    match std::fs::metadata(path).map(|file| file.permissions().mode() & 0o077) {
        Ok(0) => Check::good(name, "only its owner may read it"),
        Ok(_) => Check::bad(name, format!("others may read {}", path.display()), format!("chmod 600 {}", path.display())),
        Err(error) => Check::skipped(name, error.to_string()),
    }
}

fn readable(name: &'static str, folder: &Path) -> Check {
    match Credentials::load(folder).map_err(|error| error.to_string()).and_then(|it| it.subject().map_err(|e| e.to_string()))
    {
        Ok(subject) => Check::good(name, subject.identity.to_string()),
        Err(error) => Check::bad(name, error, "join again: baton-agent join HOST:PORT --token-file FILE --replace"),
    }
}

fn ends(name: &'static str, folder: &Path, fix: &str) -> Check {
    let credentials = match Credentials::load(folder) {
        Ok(credentials) => credentials,
        Err(error) => return Check::bad(name, error.to_string(), fix),
    };
    let Ok(subject) = credentials.subject() else { return Check::bad(name, "it names nobody", fix) };
    let (now, left) = (now(), subject.not_after - now());
    // Those that live for hours are renewed by the hour: late is what their renewal should not have let happen.
    let late = LATE.min((subject.not_after - subject.not_before) / 6);
    // It renews itself: one that is as long over as it lasted was not forgotten, the clock is more likely to be wrong.
    let life = subject.not_after - subject.not_before;
    let dates = || {
        format!(
            "it lasts from {} to {}, and the clock here says {}",
            date(subject.not_before),
            date(subject.not_after),
            date(now)
        )
    };
    match () {
        () if now < subject.not_before => {
            Check::bad(name, format!("it is not valid yet: {}", dates()), "compare `date -u` here and on the coordinator")
        }
        () if left < -life => Check::bad(
            name,
            format!("it has ended long ago: {}", dates()),
            format!(
                "compare `date -u` here and on the coordinator: timedatectl set-ntp true; where the date is right: {fix}"
            ),
        ),
        () if left < 0 => Check::bad(name, "it has ended, or the clock here is ahead", fix),
        () if left < late => Check::warning(name, format!("it ends in {} days and was not renewed", left / DAY), fix),
        () => Check::good(name, format!("{}, {} days left", subject.identity, left / DAY)),
    }
}

/// Whether a disk has room for what comes.
fn room(name: &'static str, folder: &Path) -> Check {
    let Ok(disk) = rustix::fs::statvfs(folder) else { return Check::skipped(name, "the disk says nothing") };
    let share = |free: u64, of: u64| free.saturating_mul(100).checked_div(of).unwrap_or(100);
    let (space, files) = (share(disk.f_bavail, disk.f_blocks), share(disk.f_favail, disk.f_files));
    let seen = format!("{space} % of the space and {files} % of the files are free");
    let fix = format!("make room on the disk of {}", folder.display());
    match space.min(files) {
        ..LITTLE_ROOM => Check::bad(name, seen, fix),
        LITTLE_ROOM..ROOM => Check::warning(name, seen, fix),
        _ => Check::good(name, seen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::problem::Code;
    use std::fs;

    fn places(root: &Path) -> Places {
        Places { root: root.to_owned(), login: None, manifest: root.join("baton.toml") }
    }

    fn state_of(checks: &[Check], name: &str) -> State {
        checks.iter().find(|check| check.name == name).map(|check| check.state).unwrap()
    }

    #[test]
    fn a_machine_that_is_nothing_has_nothing_wrong() {
        let root = tempfile::tempdir().unwrap();
        let checks = checks(&places(root.path()));
        assert!(checks.iter().all(|check| check.state <= State::Good), "{checks:#?}");
    }

    #[test]
    fn a_key_that_others_may_read_a_damaged_identity_and_a_bad_manifest_are_found_with_their_fix() {
        let root = tempfile::tempdir().unwrap();
        let identity = root.path().join("var/lib/baton-agent/identity");
        fs::create_dir_all(&identity).unwrap();
        for file in ["certificate.pem", "key.pem", "authority.pem"] {
            fs::write(identity.join(file), "nonsense").unwrap();
        }
        fs::set_permissions(identity.join("key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
        fs::create_dir_all(root.path().join("etc/baton")).unwrap();
        fs::write(root.path().join("etc/baton/agent.toml"), "name = ").unwrap();
        fs::write(root.path().join("baton.toml"), "service = 1").unwrap();
        let checks = checks(&places(root.path()));
        for name in ["manifest", "agent settings", "agent identity", "agent key", "agent certificate", "agent process"] {
            assert_eq!(state_of(&checks, name), State::Bad, "{name}: {checks:#?}");
        }
        assert!(checks.iter().all(|check| (check.state >= State::Warning) == check.fix.is_some()), "{checks:#?}");
    }

    #[test]
    fn what_the_agent_here_says_is_wrong_is_found_without_a_coordinator() {
        let root = tempfile::tempdir().unwrap();
        let socket = root.path().join("agent.sock");
        let states = |socket: &Path| running(["process", "problems"], socket).map(|check| check.state);
        assert_eq!(states(&socket), [State::Bad, State::Skipped]);
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let mut report = HostReport::default();
        let answer = |text: String| {
            let (listener, socket) = (listener.try_clone().unwrap(), socket.clone());
            let answers = std::thread::spawn(move || {
                let mut stream = listener.accept().unwrap().0;
                std::io::Write::write_all(&mut stream, text.as_bytes()).unwrap();
            });
            let checks = running(["process", "problems"], &socket);
            answers.join().unwrap();
            checks
        };
        let json = |report: &HostReport| serde_json::to_string(report).unwrap();
        assert_eq!(answer(json(&report)).map(|check| check.state), [State::Good; 2]);
        assert_eq!(answer("[]".to_owned()).map(|check| check.state), [State::Good, State::Skipped]);
        let refused = Problem::new(Code(507), "the coordinator does not accept this certificate");
        report.problems.push(refused.help("join again"));
        let [_, problems] = answer(json(&report));
        assert_eq!((problems.state, problems.fix.as_deref()), (State::Bad, Some("join again")));
        assert_eq!(problems.seen, "[B0507] the coordinator does not accept this certificate");
    }

    #[test]
    fn whether_settings_can_be_used_says_the_program_that_reads_them() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("agent.toml");
        fs::write(&file, "nmae = \"web1\"\n").unwrap();
        let state = |program: &str| settings("agent settings", &file, Path::new(program)).state;
        assert_eq!(state("/nowhere/baton-agent"), State::Good, "nobody is there who knows better");
        assert_eq!((state("/bin/false"), state("/bin/true")), (State::Bad, State::Good));
        let said = "\nerror[B0530]: agent.toml:1:1: `nmae` is no key\n  help: name\n";
        assert_eq!(complaint(said), "[B0530]: agent.toml:1:1: `nmae` is no key");
        assert_eq!(complaint(&said.repeat(2)), ["[B0530]: agent.toml:1:1: `nmae` is no key"; 2].join("; "));
        assert_eq!(
            (complaint(""), complaint("no such file\n")),
            ("its program cannot use it".into(), "no such file".into())
        );
    }
}
