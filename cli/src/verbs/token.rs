//! `baton token create|list|revoke`.

use crate::Context;
use crate::connection::{self, Connection};
use crate::errors::{Failure, code};
use crate::exit::Exit;
use crate::render::page::Page;
use crate::render::releases::tokens;
use crate::render::units::{counted, duration};
use baton_core::problem::Problem;
use baton_proto::problem::from_status;
use baton_proto::v1::{CreateTokenRequest, ListTokensRequest, RevokeTokenRequest};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use std::time::Duration;

/// `baton token`.
#[derive(Debug, Args)]
pub struct TokenArgs {
    #[command(subcommand)]
    pub what: Token,
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token; it is shown once, on stdout
    Create(CreateArgs),
    /// The tokens that can still be redeemed
    List,
    /// Make a token worthless
    Revoke { id: String },
}

/// `baton token create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// What whoever redeems it becomes
    #[arg(long, value_enum, default_value_t = TokenRole::Host)]
    pub role: TokenRole,
    /// How many hosts may join with it. Without names each waits for `baton hosts accept`
    #[arg(long, value_name = "N", conflicts_with = "uses", value_parser = clap::value_parser!(u32).range(1..))]
    pub hosts: Option<u32>,
    /// How often it may be redeemed, each time for another name; else once for each name given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub uses: Option<u32>,
    /// How long it may be redeemed
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = lifetime)]
    pub ttl: Duration,
    /// A name it may be redeemed for: such a host is accepted as it joins. Any free one where none is given
    #[arg(long = "name", value_name = "NAME")]
    pub names: Vec<String>,
    /// Of a deployer or ci: a service it may command, and no other; all where none is given
    #[arg(long = "service", value_name = "SERVICE")]
    pub services: Vec<String>,
    /// Of a ci: how long its certificate lasts. It does not renew itself
    #[arg(long, value_name = "DURATION", value_parser = lifetime)]
    pub life: Option<Duration>,
}

/// A token that is over before it is copied is a mistake.
fn lifetime(text: &str) -> Result<Duration, String> {
    match super::target::duration(text)? {
        Duration::ZERO => Err("a token that lives for no time cannot be redeemed".to_owned()),
        ttl => Ok(ttl),
    }
}

/// What a token makes of whoever redeems it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TokenRole {
    /// An agent on a host
    Host,
    /// May do everything
    Admin,
    /// May deploy
    Deployer,
    /// May look
    Viewer,
    /// May deploy, without a person
    Ci,
}

impl TokenRole {
    const fn word(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Admin => "admin",
            Self::Deployer => "deployer",
            Self::Viewer => "viewer",
            Self::Ci => "ci",
        }
    }
}

/// Makes, lists or revokes tokens.
///
/// # Errors
/// When the coordinator refuses.
pub async fn run(args: TokenArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let mut connection = Connection::open(context.connect)?;
    let output = context.output;
    match args.what {
        Token::Create(args) => return create(&mut connection, args, context).await,
        Token::List => {
            let list = connection.control.list_tokens(ListTokensRequest {}).await?.into_inner();
            output.answer(&tokens(&list));
            output.json(&list);
        }
        Token::Revoke { id } => {
            let list = connection.control.revoke_token(RevokeTokenRequest { id: id.clone() }).await?.into_inner();
            output.answer(Page::new().text(format!("{id} is worthless now")));
            output.json(&list);
        }
    }
    output.next("baton token list");
    Ok(Exit::Done)
}

async fn create(connection: &mut Connection, args: CreateArgs, context: Context<'_>) -> Result<Exit, Failure> {
    if args.hosts.is_some() && args.role != TokenRole::Host {
        let what = format!("--hosts is for tokens of hosts, and this one is of the role {}", args.role.word());
        let help = "how often it may be redeemed says --uses";
        return Err(Failure::new(Problem::new(code::CONTRADICTS, what).help(help), Exit::Usage));
    }
    let for_names = u32::try_from(args.names.len()).unwrap_or(u32::MAX).max(1);
    if let Some(uses) = args.hosts.or(args.uses).filter(|uses| !args.names.is_empty() && *uses > for_names) {
        let flag = if args.hosts.is_some() { "--hosts" } else { "--uses" };
        let what = format!(
            "{flag} {uses} is more than the {} given, and each is redeemed once",
            counted(u64::from(for_names), "name", "names")
        );
        let help = format!("leave out {flag}, or give a --name for each");
        return Err(Failure::new(Problem::new(code::CONTRADICTS, what).help(help), Exit::Usage));
    }
    let request = CreateTokenRequest {
        role: args.role.word().to_owned(),
        uses: args.hosts.or(args.uses).unwrap_or(for_names),
        ttl_ms: u64::try_from(args.ttl.as_millis()).unwrap_or(u64::MAX),
        names: args.names,
        services: args.services,
        life_ms: u64::try_from(args.life.unwrap_or_default().as_millis()).unwrap_or(u64::MAX),
    };
    let (uses, named) = (request.uses, !request.names.is_empty());
    // A host is called as its machine is unless something else is said; who logs in has no such name.
    let only = match request.names.as_slice() {
        [only] => format!(" --name {only}"),
        [_, ..] if args.role != TokenRole::Host => " --name NAME".to_owned(),
        _ => String::new(),
    };
    let said = match (args.hosts, args.uses) {
        (Some(_), _) => "--hosts",
        (None, Some(_)) => "--uses",
        (None, None) => "--name",
    };
    let services = request.services.clone();
    let created = connection.control.create_token(request).await.map_err(|status| {
        let mut problem = from_status(&status);
        // In the words of whoever asked.
        if let Some(rest) = problem.what.strip_prefix("--uses") {
            problem.what = format!("{said}{rest}");
        }
        problem
    })?;
    let created = created.into_inner();
    let output = context.output;
    output.answer(Page::new().text(created.token.clone()));
    output.json(&json!({ "id": created.id, "token": created.token, "ttl_ms": created.ttl_ms, "uses": uses }));
    let lasts = duration(Duration::from_millis(created.ttl_ms));
    output.note(Page::new().text(format!(
        "{}: shown once, {}, good for {lasts}. Keep it in a file that only its reader can read.",
        created.id,
        counted(uses.into(), "use", "uses")
    )));
    let known = match services.is_empty() {
        true => Vec::new(),
        false => connection.view("").await.map(|view| view.services).unwrap_or_default(),
    };
    for name in services.iter().filter(|name| !known.iter().any(|service| service.name == **name)) {
        output.note(Page::new().text(format!(
            "warning: there is no service {name} yet; is the name right? Whoever uses this token may be the first to deploy it"
        )));
    }
    // As it is reached from here, where that is over the network; its own machine only knows the port.
    let login = connection::login(context.connect).map(|(_, login)| login.coordinator);
    let address = login.unwrap_or_else(|| format!("COORDINATOR:{}", created.port));
    match args.role {
        TokenRole::Host => {
            let accept = if named { "" } else { "; then here: baton hosts accept HOST" };
            output.next(&format!("on the host: baton-agent join {address} --token-file FILE{only}{accept}"));
        }
        _ => output.next(&format!("on the operator's machine: baton login {address} --token-file FILE{only}")),
    }
    Ok(Exit::Done)
}
