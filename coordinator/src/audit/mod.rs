//! The audit log: who did what, from where, and what it changed; append-only and hash-chained.
//!
//! The gate records every call that changes something, accepted or refused, and every refusal of any other. What a method
//! changed it notes itself ([`call`]). The head of the chain goes to the agents, who keep it on their own disks ([`chain`]).

pub mod call;
pub mod chain;
pub mod loss;
mod repeated;

use crate::identity::wall_time;
use crate::store::{Store, StoreError};
use baton_core::problem::Problem;
use baton_proto::identity::Identity;
use baton_proto::tls::Peer;
use call::Note;
use chain::{Check, Entry, Head, Record, Verdict, Witness};
use loss::Loss;
use repeated::Repeated;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Refusals of callers without a certificate that are recorded in one [`WINDOW`]: anybody can cause them, and nobody should be
/// able to fill a disk with them. The rest is counted.
const STRANGERS: u32 = 60;
const WINDOW: Duration = Duration::from_secs(60);

/// Of each text of an entry that a caller chose.
const TEXT_MAX: usize = 500;
/// Of each side of a change.
const CHANGE_MAX: usize = 16 * 1024;

/// Where whoever needs no network comes from.
pub const LOCAL: &str = "local";

/// Records that are read at once.
const PAGE: u32 = 500;

/// Where calls are recorded.
pub struct Audit {
    store: Arc<dyn Store>,
    head: watch::Sender<Head>,
    strangers: Mutex<Strangers>,
    repeated: Mutex<Repeated>,
}

#[derive(Debug)]
struct Strangers {
    since: Instant,
    recorded: u32,
    left_out: u32,
}

impl Audit {
    /// Goes on where the log ends.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn open(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let head = store.audit_head().await?;
        let strangers = Strangers { since: Instant::now(), recorded: 0, left_out: 0 };
        Ok(Self { store, head: watch::Sender::new(head), strangers: Mutex::new(strangers), repeated: Mutex::default() })
    }

    /// The head, now and whenever it moves.
    #[must_use]
    pub fn heads(&self) -> watch::Receiver<Head> {
        self.head.subscribe()
    }

    /// Records a call. A failure is logged: the call was carried out, and whoever made it has an answer.
    pub async fn record(&self, peer: &Peer, path: &str, refusal: Option<&Problem>, note: Note) {
        let mut entry = Entry {
            who: peer.identity.to_string(),
            from: from(peer),
            call: shortened(path.trim_start_matches("/baton.v1."), TEXT_MAX),
            about: shortened(&note.about, TEXT_MAX),
            why: shortened(&note.why, TEXT_MAX),
            refused: refusal.map(|problem| shortened(&problem.to_string(), TEXT_MAX)),
            before: shortened(&note.before, CHANGE_MAX),
            after: shortened(&note.after, CHANGE_MAX),
        };
        if refusal.is_some() {
            let admitted = match peer.identity {
                Identity::Anonymous => self.admit_stranger(),
                _ => self.repeated.lock().unwrap_or_else(PoisonError::into_inner).admit(&entry, WINDOW),
            };
            match admitted {
                None => return,
                Some(0) => {}
                Some(left_out) => entry.why = format!("and {left_out} more refusals like this, which are not listed"),
            }
        }
        match self.store.append(wall_time(), &entry).await {
            Ok(head) => self.moved_to(head),
            Err(error) => tracing::error!(%error, ?entry, "a call was not recorded"),
        }
    }

    /// Whether another refusal of a stranger is recorded, and how many were left out before it.
    fn admit_stranger(&self) -> Option<u32> {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        if strangers.since.elapsed() > WINDOW {
            *strangers = Strangers { since: Instant::now(), recorded: 0, left_out: strangers.left_out };
        }
        if strangers.recorded >= STRANGERS {
            strangers.left_out += 1;
            return None;
        }
        strangers.recorded += 1;
        Some(std::mem::take(&mut strangers.left_out))
    }

    fn moved_to(&self, head: Head) {
        self.head.send_if_modified(|known| {
            let newer = head.number > known.number;
            if newer {
                *known = head;
            }
            newer
        });
    }

    /// Entries after a number, oldest first; as many as fit in one page.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn after(&self, number: u64) -> Result<Vec<Record>, StoreError> {
        self.store.audit(number, PAGE).await
    }

    /// Puts on the record, at a peer's word, that something is lost; from then on that is no fault.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn accept(&self, peer: &Peer, loss: &Loss, why: &str) -> Result<(), StoreError> {
        for entry in loss.entries(&shortened(why, TEXT_MAX)) {
            let entry = Entry { who: peer.identity.to_string(), from: from(peer), ..entry };
            // Also where it is lower than the one that is held here: that one is lost.
            self.head.send_replace(self.store.append(wall_time(), &entry).await?);
        }
        Ok(())
    }

    /// Checks the whole log, against what this coordinator and the agents remember of it.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn verify(&self, mut witnesses: Vec<Witness>) -> Result<Verdict, StoreError> {
        witnesses.push(Witness { name: "this coordinator".to_owned(), head: *self.head.borrow() });
        let mut check = Check::new(witnesses);
        let mut last = 0;
        loop {
            let page = self.after(last).await?;
            page.iter().for_each(|record| check.take(record));
            match page.last() {
                Some(record) if page.len() == PAGE as usize => last = record.number,
                _ => return Ok(check.finish()),
            }
        }
    }
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audit").field("head", &*self.head.borrow()).finish_non_exhaustive()
    }
}

