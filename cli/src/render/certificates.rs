//! Certificates, as a table.

use super::page::{Line, Page, Tone};
use super::table::Table;
use super::units::duration;
use baton_proto::v1::{CertificateList, CertificateView};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[must_use]
pub fn certificates(list: &CertificateList) -> Page {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    at(list, i64::try_from(now).unwrap_or(i64::MAX))
}

fn at(list: &CertificateList, now: i64) -> Page {
    if list.certificates.is_empty() {
        let mut page = Page::new();
        page.text("nobody has joined or logged in yet");
        return page;
    }
    let mut table = Table::new(&["IDENTITY", "SERIAL", "ISSUED", "ENDS", "STATE"]);
    for certificate in &list.certificates {
        table.row(vec![
            Line::of(&certificate.identity),
            Line::of(&certificate.serial),
            Line::of(format!("{} ago", apart(certificate.issued_seconds, now))),
            Line::of(format!("in {}", apart(now, certificate.expires_seconds))),
            state(certificate),
        ]);
    }
    table.page()
}

fn state(certificate: &CertificateView) -> Line {
    match certificate.revoked {
        true => Line::default().span(Tone::Bad, "revoked"),
        false => Line::default().span(Tone::Good, "accepted"),
    }
}

fn apart(from: i64, to: i64) -> String {
    duration(Duration::from_secs(u64::try_from(to.saturating_sub(from)).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::at;
    use crate::render::page::Look;
    use baton_proto::v1::{CertificateList, CertificateView};

    #[test]
    fn a_certificate_says_whose_it_is_and_until_when() {
        let certificate = |serial: &str, revoked| CertificateView {
            serial: serial.into(),
            identity: "host/web1".into(),
            issued_seconds: 1_000,
            expires_seconds: 1_000 + 90 * 86_400,
            revoked,
        };
        let list = CertificateList { certificates: vec![certificate("4a01", true), certificate("4a02", false)] };
        assert_eq!(
            at(&list, 1_000 + 86_400).to_text(Look::default()),
            "IDENTITY    SERIAL   ISSUED    ENDS      STATE\n\
             host/web1   4a01     1 d ago   in 89 d   revoked\n\
             host/web1   4a02     1 d ago   in 89 d   accepted\n"
        );
    }
}
