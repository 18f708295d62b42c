//! The warden's own process.

use super::family;
use super::orders::{Order, Program, Reply};
use rustix::process::{WaitOptions, getpid, set_child_subreaper, wait};
use std::fs::OpenOptions;
use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// While there is no child at all, the collector of ended ones looks this often.
const COLLECT: Duration = Duration::from_millis(20);

/// Carries out orders until the pipe closes or a signal asks to end, then ends everything and removes `folder`.
pub(in crate::demo) async fn serve(folder: &Path) -> anyhow::Result<()> {
    set_child_subreaper(Some(getpid()))?;
    std::thread::spawn(collect);
    let mut orders = orders();
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            _ = term.recv() => None,
            _ = interrupt.recv() => None,
            _ = hangup.recv() => None,
        };
        let Some(Order::Start(program)) = order else { break };
        let reply = match start(&program) {
            Ok(pid) => Reply::Started { pid },
            Err(error) => Reply::Refused { why: format!("cannot start {}: {error}", program.words.join(" ")) },
        };
        let mut line = serde_json::to_string(&reply)?;
        line.push('\n');
        if std::io::stdout().lock().write_all(line.as_bytes()).is_err() {
            break;
        }
    }
    family::end_all();
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Lines from the pipe, until it closes or carries nonsense.
fn orders() -> mpsc::UnboundedReceiver<Order> {
    let (send, receive) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(order) = line.map_err(anyhow::Error::from).and_then(|line| Ok(serde_json::from_str(&line)?)) else {
                return;
            };
            if send.send(order).is_err() {
                return;
            }
        }
    });
    receive
}

fn start(program: &Program) -> std::io::Result<i32> {
    let (path, words) = program.words.split_first().ok_or_else(|| std::io::Error::other("no program"))?;
    let log = OpenOptions::new().create(true).append(true).open(&program.log)?;
    let child = Command::new(path)
        .args(words)
        .envs(&program.env)
        .current_dir(&program.folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    // Dropped, not waited for: the collector does that.
    i32::try_from(child.id()).map_err(std::io::Error::other)
}

/// Collects whatever ends, so that a process that is dead also looks dead.
fn collect() {
    loop {
        if wait(WaitOptions::empty()).is_err() {
            std::thread::sleep(COLLECT);
        }
    }
}
