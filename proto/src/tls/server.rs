//! The coordinator's side of TLS.

use super::verify::PeerVerifier;
use super::{ALPN, Credentials, TlsError, VERSIONS, provider};
use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use std::sync::Arc;

/// What a coordinator serves with.
///
/// A peer may come without a certificate (it may then only join: the role table decides); one that it shows must chain to
/// the authority and name an identity, or the handshake fails. The chain that is sent ends in the authority, for those who
/// know no more of it than its hash.
///
/// # Errors
/// When the credentials cannot be read, or the key is not the certificate's.
pub fn server_config(credentials: &Credentials) -> Result<Arc<ServerConfig>, TlsError> {
    let chains = WebPkiClientVerifier::builder_with_provider(credentials.roots()?, provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)?
        .with_client_cert_verifier(Arc::new(PeerVerifier { chains }))
        .with_single_cert(credentials.chain_to_authority()?, credentials.key()?)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}
