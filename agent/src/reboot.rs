//! This host rebooted, told by the coordinator: once for each boot, and only where `agent.toml` allows it.
//!
//! An order names the boot it is for. The host that came back is in another one, so an order that is late, or told again, does
//! nothing. What runs here is told to stop by systemd, as at any reboot.

use crate::condition::Condition;
use crate::runtime::systemd;
use crate::text;
use baton_core::problem::Problem;
use baton_core::reboot::look::{NOT_ALLOWED, NOT_REBOOTED};
use baton_proto::v1;
use std::process::Stdio;
use tokio::process::Command;
use tokio::sync::watch;

/// The one thing this room does.
const REBOOT: [&str; 2] = ["systemctl", "reboot"];

/// What the session needs of it.
#[derive(Debug)]
pub struct Ends {
    /// What the coordinator is told first.
    pub stated: v1::RebootAbility,
    orders: watch::Sender<Option<String>>,
}

/// The task that carries orders out.
#[derive(Debug)]
pub struct Room {
    boot: String,
    refuses: Option<Problem>,
    words: Vec<String>,
    orders: watch::Receiver<Option<String>>,
    condition: Condition,
}

/// Makes the room and the session's ends of it.
pub fn open(boot: String, allowed: bool, condition: Condition) -> (Room, Ends) {
    let refuses = refuses(allowed, systemd::runs_here());
    let (orders, ordered) = watch::channel(None);
    let stated = v1::RebootAbility { refuses: refuses.as_ref().map(Into::into) };
    let words = REBOOT.map(str::to_owned).into();
    (Room { boot, refuses, words, orders: ordered, condition }, Ends { stated, orders })
}

fn refuses(allowed: bool, systemd: bool) -> Option<Problem> {
    match (allowed, systemd) {
        (true, true) => None,
        (false, _) => Some(
            Problem::new(NOT_ALLOWED, "this host does not let itself be rebooted by the coordinator")
                .saw("agent.toml", "[allow] reboot is not true")
                .help("set reboot = true below [allow] in /etc/baton/agent.toml there, then systemctl restart baton-agent"),
        ),
        (true, false) => Some(Problem::new(NOT_ALLOWED, "this host is not run by systemd, or its agent is not root")),
    }
}

impl Ends {
    /// Takes in what the coordinator says; an order without a boot takes back the one before.
    pub fn ordered(&self, message: v1::RebootOrder) {
        self.orders.send_replace(Some(message.boot).filter(|boot| !boot.is_empty()));
    }
}

impl Room {
    /// Carries orders out for ever.
    pub async fn serve(mut self) {
        loop {
            let order = self.orders.borrow_and_update().clone();
            if order.as_ref() == Some(&self.boot) {
                let outcome = self.reboot().await;
                if let Some(problem) = &outcome {
                    tracing::warn!(%problem, "this host does not reboot");
                }
                self.condition.not_rebooted(outcome);
            } else {
                self.condition.not_rebooted(None);
            }
            if self.orders.changed().await.is_err() {
                return;
            }
        }
    }

    /// Why it does not.
    async fn reboot(&self) -> Option<Problem> {
        if let Some(problem) = &self.refuses {
            let mut problem = problem.clone();
            problem.code = NOT_REBOOTED;
            return Some(problem);
        }
        tracing::info!(boot = self.boot, "this host reboots");
        let (program, words) = self.words.split_first()?;
        let ran = Command::new(program).args(words).stdin(Stdio::null()).kill_on_drop(true).output().await;
        let failed = |why: String| {
            Problem::new(NOT_REBOOTED, "this host could not be rebooted")
                .saw(self.words.join(" "), why)
                .help("systemctl reboot on this host says why; it stays out of the balancers meanwhile")
        };
        match ran {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(failed(text::line(&String::from_utf8_lossy(&output.stderr), 300))),
            Err(error) => Some(failed(text::io_error(&error))),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    pub(crate) fn ends() -> Ends {
        Ends { stated: v1::RebootAbility::default(), orders: watch::channel(None).0 }
    }

    /// A room whose reboot writes a line, and its ends.
    fn room(folder: &Path, refuses: Option<Problem>) -> (Room, Ends, PathBuf) {
        let done = folder.join("done");
        let (orders, ordered) = watch::channel(None);
        let words = ["sh", "-c", &format!("echo once >> {}", done.display())].map(str::to_owned).into();
        let condition = Condition::new(folder.to_owned());
        let ends = Ends { stated: v1::RebootAbility::default(), orders };
        (Room { boot: "b1".into(), refuses, words, orders: ordered, condition }, ends, done)
    }

    fn order(boot: &str) -> v1::RebootOrder {
        v1::RebootOrder { boot: boot.into() }
    }

    #[tokio::test]
    async fn an_order_is_for_one_boot_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let (room, ends, done) = room(folder.path(), None);
        let served = tokio::spawn(room.serve());
        for boot in ["b0", "", "b2", "b1"] {
            ends.ordered(order(boot));
            tokio::task::yield_now().await;
        }
        let written = async {
            while !done.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), written).await.expect("it reboots from its own boot");
        ends.ordered(order("b2"));
        drop(ends);
        served.await.unwrap();
        assert_eq!(std::fs::read_to_string(done).unwrap(), "once\n");
    }

    #[tokio::test]
    async fn a_host_that_does_not_allow_it_does_nothing_whoever_asks() {
        let folder = tempfile::tempdir().unwrap();
        let (room, ends, done) = room(folder.path(), refuses(false, true));
        let condition = room.condition.clone();
        ends.ordered(order("b1"));
        drop(ends);
        room.serve().await;
        let problems = condition.problems();
        assert!(problems.iter().any(|problem| problem.code == NOT_REBOOTED && problem.help.is_some()), "{problems:?}");
        assert!(!done.exists());
    }

    #[test]
    fn a_host_says_what_it_does_not_let_be_done() {
        assert_eq!(refuses(true, true), None);
        for (allowed, systemd) in [(false, true), (true, false), (false, false)] {
            assert_eq!(refuses(allowed, systemd).map(|problem| problem.code), Some(NOT_ALLOWED));
        }
    }
}
