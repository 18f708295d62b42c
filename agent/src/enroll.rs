//! Joining: the key is made here and never leaves; the token pins whom to believe.

use crate::config::Config;
use crate::durable;
use baton_core::problem::{Code, Problem};
use baton_proto::problem::from_status;
use baton_proto::tls::{Credentials, channel, hot, joining_config};
use baton_proto::token::{InvalidToken, JoinToken};
use baton_proto::v1::JoinRequest;
use baton_proto::v1::enrollment_client::EnrollmentClient;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use std::fs;
use std::path::{Path, PathBuf};

/// Reads a join token from the file that holds it.
///
/// # Errors
/// B0546: there is none in it. It never shows what is: half a token is still half a secret.
pub fn token(file: &Path) -> Result<JoinToken, Problem> {
    let refuse = |what: &str, seen: String| {
        Problem::new(Code(546), format!("{} {what}", file.display()))
            .saw("seen", seen)
            .help("`baton token create` at the coordinator shows a token once: write it into this file, and nothing else")
    };
    let text = fs::read_to_string(file).map_err(|error| refuse("cannot be read", crate::text::io_error(&error)))?;
    if text.trim().is_empty() {
        return Err(refuse("holds no join token", "the file is empty".to_owned()));
    }
    text.parse().map_err(|error: InvalidToken| refuse("holds no join token", error.to_string()))
}

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
    // Made before the token is spent: whether this disk can keep what it brings is known then.
    let folders = [config.state.join("run"), config.identity(), config.state.clone()];
    let made: Vec<PathBuf> = folders.into_iter().filter(|folder| !folder.exists()).collect();
    let room = || Ok(Credentials::can_be_kept(&config.identity())?);
    let joined = match crate::state_folder(&config.state).map_err(kept).and_then(|()| room()) {
        Ok(()) => ask(config, endpoint, token, claim).await,
        Err(problem) => Err(problem),
    };
    if joined.is_err() {
        // Only what is empty goes.
        made.iter().for_each(|folder| drop(fs::remove_dir(folder)));
    }
    let (credentials, identity) = joined?;
    credentials.save(&config.identity())?;
    durable::replace(&config.endpoint_file(), format!("{endpoint}\n").as_bytes()).map_err(kept)?;
    Ok(identity)
}

async fn ask(config: &Config, endpoint: &str, token: &JoinToken, claim: Claim) -> Result<(Credentials, String), Problem> {
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
    Ok((credentials, reply.identity))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_machine_that_did_not_join_has_nothing_left_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { state: folder.path().join("state"), name: Some("web1".into()), ..Config::default() };
        let nobody = crate::places::place().to_string();
        let token = JoinToken { pin: [1; 32], secret: [2; 32] };
        assert!(join(&config, &nobody, &token, Claim::New).await.is_err());
        assert!(!config.state.exists());
        // What was there before stays.
        fs::create_dir(&config.state).unwrap();
        assert!(join(&config, &nobody, &token, Claim::New).await.is_err());
        assert_eq!(fs::read_dir(&config.state).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn whether_a_certificate_can_be_kept_is_known_before_the_token_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { state: folder.path().join("state"), name: Some("web1".into()), ..Config::default() };
        fs::create_dir(&config.state).unwrap();
        // Root writes everywhere, but not into what is no folder.
        fs::write(config.identity(), "in the way").unwrap();
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = nobody.local_addr().unwrap().to_string();
        let token = JoinToken { pin: [1; 32], secret: [2; 32] };
        assert_eq!(join(&config, &endpoint, &token, Claim::New).await.unwrap_err().code, Code(513));
        nobody.set_nonblocking(true).unwrap();
        assert!(nobody.accept().is_err(), "the coordinator was asked");
        assert_eq!(fs::read_to_string(config.identity()).unwrap(), "in the way");
    }

    #[test]
    fn a_file_without_a_token_says_what_is_in_it_and_shows_nothing_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let refused = |seen: &str| {
            let problem = token(&file).unwrap_err();
            let said = format!("{problem:?}");
            assert!(problem.code == Code(546) && problem.help.is_some() && problem.seen[0].1.contains(seen), "{said}");
            said
        };
        refused("no such file");
        fs::write(&file, " \n").unwrap();
        refused("the file is empty");
        fs::write(&file, "hunter2").unwrap();
        assert!(!refused("starts with `baton1.`").contains("hunter2"));
        fs::write(&file, "baton1.hunter2").unwrap();
        assert!(!refused("cut short").contains("hunter2"));
        fs::write(&file, [0xff, 0xfe]).unwrap();
        refused("valid UTF-8");
        let good = JoinToken { pin: [1; 32], secret: [2; 32] };
        fs::write(&file, format!("{good}\n")).unwrap();
        assert_eq!(token(&file).unwrap(), good);
    }
}
