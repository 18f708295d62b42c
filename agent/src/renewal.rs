//! This host's certificate renews itself: a new key, proved before it is kept, and no stream is touched.

use crate::enroll::key_and_request;
use baton_core::problem::Problem;
use baton_proto::identity::Subject;
use baton_proto::renewal::renew;
use baton_proto::tls::{Credentials, Hot, client_config};
use rustls::ClientConfig;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest sleep: the wall clock may jump while this waits.
const LOOK_AFTER_MAX: Duration = Duration::from_secs(3600);
const LOOK_AFTER_MIN: Duration = Duration::from_millis(200);
/// Of what is left of a certificate's life, the share until a failed renewal is tried again.
const TRIES: u64 = 20;
/// Of the life of a certificate, the share over which hosts that joined together are spread.
const SPREAD: i64 = 20;

/// Renews the certificate in a folder for ever, each time it has lived two thirds of its life.
pub async fn run(endpoint: String, folder: PathBuf, hot: Hot<ClientConfig>) {
    let mut told = None;
    loop {
        match once(&endpoint, &folder, &hot).await {
            Ok(wait) => {
                told = None;
                tokio::time::sleep(wait.clamp(LOOK_AFTER_MIN, LOOK_AFTER_MAX)).await;
            }
            Err((problem, wait)) => {
                // Once for each reason: a coordinator may be away for weeks.
                if told.replace(problem.code) != Some(problem.code) {
                    tracing::warn!(%problem, "this host's certificate was not renewed yet");
                }
                tokio::time::sleep(wait.clamp(LOOK_AFTER_MIN, LOOK_AFTER_MAX)).await;
            }
        }
    }
}

/// Renews when it is time; says when to look again.
async fn once(endpoint: &str, folder: &Path, hot: &Hot<ClientConfig>) -> Result<Duration, (Problem, Duration)> {
    let unreadable = |problem| (problem, LOOK_AFTER_MAX);
    let credentials = Credentials::load(folder).map_err(|error| unreadable(error.into()))?;
    let subject = credentials.subject().map_err(|error| unreadable(error.into()))?;
    let now = now();
    let due = due(&subject);
    if now < due {
        return Ok(Duration::from_secs(u64::try_from(due - now).unwrap_or(0)));
    }
    let left = u64::try_from(subject.not_after - now).unwrap_or(0);
    let again = Duration::from_millis(left.saturating_mul(1000) / TRIES);
    let renewed = async {
        let (key, request) = key_and_request()?;
        let renewed = renew(endpoint, &credentials, key, request).await?;
        let config = client_config(&renewed)?;
        renewed.save(folder)?;
        Ok::<_, Problem>((renewed.subject()?, config))
    };
    let (subject, config) = renewed.await.map_err(|problem| (problem, again))?;
    hot.store(config);
    tracing::info!(serial = subject.serial, until = subject.not_after, "this host's certificate was renewed");
    Ok(LOOK_AFTER_MIN)
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
