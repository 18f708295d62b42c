//! The coordinator's own certificate: issued by itself, renewed by itself, long before it ends.

use super::authority::{Validity, der};
use super::rotation::Authorities;
use baton_core::problem::{Code, Problem};
use baton_proto::identity::{Subject, subject};
use baton_proto::tls::{Credentials, server_config};
use rustls::ServerConfig;
use std::path::Path;
use std::sync::Arc;
use x509_parser::pem::Pem;

/// The credentials in a folder, renewed and kept there when they are missing, old, or lead to other authorities.
///
/// # Errors
/// When they can be neither read nor made.
pub fn credentials(authorities: &Authorities, folder: &Path, during: Validity) -> Result<Credentials, Problem> {
    if let Ok(kept) = Credentials::load(folder)
        && lead_to(authorities, &kept)
        && shown(&kept).is_some_and(|shown| (shown.not_before..shown.renew_at()).contains(&during.now.0))
    {
        return Ok(Credentials { authority_pem: authorities.bundle(), ..kept });
    }
    let fresh = authorities.issue_server(&host_name(), during)?;
    keep(&fresh, authorities, folder)?;
    Ok(fresh)
}

/// Keeps credentials in the folder of the authorities. Beside them stands the authority whose key is there, and no other.
pub(super) fn keep(credentials: &Credentials, authorities: &Authorities, folder: &Path) -> Result<(), Problem> {
    let kept = Credentials { authority_pem: authorities.on_disk().to_owned(), ..credentials.clone() };
    kept.save(folder).map_err(|error| {
        Problem::new(Code(1001), "the coordinator's certificate cannot be kept")
            .saw("identity folder", folder.display().to_string())
            .saw("reason", error.to_string())
    })
}

/// Whether one certificate stands in front of exactly the chain that leads to these authorities.
fn lead_to(authorities: &Authorities, kept: &Credentials) -> bool {
    let blocks = |text: &str| -> Vec<Vec<u8>> {
        Pem::iter_from_buffer(text.as_bytes()).filter_map(Result::ok).map(|block| block.contents).collect()
    };
    blocks(&kept.certificate_pem).get(1..).is_some_and(|chain| chain == blocks(&authorities.chain()))
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

fn shown(credentials: &Credentials) -> Option<Subject> {
    subject(&der(&credentials.certificate_pem)?).ok()
}

/// The machine's name where it can stand in a certificate.
pub(super) fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    match baton_core::name::OperatorName::new(name) {
        Ok(name) => name.to_string(),
        Err(_) => "main".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::authority::Authority;
    use super::*;
    use crate::store::WallTime;

    #[test]
    fn credentials_are_kept_while_they_last_and_renewed_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let now = WallTime(1_800_000_000);
        let at = |days: i64| Validity { now: WallTime(now.0 + days * 24 * 3600), life: 90 * 24 * 3600 };
        Authority::create(folder.path(), now).unwrap();
        let authorities = Authorities::load(folder.path()).unwrap();
        let first = credentials(&authorities, folder.path(), at(0)).unwrap();
        let later = at(59);
        assert_eq!(credentials(&authorities, folder.path(), later).unwrap().certificate_pem, first.certificate_pem);
        let late = at(61);
        assert_ne!(credentials(&authorities, folder.path(), late).unwrap().certificate_pem, first.certificate_pem);
    }
}
