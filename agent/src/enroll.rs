//! Joining: the key is made here and never leaves; the token pins whom to believe.

use crate::config::Config;
use crate::durable;
use baton_core::problem::{Code, Problem};
use baton_proto::problem::from_status;
use baton_proto::tls::{Credentials, channel, hot, joining_config};
use baton_proto::token::JoinToken;
use baton_proto::v1::JoinRequest;
use baton_proto::v1::enrollment_client::EnrollmentClient;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

/// What becomes of a host that has the name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Then this machine does not join.
    New,
    /// This machine takes its place, where the token allows it.
    Replace,
}

/// Joins the coordinator at `endpoint` and keeps what it gives. Returns the identity, such as `host/web1`.
///
/// # Errors
/// The coordinator's refusal, what is wrong with the way to it, or with this disk.
pub async fn join(config: &Config, endpoint: &str, token: &JoinToken, claim: Claim) -> Result<String, Problem> {
    let kept = |error: std::io::Error| {
        Problem::new(Code(604), format!("the state folder cannot be used: {}", crate::text::io_error(&error)))
            .saw("state", config.state.display().to_string())
    };
    crate::state_folder(&config.state).map_err(kept)?;
    let (key_pem, csr_pem) = key_and_request()?;
    let name = config.name.clone().map_or_else(host_name, Ok)?;
    let channel = channel(endpoint, hot(joining_config(token.pin)?))?;
    let request = JoinRequest {
        secret: token.secret.to_vec(),
        csr_pem,
        name,
        replace: claim == Claim::Replace,
        bearer: "host".to_owned(),
    };
    let reply = EnrollmentClient::new(channel).join(request).await.map_err(|status| from_status(&status))?.into_inner();
    let credentials = Credentials { certificate_pem: reply.certificate_pem, key_pem, authority_pem: reply.authority_pem };
    credentials.save(&config.identity())?;
    durable::replace(&config.endpoint_file(), format!("{endpoint}\n").as_bytes()).map_err(kept)?;
    Ok(reply.identity)
}

pub(crate) fn key_and_request() -> Result<(String, String), Problem> {
    let failed = |error: rcgen::Error| Problem::new(Code(532), format!("no key could be made: {error}"));
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::default();
    // Only the public key is believed; a name here would be nothing but noise.
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).and_then(|request| request.pem()).map_err(failed)?;
    Ok((key.serialize_pem(), request))
}

/// The short name of this machine.
fn host_name() -> Result<String, Problem> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    match name.split('.').next() {
        Some(name) if !name.is_empty() && name != "localhost" => Ok(name.to_owned()),
        _ => {
            Err(Problem::new(Code(533), "this machine has no name of its own")
                .help("say which one it should have: --name NAME"))
        }
    }
}
