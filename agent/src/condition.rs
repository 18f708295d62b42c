//! How this machine is apart from its services: its way to the coordinator, its clock, its disk.
//!
//! What is wrong goes into the problems of the host's report, where `baton status`, `why` and `doctor` show it; that the
//! coordinator cannot be reached is for `baton-agent status` on this host.

use crate::text;
use baton_core::problem::{Code, Problem};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// Clocks that are further apart make certificates fail sooner or later.
const TOO_FAR: Duration = Duration::from_secs(120);
/// Below this share of the disk, in percent, or of its files, something will soon fail.
const LITTLE_ROOM: u64 = 2;

/// What is known of it. Clones share it.
#[derive(Debug, Clone)]
pub struct Condition {
    known: watch::Sender<Known>,
    state: Arc<PathBuf>,
}

#[derive(Debug, Clone, Default)]
struct Known {
    /// Why there is no session; none while there is one, or before the first try.
    link: Option<Problem>,
    /// How far this clock is from the coordinator's, and whether it is ahead.
    apart: Option<(Duration, bool)>,
    certificate: Option<(i64, i64)>,
    /// Why it was to reboot, and did not.
    not_rebooted: Option<Problem>,
}

impl Condition {
    /// Of an agent with this state folder.
    #[must_use]
    pub fn new(state: PathBuf) -> Self {
        Self { known: watch::Sender::new(Known::default()), state: Arc::new(state) }
    }

    /// The coordinator said something.
    pub fn connected(&self) {
        self.known.send_if_modified(|known| known.link.take().is_some());
    }

    /// There is no session, and why.
    pub fn lost(&self, problem: &Problem) {
        self.known.send_modify(|known| known.link = Some(problem.clone()));
    }

    /// The coordinator's clock said this just now.
    pub fn compared(&self, seconds: i64) {
        self.known.send_modify(|known| known.apart = Some(apart(seconds, SystemTime::now())));
    }

    /// What came of the order to reboot; None: there is none, or it was carried out.
    pub fn not_rebooted(&self, why: Option<Problem>) {
        self.known.send_modify(|known| known.not_rebooted = why);
    }

    /// How long this host's certificate is good: from and until.
    pub fn certified(&self, not_before: i64, not_after: i64) {
        self.known.send_modify(|known| known.certificate = Some((not_before, not_after)));
    }

    /// From when until when this host's certificate is good, once that is known.
    #[must_use]
    pub fn certificate(&self) -> Option<(i64, i64)> {
        self.known.borrow().certificate
    }

    /// What the coordinator should know.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let apart = self.known.borrow().apart;
        let not_rebooted = self.known.borrow().not_rebooted.clone();
        clock(apart).into_iter().chain(room(&self.state)).chain(not_rebooted).collect()
    }

    /// Bytes that can still be written to the state folder, in whole mebibytes: what changes all the time is no news.
    #[must_use]
    pub fn room(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(self.state.as_path()).ok()?;
        Some((disk.f_bavail.saturating_mul(disk.f_frsize) >> 20) << 20)
    }

    /// What may be wrong with the machine, and whether it is.
    #[must_use]
    pub fn troubles(&self) -> [(&'static str, bool); 2] {
        let apart = self.known.borrow().apart;
        [("clock", clock(apart).is_some()), ("space", room(&self.state).is_some())]
    }

    /// What somebody on this host should know.
    #[must_use]
    pub fn problems_here(&self) -> Vec<Problem> {
        let link = self.known.borrow().link.clone();
        link.into_iter().chain(self.problems()).collect()
    }
}

fn apart(theirs: i64, now: SystemTime) -> (Duration, bool) {
    let theirs = UNIX_EPOCH + Duration::from_secs(u64::try_from(theirs).unwrap_or_default());
    now.duration_since(theirs).map_or_else(|behind| (behind.duration(), false), |ahead| (ahead, true))
}

fn clock(apart: Option<(Duration, bool)>) -> Option<Problem> {
    let (apart, ahead) = apart.filter(|(apart, _)| *apart > TOO_FAR)?;
    let (apart, side) = (text::duration(apart), if ahead { "ahead of" } else { "behind" });
    Some(
        Problem::new(Code(543), format!("this host's clock is {apart} {side} the coordinator's"))
            .help("timedatectl set-ntp true on both machines: certificates have dates"),
    )
}

fn room(state: &std::path::Path) -> Option<Problem> {
    let disk = rustix::fs::statvfs(state).ok()?;
    little_room([(disk.f_bavail, disk.f_blocks), (disk.f_favail, disk.f_files)]).map(|[space, files]| {
        Problem::new(Code(544), "the disk of this host's state folder is nearly full")
            .saw(state.display().to_string(), format!("free are {space} % of its space and {files} % of its files"))
            .help("make room there: the next release, or what this host must remember, will not fit")
    })
}

/// The free shares in percent, of space and of files, when one of them is too small.
fn little_room(free: [(u64, u64); 2]) -> Option<[u64; 2]> {
    let shares = free.map(|(free, of)| free.saturating_mul(100).checked_div(of).unwrap_or(100));
    shares.iter().any(|share| *share < LITTLE_ROOM).then_some(shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_only_told_when_it_is_far_off_and_which_way() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(clock(None), None);
        assert_eq!(clock(Some(apart(1_000_100, now))), None);
        let behind = clock(Some(apart(1_003_600, now))).unwrap();
        assert_eq!((behind.code, behind.what.as_str()), (Code(543), "this host's clock is 1 h behind the coordinator's"));
        assert!(clock(Some(apart(1_000_000 - 31_536_000, now))).unwrap().what.contains("ahead of"));
    }

    #[test]
    fn a_disk_is_told_when_little_is_left_of_its_space_or_its_files() {
        assert_eq!(little_room([(50, 100), (0, 0)]), None, "a file system without a number of files");
        assert_eq!(little_room([(1, 100), (90, 100)]), Some([1, 90]));
        assert_eq!(little_room([(30, 100), (1, 1000)]), Some([30, 0]));
    }

    #[test]
    fn that_nobody_answers_is_for_this_host_alone() {
        let folder = tempfile::tempdir().unwrap();
        let condition = Condition::new(folder.path().to_owned());
        let before = condition.problems_here();
        let session = condition.clone();
        session.lost(&Problem::new(Code(504), "expired"));
        assert_eq!(condition.problems_here().len(), before.len() + 1, "clones share what is known");
        assert_eq!(condition.problems(), before);
        session.connected();
        assert_eq!(condition.problems_here(), before);
    }
}
