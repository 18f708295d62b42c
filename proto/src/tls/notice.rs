//! That a coordinator leads to other authorities than those its peer believes: its chain says so in every handshake.

use super::credentials::pin;
use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use x509_parser::parse_x509_certificate;

/// Set by handshakes, looked at afterwards. Copies are one.
#[derive(Debug, Clone, Default)]
pub struct Notice(Arc<AtomicBool>);

impl Notice {
    /// Whether a coordinator that was believed leads to other authorities.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Compares what a coordinator sent behind its own certificate with what is believed, in the order of both.
    pub(super) fn compare(&self, sent: &[CertificateDer<'_>], believed: &[[u8; 32]]) {
        if authorities(sent) != believed {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// The authorities of a chain: what stands in front of another one of its name is the word of the authority before for it.
fn authorities(sent: &[CertificateDer<'_>]) -> Vec<[u8; 32]> {
    let named: Vec<_> = sent
        .iter()
        .map(|certificate| {
            let name = parse_x509_certificate(certificate).ok().map(|(_, parsed)| parsed.subject().as_raw().to_vec());
            (name, pin(certificate))
        })
        .collect();
    let again = |at: usize, name: &Option<Vec<u8>>| named.iter().skip(at + 1).any(|(later, _)| later == name);
    named.iter().enumerate().filter(|(at, (name, _))| !again(*at, name)).map(|(_, (_, pin))| *pin).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};

    fn wish(name: &str) -> CertificateParams {
        let mut wish = CertificateParams::default();
        wish.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        wish.distinguished_name = DistinguishedName::new();
        wish.distinguished_name.push(DnType::CommonName, name);
        wish
    }

    #[test]
    fn a_chain_that_leads_to_what_is_believed_is_nothing_new_and_any_other_is() {
        let (old_key, new_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let [old, new] =
            [("old", &old_key), ("new", &new_key)].map(|(name, key)| wish(name).self_signed(key).unwrap().der().clone());
        let signer = wish("old");
        let issuer = Issuer::from_params(&signer, &old_key);
        let cross = wish("new").signed_by(&new_key, &issuer).unwrap().der().clone();
        let [old_pin, new_pin] = [&old, &new].map(pin);
        let noticed = |sent: &[&CertificateDer<'static>], believed: &[[u8; 32]]| {
            let notice = Notice::default();
            notice.compare(&sent.iter().map(|&one| one.clone()).collect::<Vec<_>>(), believed);
            notice.is_set()
        };
        let during = [&cross, &new, &old];
        assert!(!noticed(&[&old], &[old_pin]));
        assert!(noticed(&during, &[old_pin]));
        assert!(!noticed(&during, &[new_pin, old_pin]), "the word of the old one for the new one is no authority");
        assert!(noticed(&[&new], &[new_pin, old_pin]), "the old one was retired");
        assert!(!noticed(&[&new], &[new_pin]));
    }
}
