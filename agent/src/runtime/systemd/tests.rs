//! The contract with a real systemd: only where one runs this host and the tests are root.

use super::*;
use crate::probe::{Question, Surroundings};
use baton_core::name::{Digest, ReleaseId};
use baton_core::release::{Probe, Signal};
use std::collections::BTreeMap;
use std::time::Instant;
use tempfile::TempDir;

struct Host {
    folder: TempDir,
    runtime: SystemdRuntime,
    key: InstanceKey,
}

/// A host, or none where there is no systemd; each test has a service of its own.
async fn host(service: &str) -> Option<Host> {
    if !runs_here() {
        let required = std::env::var("BATON_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|name| name == "systemd"), "systemd is required, and does not run this host");
        #[allow(clippy::print_stderr)]
        {
            eprintln!("skipped: systemd does not run this host, or this is not root");
        }
        return None;
    }
    // Units have a /tmp of their own: what they share with the test lies elsewhere.
    fs::create_dir_all("/var/lib/baton-test").unwrap();
    let folder = tempfile::tempdir_in("/var/lib/baton-test").unwrap();
    // As the agent's own: a service has a user of its own, who has to get to its release.
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let runtime = SystemdRuntime::open(&folder.path().join("run"), crate::runtime::tests::parts()).await.unwrap();
    Some(Host { folder, runtime, key: format!("{service}/0").parse().unwrap() })
}

fn polite(timeout: Duration) -> Stop {
    Stop { signal: Signal::Term, timeout }
}

impl Host {
    fn launch(&self, script: &str) -> Launch {
        let release = ReleaseId(Digest::of(script.as_bytes()));
        Launch {
            key: self.key.clone(),
            release,
            start: 0,
            folder: self.folder.path().to_owned(),
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            user: None,
            env: BTreeMap::from([
                ("BATON_RELEASE".to_owned(), release.to_string()),
                ("WORD".to_owned(), "100% $HOME".to_owned()),
            ]),
            secrets: BTreeMap::new(),
            stop: polite(Duration::from_secs(5)),
            listen: Vec::new(),
        }
    }

    async fn start(&self, script: &str) -> Running {
        self.runtime.start(self.launch(script)).await.unwrap()
    }

    async fn lines(&self, running: &Running) -> Vec<String> {
        // The journal takes its time to have what was written.
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let mut lines = self.runtime.log(running).await;
            // The test program says this before it becomes what it was asked for.
            lines.retain(|line| !line.is_empty() && line != "running 1 test");
            if !lines.is_empty() || Instant::now() > deadline {
                return lines;
            }
        }
    }

    async fn successor(&self) -> SystemdRuntime {
        SystemdRuntime::open(&self.folder.path().join("run"), crate::runtime::tests::parts()).await.unwrap()
    }
}

fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn a_unit_runs_is_found_by_the_next_agent_and_stops() {
    let Some(host) = host("t-adopt").await else { return };
    let running = host.start("exec sleep 600").await;
    assert!(exists(running.pid));
    let successor = host.successor().await;
    assert_eq!(successor.list().await.unwrap(), [Found { running: running.clone(), alive: true }]);
    assert!(successor.processes(&running).contains(&running.pid));
    successor.stop(&running, &running.stop).await;
    assert!(!exists(running.pid));
    assert_eq!(successor.list().await.unwrap(), [], "nothing of the unit is left");
}

/// The user systemd makes up; those it may choose from are its own.
const MADE_UP: std::ops::RangeInclusive<u32> = 61_184..=65_519;

#[tokio::test]
async fn without_a_named_user_both_slots_have_one_of_their_own_that_is_nobody_else_and_keeps_what_it_wrote() {
    let Some(mut host) = host("t-own-user").await else { return };
    let first = host.start("echo $$ >$STATE_DIRECTORY/first && exec sleep 600").await;
    host.key = "t-own-user/1".parse().unwrap();
    let second = host.start("echo $$ >>$STATE_DIRECTORY/first && exec sleep 600").await;
    let users = [&first, &second].map(|running| command::user_of(running.pid).unwrap());
    assert!(MADE_UP.contains(&users[0].uid) && MADE_UP.contains(&users[0].gid), "{users:?}");
    assert_eq!(users[0], users[1]);
    let kept = Path::new("/var/lib/private/baton/t-own-user/first");
    let deadline = Instant::now() + Duration::from_secs(5);
    let lines = || fs::read_to_string(kept).unwrap_or_default().lines().count();
    while lines() < 2 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(lines(), 2, "each of them may write what both keep");

    let question = |command: &str| Question {
        probe: Probe::Exec { command: ["/bin/sh", "-c", command].map(str::to_owned).to_vec() },
        address: "127.0.0.1:1".parse().unwrap(),
        timeout: Duration::from_secs(5),
        surroundings: Some(Surroundings {
            folder: host.folder.path().to_owned(),
            env: BTreeMap::new(),
            user: None,
            beside: Some(first.pid),
        }),
    };
    let asks = question(&format!("test $(id -u) = {} && test $(id -g) = {}", users[0].uid, users[0].gid));
    asks.ask().await.expect("a probe runs as the instance does");
    for running in [first, second] {
        host.runtime.stop(&running, &running.stop).await;
    }
}

