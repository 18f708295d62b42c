//! This host's certificate renews itself: a new key, proved before it is kept, and no stream is touched.

use super::waits::Waits;
use crate::enroll::key_and_request;
use baton_core::problem::Problem;
use baton_proto::identity::Subject;
use baton_proto::renewal::{kept, renew};
use baton_proto::tls::{Credentials, Hot, authority_pins, client_config, refuses_identity};
use rustls::ClientConfig;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// The longest sleep: the wall clock may jump while this waits.
const LOOK_AFTER_MAX: Duration = Duration::from_secs(3600);
const LOOK_AFTER_MIN: Duration = Duration::from_millis(200);
/// Of what is left of a certificate's life, the share until a failed renewal is tried again.
const TRIES: u64 = 20;
/// Until it is tried again to move to another authority: somebody waits to retire the one before.
const MOVE_AGAIN: Duration = Duration::from_secs(20);
/// Of the life of a certificate, the share over which hosts that joined together are spread.
const SPREAD: i64 = 20;

/// From when until when a certificate is good, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) not_before: i64,
    pub(super) not_after: i64,
}

/// Renews the certificate in a folder for ever: each time it has lived two thirds of its life, and when the coordinator says
/// that others are to be believed. `life` is that of the one that is kept.
pub(super) async fn run(
    endpoint: String,
    folder: PathBuf,
    hot: Hot<ClientConfig>,
    mut told: watch::Receiver<Vec<[u8; 32]>>,
    life: &watch::Sender<Option<Life>>,
) {
    let mut renewal = Renewal { endpoint, folder, hot, life, followed: Vec::new(), unsaid: false };
    let (mut complained, mut waits) = (None, Waits::new());
    loop {
        let authorities = told.borrow_and_update().clone();
        let wait = match renewal.once(authorities).await {
            Ok(wait) => {
                (complained, waits) = (None, Waits::new());
                wait
            }
            Err((problem, wait)) => {
                // Once for each reason: a coordinator may be away for weeks.
                if complained.replace(problem.code) != Some(problem.code) {
                    tracing::warn!(%problem, "this host's certificate was not renewed yet");
                }
                // Of one that has ended nothing is left to take a share of.
                if refuses_identity(&problem) { wait.max(waits.after(&problem)) } else { wait }
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait.clamp(LOOK_AFTER_MIN, LOOK_AFTER_MAX)) => {}
            Ok(()) = told.changed() => {}
        }
    }
}

struct Renewal<'a> {
    endpoint: String,
    folder: PathBuf,
    hot: Hot<ClientConfig>,
    life: &'a watch::Sender<Option<Life>>,
    /// What the coordinator said when a renewal followed it. Whatever came of that, it is not followed twice.
    followed: Vec<[u8; 32]>,
    /// The coordinator has not heard yet that the newest certificate is kept.
    unsaid: bool,
}

impl Renewal<'_> {
    /// Renews when it is time; says when to look again.
    async fn once(&mut self, told: Vec<[u8; 32]>) -> Result<Duration, (Problem, Duration)> {
        let unreadable = |problem| (problem, LOOK_AFTER_MAX);
        let credentials = Credentials::load(&self.folder).map_err(|error| unreadable(error.into()))?;
        if self.unsaid {
            kept(&self.endpoint, &credentials).await.map_err(|problem| (problem, MOVE_AGAIN))?;
            self.unsaid = false;
        }
        let subject = credentials.subject().map_err(|error| unreadable(error.into()))?;
        let life = Life { not_before: subject.not_before, not_after: subject.not_after };
        self.life.send_if_modified(|known| known.replace(life) != Some(life));
        let believed = authority_pins(&credentials.authority_pem).map_err(|error| unreadable(error.into()))?;
        let moves = !told.is_empty() && told != believed && told != self.followed;
        let (now, due) = (now(), due(&subject));
        if now < due && !moves {
            return Ok(Duration::from_secs(u64::try_from(due - now).unwrap_or(0)));
        }
        let left = Duration::from_secs(u64::try_from(subject.not_after - now).unwrap_or(0));
        let again = Duration::from_millis(u64::try_from(left.as_millis()).unwrap_or(u64::MAX) / TRIES);
        let again = if moves { again.min(MOVE_AGAIN) } else { again };
        let (subject, config) = self.renewed(&credentials).await.map_err(|problem| (problem, again))?;
        self.hot.store(config);
        (self.followed, self.unsaid) = (told, true);
        tracing::info!(serial = subject.serial, until = subject.not_after, "this host's certificate was renewed");
        // At once, to say so.
        Ok(LOOK_AFTER_MIN)
    }

    async fn renewed(&self, credentials: &Credentials) -> Result<(Subject, std::sync::Arc<ClientConfig>), Problem> {
        let (key, request) = key_and_request()?;
        let renewed = renew(&self.endpoint, credentials, key, request).await?;
        let config = client_config(&renewed)?;
        renewed.save(&self.folder)?;
        Ok((renewed.subject()?, config))
    }
}

/// A little before two thirds, by its own serial number: hosts that joined together do not all come back together.
fn due(subject: &Subject) -> i64 {
    let spread = (subject.not_after - subject.not_before) / SPREAD;
    let place = subject.serial.bytes().fold(0_i64, |sum, byte| (sum * 31 + i64::from(byte)) % 1_000);
    subject.renew_at() - spread * place / 1_000
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_joined_together_renew_apart_and_never_late() {
        let subject = |serial: String| Subject {
            identity: "host/web1".parse().unwrap(),
            services: Vec::new(),
            issuer: Vec::new(),
            serial,
            not_before: 0,
            not_after: 90 * 24 * 3600,
        };
        let dues: std::collections::BTreeSet<i64> = (0..100).map(|n| due(&subject(format!("{:x}", n * 7919)))).collect();
        assert!(dues.len() > 50, "{dues:?}");
        let (first, last) = (*dues.first().unwrap(), *dues.last().unwrap());
        assert!(first > 55 * 24 * 3600 && last <= 60 * 24 * 3600, "{first} to {last}");
    }
}
