//! The coordinator's own certificate: issued by itself, renewed by itself, long before it ends.

use super::authority::{Authority, Validity, der};
use super::wall_time;
use baton_core::problem::{Code, Problem};
use baton_proto::identity::{Subject, subject};
use baton_proto::tls::{Credentials, Hot, server_config};
use rustls::ServerConfig;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How often the remaining life is looked at, at most and at least: the wall clock may jump.
const LOOK_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// The credentials in a folder, renewed and kept there when they are missing, old, or of another authority.
///
/// # Errors
/// When they can be neither read nor made.
pub fn credentials(authority: &Authority, folder: &Path, during: Validity) -> Result<Credentials, Problem> {
    if let Ok(kept) = Credentials::load(folder)
        && kept.authority_pem == authority.certificate_pem()
        && shown(&kept).is_some_and(|shown| (shown.not_before..shown.renew_at()).contains(&during.now.0))
    {
        return Ok(kept);
    }
    let fresh = authority.issue_server(&host_name(), during)?;
    fresh.save(folder).map_err(|error| {
        Problem::new(Code(1001), "the coordinator's certificate cannot be kept")
            .saw("identity folder", folder.display().to_string())
            .saw("reason", error.to_string())
    })?;
    Ok(fresh)
}

/// Builds what a listener needs from credentials.
///
/// # Errors
/// B1004 when they do not fit together.
pub fn configuration(credentials: &Credentials) -> Result<Arc<ServerConfig>, Problem> {
    server_config(credentials).map_err(|error| {
        Problem::new(Code(1004), "the coordinator's certificate cannot be used").saw("reason", error.to_string())
    })
}

/// Keeps a listener's certificate from ending, without touching open connections.
pub async fn renew(authority: Arc<Authority>, folder: std::path::PathBuf, hot: Hot<ServerConfig>, life: i64) {
    let mut known = None;
    loop {
        let during = Validity { now: wall_time(), life };
        let wait = match credentials(&authority, &folder, during) {
            Ok(fresh) => {
                let subject = shown(&fresh);
                let left = subject.as_ref().map_or(0, |subject| subject.renew_at() - during.now.0);
                let serial = subject.map(|subject| subject.serial);
                if known.replace(serial.clone()) != Some(serial) {
                    match configuration(&fresh) {
                        Ok(fresh) => hot.store(fresh),
                        Err(problem) => tracing::error!(%problem, "the coordinator's certificate cannot be used"),
                    }
                }
                Duration::from_secs(u64::try_from(left).unwrap_or(0))
            }
            Err(problem) => {
                tracing::error!(%problem, "the coordinator's certificate was not renewed");
                LOOK_AFTER.1
            }
        };
        tokio::time::sleep(wait.clamp(LOOK_AFTER.0, LOOK_AFTER.1)).await;
    }
}

fn shown(credentials: &Credentials) -> Option<Subject> {
    subject(&der(&credentials.certificate_pem)?).ok()
}

/// The machine's name where it can stand in a certificate.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    match baton_core::name::OperatorName::new(name) {
        Ok(name) => name.to_string(),
        Err(_) => "main".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::WallTime;

    #[test]
    fn credentials_are_kept_while_they_last_and_renewed_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let now = WallTime(1_800_000_000);
        let at = |days: i64| Validity { now: WallTime(now.0 + days * 24 * 3600), life: 90 * 24 * 3600 };
        let authority = Authority::create(folder.path(), now).unwrap();
        let first = credentials(&authority, folder.path(), at(0)).unwrap();
        let later = at(59);
        assert_eq!(credentials(&authority, folder.path(), later).unwrap().certificate_pem, first.certificate_pem);
        let late = at(61);
        assert_ne!(credentials(&authority, folder.path(), late).unwrap().certificate_pem, first.certificate_pem);
    }
}
