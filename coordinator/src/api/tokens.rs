//! Join tokens, from the operator's side.

use super::{Api, wrong};
use crate::audit::call;
use crate::identity::{random, wall_time};
use crate::store::WallTime;
use crate::store::token::{Admits, Token, TokenId};
use baton_core::name::{HostName, OperatorName, ServiceName};
use baton_core::problem::Problem;
use baton_proto::identity::Role;
use baton_proto::problem::{code, to_status};
use baton_proto::token::JoinToken;
use baton_proto::v1::{CreateTokenRequest, CreatedToken, TokenList, TokenView};
use serde_json::{Value, json};
use tonic::Status;

/// When nobody says how long: long enough to walk to the other machine.
const DEFAULT_TTL: u64 = 3600;

/// A token that lives longer is a password.
const MAX_TTL: u64 = 30 * DAY;
const DAY: u64 = 24 * 3600;

/// A pipeline's certificate does not renew itself, so it may last as long as any.
const MAX_CI_LIFE: i64 = 400 * 24 * 3600;

/// A rack of racks.
const MAX_USES: u32 = 1000;

impl Api {
    pub(super) async fn create_token(&self, request: CreateTokenRequest) -> Result<CreatedToken, Status> {
        let admits: Admits = request.role.parse().map_err(|error| wrong("--role", error))?;
        let uses = match (request.uses, u32::try_from(request.names.len())) {
            (0, Ok(names)) => names.max(1),
            (uses, _) => uses,
        };
        if uses > MAX_USES {
            return Err(wrong("--uses", format!("{uses} asked for, {MAX_USES} at most")));
        }
        for name in &request.names {
            let checked = match admits {
                Admits::Host => HostName::new(name).map(drop),
                Admits::Operator(_) => OperatorName::new(name).map(drop),
            };
            checked.map_err(|error| wrong("--name", error))?;
        }
        let ttl = match request.ttl_ms.div_ceil(1000) {
            0 => DEFAULT_TTL,
            ttl if ttl > MAX_TTL => {
                return Err(wrong("--ttl", format!("{} days asked for, {} days at most", ttl.div_ceil(DAY), MAX_TTL / DAY)));
            }
            ttl => ttl,
        };
        let services = services_of(&request.services, admits)?;
        let life = match i64::try_from(request.life_ms.div_ceil(1000)) {
            Ok(0) => None,
            Ok(life) if admits == Admits::Operator(Role::Ci) && (60..=MAX_CI_LIFE).contains(&life) => Some(life),
            _ => {
                return Err(wrong(
                    "--life",
                    format!("only of a ci token, from 1 min to {} days", MAX_CI_LIFE / (24 * 3600)),
                ));
            }
        };
        let now = wall_time();
        let secret = JoinToken { pin: self.issuance.current().signer.pin(), secret: random().map_err(to_status)? };
        let id = random::<5>().map_err(to_status)?;
        let token = Token {
            id: TokenId(format!("t-{}", data_encoding::BASE32_NOPAD.encode(&id).to_ascii_lowercase())),
            secret_hash: secret.secret_hash(),
            admits,
            uses_left: uses,
            created: now,
            expires: WallTime(now.0.saturating_add_unsigned(ttl)),
            names: request.names,
            services,
            life,
        };
        self.store.keep_token(&token).await.map_err(|error| to_status(error.problem()))?;
        call::about(token.id.to_string());
        let after = json!({
            "role": token.admits.to_string(), "uses": uses, "seconds": ttl, "names": token.names, "services": token.services,
        });
        call::changed(Value::Null, after);
        tracing::info!(id = %token.id, admits = %token.admits, uses, ttl, "made a join token");
        Ok(CreatedToken { id: token.id.0, token: secret.to_string(), ttl_ms: ttl * 1000, port: self.port.into() })
    }

    pub(super) async fn list_tokens(&self) -> Result<TokenList, Status> {
        let now = wall_time();
        let tokens = self.store.tokens(now).await.map_err(|error| to_status(error.problem()))?;
        let view = |token: Token| TokenView {
            id: token.id.0,
            role: token.admits.to_string(),
            uses_left: token.uses_left,
            ttl_left_ms: u64::try_from(token.expires.0 - now.0).unwrap_or(0).saturating_mul(1000),
            names: token.names,
            services: token.services.iter().map(ToString::to_string).collect(),
        };
        Ok(TokenList { tokens: tokens.into_iter().map(view).collect() })
    }

    pub(super) async fn revoke_token(&self, id: String) -> Result<TokenList, Status> {
        let found = self.store.revoke_token(&TokenId(id.clone())).await;
        if !found.map_err(|error| to_status(error.problem()))? {
            let id: String = id.chars().take(40).collect();
            let problem = Problem::new(code::TOKEN, format!("there is no token {id} that could still be used"));
            return Err(to_status(problem.help("baton token list shows those there are")));
        }
        call::about(id.clone());
        tracing::info!(%id, "revoked a join token");
        self.list_tokens().await
    }
}

/// The services a token is for. Only those who command services can be held to some of them.
fn services_of(names: &[String], admits: Admits) -> Result<Vec<ServiceName>, Status> {
    if !names.is_empty() && !matches!(admits, Admits::Operator(Role::Deployer | Role::Ci)) {
        return Err(wrong(
            "--service",
            format!("a token for {admits} cannot be for some services only: a deployer's or ci's can"),
        ));
    }
    let parsed =
        names.iter().map(|name| name.parse().map_err(|error: baton_core::name::InvalidName| wrong("--service", error)));
    parsed.collect()
}
