//! How long the certificates of the coordinator itself last. Those of hosts are the agents' to tell.

use crate::identity::authority::der;
use baton_proto::metrics::{Exposition, Kind};
use std::path::{Path, PathBuf};

/// One certificate's life, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    pub certificate: &'static str,
    pub not_before: i64,
    pub not_after: i64,
}

/// The certificates of an identity folder, as they are on disk now: one that cannot be read is not among them.
pub async fn lives(identity: PathBuf) -> Vec<Life> {
    let read = move || {
        let files = [("authority", "authority.pem"), ("next-authority", "rotation.pem"), ("coordinator", "certificate.pem")];
        files.into_iter().filter_map(|(certificate, file)| life(certificate, &identity.join(file))).collect()
    };
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

fn life(certificate: &'static str, path: &Path) -> Option<Life> {
    let der = der(&std::fs::read_to_string(path).ok()?)?;
    let (_, read) = x509_parser::parse_x509_certificate(&der).ok()?;
    let validity = read.validity();
    let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    Some(Life { certificate, not_before, not_after })
}

/// Adds what there is to say about them.
pub fn metrics(out: &mut Exposition, lives: &[Life]) {
    const NOT_BEFORE: &str = "baton_certificate_not_before_timestamp_seconds";
    const NOT_AFTER: &str = "baton_certificate_not_after_timestamp_seconds";
    out.family(NOT_BEFORE, Kind::Gauge, "When a certificate of the coordinator began.");
    out.family(NOT_AFTER, Kind::Gauge, "When a certificate of the coordinator ends.");
    for life in lives {
        let labels = [("certificate", life.certificate)];
        out.sample(NOT_BEFORE, &labels, life.not_before as f64);
        out.sample(NOT_AFTER, &labels, life.not_after as f64);
    }
}
