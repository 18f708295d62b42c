//! The coordinator's own certificate: issued by itself, renewed by itself, long before it ends.

use super::authority::{Authority, der};
use super::wall_time;
use crate::store::WallTime;
use baton_core::problem::{Code, Problem};
use baton_proto::identity::subject;
use baton_proto::tls::{Credentials, Hot, server_config};
use rustls::ServerConfig;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Renewed when less than this is left, in seconds: a third of its life.
const RENEW_BEFORE: i64 = 30 * 24 * 3600;

/// How often the remaining life is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(12 * 3600);

/// The credentials in a folder, renewed and kept there when they are missing, old, or of another authority.
///
/// # Errors
/// When they can be neither read nor made.
pub fn credentials(authority: &Authority, folder: &Path, now: WallTime) -> Result<Credentials, Problem> {
    if let Ok(kept) = Credentials::load(folder)
        && kept.authority_pem == authority.certificate_pem()
        && expires(&kept).is_some_and(|expires| expires - now.0 > RENEW_BEFORE)
    {
        return Ok(kept);
    }
    let fresh = authority.issue_server(&host_name(), now)?;
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
pub async fn renew(authority: Arc<Authority>, folder: std::path::PathBuf, hot: Hot<ServerConfig>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        match credentials(&authority, &folder, wall_time()).and_then(|fresh| configuration(&fresh)) {
            Ok(fresh) => hot.store(fresh),
            Err(problem) => tracing::error!(%problem, "the coordinator's certificate was not renewed"),
        }
    }
}

fn expires(credentials: &Credentials) -> Option<i64> {
    Some(subject(&der(&credentials.certificate_pem)?).ok()?.not_after)
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

    #[test]
    fn credentials_are_kept_while_they_last_and_renewed_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let now = WallTime(1_800_000_000);
        let authority = Authority::create(folder.path(), now).unwrap();
        let first = credentials(&authority, folder.path(), now).unwrap();
        let later = WallTime(now.0 + 59 * 24 * 3600);
        assert_eq!(credentials(&authority, folder.path(), later).unwrap().certificate_pem, first.certificate_pem);
        let late = WallTime(now.0 + 61 * 24 * 3600);
        assert_ne!(credentials(&authority, folder.path(), late).unwrap().certificate_pem, first.certificate_pem);
    }
}
