//! Another certificate in time: the client's half, the same for hosts and operators.

use crate::problem::{code, from_status};
use crate::tls::{Credentials, channel, client_config, hot};
use crate::v1::enrollment_client::EnrollmentClient;
use crate::v1::{GreetRequest, KeptRequest, RenewRequest};
use baton_core::problem::Problem;
use tonic::transport::Channel;

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
    let mut enrollment = dial(endpoint, credentials)?;
    let reply = enrollment.renew(RenewRequest { csr_pem }).await.map_err(|status| from_status(&status))?.into_inner();
    let renewed = Credentials { certificate_pem: reply.certificate_pem, key_pem, authority_pem: reply.authority_pem };
    let greeted = dial(endpoint, &renewed)?.greet(GreetRequest {}).await;
    let greeting = greeted.map_err(|status| from_status(&status))?.into_inner();
    let mine = credentials.subject()?.identity.to_string();
    if greeting.identity == mine {
        return Ok(renewed);
    }
    Err(Problem::new(code::CREDENTIALS, "the renewed certificate is somebody else's")
        .saw("asked as", mine)
        .saw("answered", greeting.identity))
}

/// Says that renewed credentials are on disk: those before are not needed any more. An older coordinator need not be told.
///
/// # Errors
/// What is wrong with the way to the coordinator, or its refusal.
pub async fn kept(endpoint: &str, credentials: &Credentials) -> Result<(), Problem> {
    match dial(endpoint, credentials)?.kept(KeptRequest {}).await.map_err(|status| from_status(&status)) {
        Err(problem) if problem.code != code::NOT_UNDERSTOOD => Err(problem),
        _ => Ok(()),
    }
}

fn dial(endpoint: &str, credentials: &Credentials) -> Result<EnrollmentClient<Channel>, Problem> {
    Ok(EnrollmentClient::new(channel(endpoint, hot(client_config(credentials)?))?))
}