#[tokio::test]
async fn a_named_user_is_that_user() {
    let Some(host) = host("t-named-user").await else { return };
    for (name, uid) in [("root", 0), ("daemon", 1)] {
        let launch = Launch { user: Some(name.to_owned()), ..host.launch("exec sleep 600") };
        let running = host.runtime.start(launch).await.unwrap();
        assert_eq!(command::user_of(running.pid).unwrap().uid, uid);
        host.runtime.stop(&running, &running.stop).await;
    }
}

#[tokio::test]
async fn an_exit_is_told_with_its_status_and_last_lines() {
    let Some(host) = host("t-exit").await else { return };
    for (script, end) in [
        ("echo bye; sleep 0.1; exit 3", End::Status(3)),
        ("echo bye; exit 0", End::Status(0)),
        ("echo bye; kill -SEGV $$", End::Signal(11)),
    ] {
        let running = host.start(script).await;
        assert_eq!(host.runtime.ended(&running).await, Exit { end, left_behind: 0 }, "{script}");
        assert_eq!(host.lines(&running).await, ["bye"], "{script}");
        assert_eq!(host.runtime.list().await.unwrap(), []);
    }
}

#[tokio::test]
async fn an_exit_nobody_watched_is_found_and_forgotten() {
    let Some(host) = host("t-unseen").await else { return };
    for script in ["exit 0", "exit 4"] {
        let running = host.start(script).await;
        let name = unit::name(&host.key);
        host.runtime.bus.until(&name, |state| !state.is_alive()).await;
        let found = host.successor().await.list().await.unwrap();
        assert_eq!(
            found.iter().map(|found| (&found.running.incarnation, found.alive)).collect::<Vec<_>>(),
            [(&running.incarnation, false)]
        );
        host.runtime.forget(&host.key).await;
        assert_eq!(host.runtime.list().await.unwrap(), []);
    }
}

#[tokio::test]
async fn a_program_that_ignores_the_stop_is_killed_with_all_it_started() {
    let Some(host) = host("t-stubborn").await else { return };
    let mut launch = host.launch("trap '' TERM; setsid sleep 600 & echo $! > child; touch up; while :; do sleep 0.1; done");
    launch.command[2] =
        launch.command[2].replace("child", "$STATE_DIRECTORY/child").replace("touch up", "touch $STATE_DIRECTORY/up");
    launch.stop = polite(Duration::from_millis(200));
    let running = host.runtime.start(launch).await.unwrap();
    let state = Path::new("/var/lib/baton/t-stubborn");
    let deadline = Instant::now() + Duration::from_secs(10);
    while !state.join("up").exists() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let child: u32 = fs::read_to_string(state.join("child")).unwrap().trim().parse().unwrap();
    let began = Instant::now();
    host.runtime.stop(&running, &polite(Duration::from_millis(200))).await;
    assert!(began.elapsed() < Duration::from_secs(3));
    assert!(!exists(running.pid) && !exists(child));
    // A link to where systemd keeps what made-up users wrote.
    fs::remove_dir_all(state.canonicalize().unwrap()).unwrap();
}

#[tokio::test]
async fn values_stay_values_and_the_app_cannot_change_the_host() {
    let Some(host) = host("t-values").await else { return };
    let script =
        "echo \"$0 $WORD\"; touch /etc/evil 2>/dev/null || echo closed; grep NoNewPrivs /proc/self/status; exec sleep 600";
    let mut launch = host.launch(script);
    launch.command.push("%n $HOME ${HOME}\\x41".to_owned());
    let running = host.runtime.start(launch).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut lines = host.lines(&running).await;
    while lines.len() < 3 && Instant::now() < deadline {
        lines = host.lines(&running).await;
    }
    host.runtime.stop(&running, &running.stop).await;
    assert_eq!(lines, ["%n $HOME ${HOME}\\x41 100% $HOME", "closed", "NoNewPrivs: 1"]);
}

