//! The agents' and operators' side of TLS.

use super::verify::{CoordinatorVerifier, Trust};
use super::{ALPN, Credentials, Notice, TlsError, VERSIONS, authority_pins, provider};
use rustls::client::{Resumption, WantsClientCert};
use rustls::{ClientConfig, ConfigBuilder};
use std::sync::Arc;

/// What a host or an operator connects with.
///
/// The other side must chain to the authority and name itself a coordinator. Its DNS name is not looked at: machines move
/// between names and addresses, and only the authority makes coordinators.
///
/// # Errors
/// When the credentials cannot be read, or the key is not the certificate's.
pub fn client_config(credentials: &Credentials) -> Result<Arc<ClientConfig>, TlsError> {
    noticing_config(credentials, Notice::default())
}

/// The same, and what the coordinator's chain says of its authorities is noticed.
///
/// # Errors
/// As [`client_config`].
pub fn noticing_config(credentials: &Credentials, notice: Notice) -> Result<Arc<ClientConfig>, TlsError> {
    let believed = authority_pins(&credentials.authority_pem)?;
    let builder = builder(Trust::Authorities { roots: credentials.roots()?, believed, notice })?;
    Ok(finish(builder.with_client_auth_cert(credentials.chain()?, credentials.key()?)?))
}

/// What a machine joins with: no certificate yet, and of the authority only the hash that its token carries.
///
/// # Errors
/// Only when the cryptography cannot do TLS 1.3, which it can.
pub fn joining_config(pin: [u8; 32]) -> Result<Arc<ClientConfig>, TlsError> {
    Ok(finish(builder(Trust::Pin(pin))?.with_no_client_auth()))
}

fn builder(trust: Trust) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsError> {
    let provider = provider();
    let verifier = CoordinatorVerifier { trust, algorithms: provider.signature_verification_algorithms };
    Ok(ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier)))
}

fn finish(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    // The name is not verified, so nobody on the way needs to read it.
    config.enable_sni = false;
    Arc::new(config)
}
