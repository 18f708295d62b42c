//! `baton login HOST:PORT --token-file FILE`.

use crate::Context;
use crate::connection::{DEFAULT_SOCKET, Login, config_folder};
use crate::errors::{Failure, code};
use crate::exit::Exit;
use crate::render::page::Page;
use baton_core::problem::Problem;
use baton_proto::tls::{self, Credentials};
use baton_proto::token::{JoinToken, exposed};
use baton_proto::v1::control_client::ControlClient;
use baton_proto::v1::enrollment_client::EnrollmentClient;
use baton_proto::v1::{Identity, JoinRequest, WhoAmIRequest};
use clap::Args;
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use std::io::Read;
use std::path::{Path, PathBuf};

/// More is no token.
const TOKEN_MAX: u64 = 4096;

/// `baton login`.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// The coordinator; without a port its usual one, 7443
    #[arg(value_name = "HOST[:PORT]")]
    pub coordinator: String,
    /// The file that holds the token; `-` for stdin. Never an argument: those can be read by others
    #[arg(long, value_name = "FILE")]
    pub token_file: PathBuf,
    /// What to be called, else as the user is; the coordinator decides
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Take the place of whoever has this name: its certificates are revoked. The token must be for that very name
    #[arg(long)]
    pub replace: bool,
}

/// Redeems a token for a certificate and keeps it. The key is made here and never leaves.
///
/// # Errors
/// When the token is refused, or pins another coordinator.
pub async fn run(args: LoginArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let folder = config_folder()?;
    let coordinator = tls::with_port(&args.coordinator);
    let token = read_token(&args.token_file)?;
    if let Some(warning) = exposed(&args.token_file) {
        context.output.note(Page::new().text(warning));
    }
    // Before the token is spent.
    let made = !folder.exists();
    Credentials::can_be_kept(&folder).map_err(|error| {
        Problem::from(error).help(format!(
            "nothing was asked of the coordinator, so the token is still good: make room for files in {}, or name another folder \
             in BATON_CONFIG_DIR",
            folder.display()
        ))
    })?;
    let joined = join(args, &coordinator, &token).await;
    if joined.is_err() && made {
        // Only what is empty goes.
        let _ = std::fs::remove_dir(&folder);
    }
    let (credentials, me) = joined?;
    Login { coordinator: coordinator.clone(), credentials }.save(&folder)?;

    let output = context.output;
    output.answer(Page::new().text(format!("logged in to {coordinator} as {} ({})", me.name, me.role)));
    output.json(&json!({ "coordinator": coordinator, "role": me.role, "name": me.name, "folder": folder }));
    if Path::new(DEFAULT_SOCKET).exists() {
        output.note(Page::new().text(format!("on this machine {DEFAULT_SOCKET} is asked first")));
    }
    output.next("baton status");
    Ok(Exit::Done)
}

/// Redeems the token, and tries what it gave.
async fn join(args: LoginArgs, coordinator: &str, token: &JoinToken) -> Result<(Credentials, Identity), Failure> {
    let (key_pem, csr_pem) =
        request().map_err(|error| Problem::new(code::LOGIN, "no key could be made").saw("cause", error.to_string()))?;
    let pinned = tls::hot(tls::joining_config(token.pin).map_err(Problem::from)?);
    let mut enrollment = EnrollmentClient::new(tls::channel(coordinator, pinned)?);
    let join = JoinRequest {
        secret: token.secret.to_vec(),
        csr_pem,
        name: args.name.unwrap_or_else(user),
        replace: args.replace,
        bearer: "operator".to_owned(),
    };
    let reply = enrollment.join(join).await?.into_inner();
    let credentials = Credentials { certificate_pem: reply.certificate_pem, key_pem, authority_pem: reply.authority_pem };
    // Before anything is kept: credentials that do not work must not replace some that do.
    let config = tls::hot(tls::client_config(&credentials).map_err(Problem::from)?);
    let mut control = ControlClient::new(tls::channel(coordinator, config)?);
    let me = control.who_am_i(WhoAmIRequest {}).await?.into_inner();
    Ok((credentials, me))
}

/// The name this user has on this machine.
fn user() -> String {
    std::env::var("USER").ok().filter(|user| !user.is_empty()).unwrap_or_else(|| "operator".to_owned())
}

pub(crate) fn request() -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    // Names in it would not be believed: the server writes its own.
    let csr = CertificateParams::default().serialize_request(&key)?.pem()?;
    Ok((key.serialize_pem(), csr))
}

fn read_token(file: &Path) -> Result<JoinToken, Problem> {
    let read = |reader: &mut dyn Read| {
        let mut text = String::new();
        reader.take(TOKEN_MAX).read_to_string(&mut text).map(|_| text)
    };
    let text = if file == Path::new("-") {
        read(&mut std::io::stdin().lock())
    } else {
        std::fs::File::open(file).and_then(|mut file| read(&mut file))
    };
    let text = text.map_err(|error| {
        Problem::new(code::LOGIN, "the token cannot be read")
            .saw("file", format!("{}: {error}", file.display()))
            .help("baton token create --role deployer shows one: write it there, readable for you alone")
    })?;
    text.parse().map_err(|error: baton_proto::token::InvalidToken| {
        Problem::new(code::LOGIN, error.to_string())
            .saw("file", file.display().to_string())
            .help("baton token create --role deployer makes one; the file holds it and nothing else")
    })
}

#[cfg(test)]
mod tests {
    use super::{read_token, request};
    use crate::errors::code;
    use baton_proto::token::JoinToken;

    #[test]
    fn a_token_is_read_from_its_file_and_a_wrong_one_is_never_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let token = JoinToken { pin: [1; 32], secret: [2; 32] };
        std::fs::write(&file, format!("{token}\n")).unwrap();
        assert_eq!(read_token(&file).unwrap(), token);
        std::fs::write(&file, "baton1.nonsense-secret").unwrap();
        let wrong = read_token(&file).unwrap_err();
        assert_eq!(wrong.code, code::LOGIN);
        assert!(!format!("{wrong:?}").contains("nonsense"));
        assert!(read_token(&folder.path().join("missing")).is_err());
    }

    #[test]
    fn the_key_stays_and_the_request_carries_no_name() {
        let (key, csr) = request().unwrap();
        assert!(key.contains("PRIVATE KEY") && csr.contains("CERTIFICATE REQUEST"));
        assert_ne!(request().unwrap().0, key);
    }
}