#[tokio::test]
async fn what_systemd_encrypted_on_this_host_is_a_secret_and_under_another_name_is_none() {
    let Some(host) = host("t-creds").await else { return };
    let encrypted = host.folder.path().join("db.cred");
    let mut encrypt = std::process::Command::new("/usr/bin/systemd-creds");
    encrypt.args(["encrypt", "--with-key=host", "--name=DB", "-"]).arg(&encrypted);
    let mut encrypt = encrypt.stdin(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut encrypt.stdin.take().unwrap(), b"a value\n").unwrap();
    assert!(encrypt.wait().unwrap().success());
    let secret = |name: &str| {
        BTreeMap::from([("X".to_owned(), format!("systemd-creds:{}{name}", encrypted.display()).parse().unwrap())])
    };

    let mut launch = host.launch("cat $X_FILE; exec sleep 600");
    let files = crate::allow::Files::all();
    launch.secrets = secrets::find(&secret("#DB"), &files).await.unwrap();
    let running = host.runtime.start(launch).await.unwrap();
    assert_eq!(host.lines(&running).await, ["a value"]);
    host.runtime.stop(&running, &polite(Duration::from_secs(5))).await;

    // Its file has another name than it was encrypted under.
    let refused = secrets::find(&secret(""), &files).await.unwrap_err();
    assert!(refused.seen[1].1.starts_with("systemd-creds: "), "{refused:?}");
}

#[tokio::test]
async fn another_start_in_the_same_slot_is_not_stopped_for_the_one_before() {
    let Some(host) = host("t-fence").await else { return };
    let before = host.start("exec sleep 600").await;
    host.runtime.stop(&before, &before.stop).await;
    let after = host.start("exec sleep 600").await;
    host.runtime.stop(&before, &before.stop).await;
    assert!(exists(after.pid));
    host.runtime.stop(&after, &after.stop).await;
}

#[tokio::test]
async fn a_public_socket_is_handed_to_units_and_outlives_them_and_the_agent() {
    let Some(host) = host("t-public").await else { return };
    let address = crate::places::place();
    let launch = |slot: u8| {
        let script =
            "echo $LISTEN_FDS $LISTEN_FDNAMES; test $LISTEN_PID = $$ && echo own; readlink /proc/$$/fd/3; exec sleep 600";
        let key = format!("t-public/{slot}").parse().unwrap();
        Launch { key, listen: vec![address], ..host.launch(script) }
    };
    let socket = |running: &Running| fs::read_link(format!("/proc/{}/fd/3", running.pid)).unwrap();
    let old = host.runtime.start(launch(0)).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut lines = host.lines(&old).await;
    while !lines.iter().any(|line| line.starts_with("socket:[")) && Instant::now() < deadline {
        lines = host.lines(&old).await;
    }
    assert!(lines.contains(&"1 t-public".to_owned()) && lines.contains(&"own".to_owned()), "{lines:?}");
    assert!(lines.contains(&socket(&old).display().to_string()), "{lines:?}");

    let successor = host.successor().await;
    let found = successor.list().await.unwrap();
    assert_eq!(found.iter().map(|found| &found.running).collect::<Vec<_>>(), [&old], "the holder is no instance");
    let new = successor.start(launch(1)).await.unwrap();
    assert_eq!(socket(&old), socket(&new));
    successor.stop(&old, &old.stop).await;
    successor.stop(&new, &new.stop).await;
    assert!(std::net::TcpStream::connect(address).is_ok(), "it listens also while no unit runs");

    drop(successor);
    // A unit is read again at a reload; the holder and what it holds stay.
    assert!(std::process::Command::new("systemctl").arg("daemon-reload").status().unwrap().success());
    let third = host.successor().await.start(launch(0)).await.unwrap();
    assert!(exists(third.pid));
    host.runtime.stop(&third, &third.stop).await;
    host.runtime.keep_listening(&BTreeSet::new()).await.unwrap();
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody asks for it any more");
}

