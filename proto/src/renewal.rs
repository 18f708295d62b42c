//! Another certificate in time: the client's half, the same for hosts and operators.

use crate::problem::{code, from_status};
use crate::tls::{Credentials, channel, client_config, hot};
use crate::v1::enrollment_client::EnrollmentClient;
use crate::v1::{GreetRequest, RenewRequest};
use baton_core::problem::Problem;

/// Asks for a certificate for a new key, and proves that it works before anybody relies on it.
///
/// Both calls have connections of their own: the first shows the newest certificate there is, whatever an older connection
/// once showed, and the second shows the new one. What is returned was accepted by the coordinator; the old certificate
/// stays good until it ends.
///
/// # Errors
/// The coordinator's refusal, or what is wrong with the way to it. The old certificate is untouched then.
pub async fn renew(
    endpoint: &str,
    credentials: &Credentials,
    key_pem: String,
    csr_pem: String,
) -> Result<Credentials, Problem> {
    let dial = |credentials: &Credentials| {
        Ok::<_, Problem>(EnrollmentClient::new(channel(endpoint, hot(client_config(credentials)?))?))
    };
    let reply =
        dial(credentials)?.renew(RenewRequest { csr_pem }).await.map_err(|status| from_status(&status))?.into_inner();
    let renewed = Credentials { certificate_pem: reply.certificate_pem, key_pem, authority_pem: reply.authority_pem };
    let greeting = dial(&renewed)?.greet(GreetRequest {}).await.map_err(|status| from_status(&status))?.into_inner();
    let mine = credentials.subject()?.identity.to_string();
    if greeting.identity == mine {
        return Ok(renewed);
    }
    Err(Problem::new(code::CREDENTIALS, "the renewed certificate is somebody else's")
        .saw("asked as", mine)
        .saw("answered", greeting.identity))
}