/// Where a call comes from.
fn from(peer: &Peer) -> String {
    peer.remote.map_or_else(|| LOCAL.to_owned(), |remote| remote.ip().to_canonical().to_string())
}

fn shortened(text: &str, max: usize) -> String {
    match text.len() <= max {
        true => text.to_owned(),
        false => format!("{}…", &text[..text.floor_char_boundary(max)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;
    use baton_core::problem::Code;

    fn stranger() -> Peer {
        Peer::bare(Identity::Anonymous, None)
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_cannot_fill_the_log_and_are_counted() {
        let audit = Audit::open(Arc::new(MemoryStore::default())).await.unwrap();
        let refusal = Problem::new(Code(510), "who are you?");
        for _ in 0..STRANGERS * 3 {
            audit.record(&stranger(), "/baton.v1.Control/Deploy", Some(&refusal), Note::default()).await;
        }
        assert_eq!(audit.after(0).await.unwrap().len(), STRANGERS as usize);
        tokio::time::advance(WINDOW + Duration::from_secs(1)).await;
        audit.record(&stranger(), "/baton.v1.Control/Deploy", Some(&refusal), Note::default()).await;
        let last = audit.after(u64::from(STRANGERS)).await.unwrap();
        assert!(last[0].text.contains("120 more refusals"), "{}", last[0].text);
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_caller_is_refused_again_and_again_is_one_entry_a_minute_with_their_number() {
        let audit = Audit::open(Arc::new(MemoryStore::default())).await.unwrap();
        let peer = |name: &str| Peer::bare(name.parse().unwrap(), None);
        let revoked = Problem::new(Code(507), "not accepted any more");
        let refuse = async |peer: Peer, path: &str, problem: &Problem, about: &str| {
            let note = Note { about: about.into(), ..Note::default() };
            audit.record(&peer, path, Some(problem), note).await;
        };
        for _ in 0..20 {
            refuse(peer("host/web1"), "/baton.v1.AgentLink/Connect", &revoked, "").await;
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(audit.after(0).await.unwrap().len(), 1);
        // Of somebody else, of another call, about something else, for another reason.
        refuse(peer("host/web2"), "/baton.v1.AgentLink/Connect", &revoked, "").await;
        refuse(peer("host/web1"), "/baton.v1.Enrollment/Greet", &revoked, "").await;
        refuse(peer("host/web1"), "/baton.v1.AgentLink/Connect", &revoked, "shop").await;
        refuse(peer("host/web1"), "/baton.v1.AgentLink/Connect", &Problem::new(Code(510), "who?"), "").await;
        assert_eq!(audit.after(0).await.unwrap().len(), 5);
        tokio::time::advance(WINDOW).await;
        refuse(peer("host/web1"), "/baton.v1.AgentLink/Connect", &revoked, "").await;
        let last = audit.after(5).await.unwrap();
        assert!(last.len() == 1 && last[0].text.contains("and 19 more refusals like this"), "{last:?}");
        // What is let through is recorded each time.
        for _ in 0..3 {
            audit.record(&peer("admin/ana"), "/baton.v1.Control/Pause", None, Note::default()).await;
        }
        assert_eq!(audit.after(6).await.unwrap().len(), 3);
    }

    #[tokio::test]
    async fn what_a_caller_says_is_kept_short() {
        let audit = Audit::open(Arc::new(MemoryStore::default())).await.unwrap();
        let note = Note { about: "가".repeat(10_000), after: "x".repeat(100_000), ..Note::default() };
        audit.record(&stranger(), "/baton.v1.Control/Deploy", None, note).await;
        assert!(audit.after(0).await.unwrap()[0].text.len() < CHANGE_MAX + 4 * TEXT_MAX);
    }
}