#[tokio::test]
async fn a_program_with_sockets_that_cannot_be_started_says_why() {
    let Some(host) = host("t-unborn").await else { return };
    let address = crate::places::place();
    let path = host.folder.path().join("app");
    fs::write(&path, "#!/opt/none/python9\n").unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let launch = Launch { command: vec!["./app".to_owned()], listen: vec![address], ..host.launch("") };
    let problem = host.runtime.start(launch).await.unwrap_err();
    assert_eq!(problem.code, Code(201), "{problem}");
    assert_eq!(host.runtime.list().await.unwrap(), []);
    host.runtime.keep_listening(&BTreeSet::new()).await.unwrap();
}

#[tokio::test]
async fn a_unit_of_somebody_else_in_an_instances_place_is_left_alone_and_named() {
    let Some(host) = host("t-foreign").await else { return };
    let name = unit::name(&host.key);
    let systemctl = |verb: &str| std::process::Command::new("systemctl").args([verb, &name]).status().unwrap().success();
    let theirs = std::process::Command::new("systemd-run").args(["--quiet", "--unit", &name, "sleep", "600"]).status();
    assert!(theirs.unwrap().success());
    assert_eq!(host.runtime.list().await.unwrap(), [], "it was taken for ours");
    let refused = host.runtime.start(host.launch("exec sleep 600")).await.unwrap_err();
    let active = systemctl("is-active");
    systemctl("stop");
    assert!(active, "it was stopped");
    assert_eq!(refused.code, Code(204));
    assert!(refused.help.as_ref().is_some_and(|help| help.contains(&name)), "{refused:?}");
}

/// Takes a drop-in away again, whatever the test came to.
struct DropIn(PathBuf);

impl DropIn {
    fn lay(service: &str, text: &str) -> Self {
        let folder = PathBuf::from(format!("/run/systemd/system/baton-{service}-.service.d"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("relaxed.conf"), text).unwrap();
        Self::reload();
        Self(folder)
    }

    fn reload() {
        assert!(std::process::Command::new("systemctl").arg("daemon-reload").status().unwrap().success());
    }
}

impl Drop for DropIn {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        Self::reload();
    }
}

#[tokio::test]
async fn an_application_is_confined_unless_root_of_its_host_says_otherwise() {
    let Some(host) = host("t-confined").await else { return };
    let script = "unshare --user true && exit 7; exit 8";
    let running = host.start(script).await;
    assert_eq!(host.runtime.ended(&running).await.end, End::Status(8), "it made a namespace");
    let _relaxed = DropIn::lay("t-confined", "[Service]\nRestrictNamespaces=no\n");
    let running = host.start(script).await;
    assert_eq!(host.runtime.ended(&running).await.end, End::Status(7), "root's drop-in was not heard");
}

#[tokio::test]
async fn a_reload_before_a_program_is_begun_changes_none_of_its_words() {
    let Some(host) = host("t-reload").await else { return };
    let address = crate::places::place();
    for listen in [Vec::new(), vec![address]] {
        // What is started waits for this one, which waits for the reload.
        let (before, gate) = ("baton-test-before.service", host.folder.path().join("gate"));
        rustix::fs::mknodat(rustix::fs::CWD, &gate, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        let mut properties = bus::Properties::default();
        properties.text("Type", "oneshot");
        properties.execute(&["/bin/cat".to_owned(), gate.display().to_string()]);
        host.runtime.bus.start(before, properties).await.unwrap();
        let after = DropIn::lay("t-reload", &format!("[Unit]\nAfter={before}\n"));

        let script = "echo \"$0 $WORD\"; exit 3";
        let mut launch = Launch { listen, ..host.launch(script) };
        launch.command.push("a;b \\; $HOME ${HOME} $$ 100% %n \\x41 'é'\ttab".to_owned());
        let (started, ()) = tokio::join!(host.runtime.start(launch), async {
            host.runtime.bus.until(&unit::name(&host.key), State::is_queued).await;
            DropIn::reload();
            fs::OpenOptions::new().write(true).open(&gate).unwrap();
        });
        let running = started.unwrap();
        assert_eq!(host.runtime.ended(&running).await.end, End::Status(3));
        assert_eq!(host.lines(&running).await, ["a;b \\; $HOME ${HOME} $$ 100% %n \\x41 'é' tab 100% $HOME"]);
        drop(after);
        fs::remove_file(gate).unwrap();
    }
    host.runtime.keep_listening(&BTreeSet::new()).await.unwrap();
}
