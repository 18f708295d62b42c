//! Joining: a token and a public key in, a certificate out.

use super::{Api, invalid};
use crate::audit::call;
use crate::identity::authority::{Request as CertificateRequest, Serial, Validity};
use crate::identity::rotation::Authorities;
use crate::identity::wall_time;
use crate::store::certificate::{Certificate, Renewal};
use crate::store::token::{Admits, Redeemed, Redemption};
use baton_core::name::Digest;
use baton_core::problem::Problem;
use baton_proto::identity::{Identity, Role};
use baton_proto::problem::{code, to_status};
use baton_proto::tls::peer;
use baton_proto::v1::enrollment_server::Enrollment;
use baton_proto::v1::{GreetRequest, Greeting, JoinReply, JoinRequest, KeptReply, KeptRequest, RenewRequest};
use baton_proto::{OLDEST_PROTOCOL, PROTOCOL};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Enrollment for Api {
    async fn greet(&self, request: Request<GreetRequest>) -> Result<Response<Greeting>, Status> {
        Ok(Response::new(Greeting {
            coordinator_version: env!("CARGO_PKG_VERSION").to_owned(),
            oldest_protocol: OLDEST_PROTOCOL,
            protocol: PROTOCOL,
            clock_seconds: wall_time().0,
            identity: peer(&request).identity.to_string(),
        }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<JoinReply>, Status> {
        let peer = peer(&request);
        let Some(shown) = peer.serial else {
            let problem = Problem::new(code::WHO_ARE_YOU, "only a certificate can be renewed, and this caller shows none");
            return Err(to_status(problem.help("on the coordinator's machine `baton` needs no certificate")));
        };
        let certificate = CertificateRequest::read(&request.get_ref().csr_pem).map_err(to_status)?;
        let (serial, during) = (Serial::random().map_err(to_status)?, self.during());
        let authorities = self.issuance.current();
        let next = Certificate {
            serial: serial.text().to_owned(),
            identity: peer.identity.to_string(),
            authority: authorities.signer.fingerprint(),
            issued: during.now,
            expires: during.bounds().1,
            revoked: false,
            used: false,
        };
        let renewal = Renewal { shown, next };
        if !self.store.renew(&renewal).await.map_err(|error| to_status(error.problem()))? {
            return Err(to_status(super::revoked::refusal(&peer.identity)));
        }
        let signed = authorities.signer.sign(&certificate, &peer.identity, &serial, during, &peer.services);
        let certificate_pem = signed.map_err(to_status)?;
        call::about(peer.identity.to_string());
        call::changed(json!({ "serial": renewal.shown }), json!({ "serial": serial.text() }));
        tracing::info!(identity = %peer.identity, remote = ?peer.remote, serial = serial.text(), "renewed a certificate");
        Ok(Response::new(answer(&authorities, certificate_pem, &peer.identity)))
    }

    async fn kept(&self, request: Request<KeptRequest>) -> Result<Response<KeptReply>, Status> {
        self.used.note(&peer(&request)).await.map_err(|error| to_status(error.problem()))?;
        Ok(Response::new(KeptReply {}))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        let remote = peer(&request).remote;
        let JoinRequest { secret, csr_pem, name, replace, bearer } = request.into_inner();
        if secret.len() != 32 {
            return Err(invalid("secret", format!("{} bytes instead of 32", secret.len())));
        }
        // Whatever can be wrong is looked at before the token is touched: a typo must not cost a use.
        let certificate = CertificateRequest::read(&csr_pem).map_err(to_status)?;
        let (serial, during) = (Serial::random().map_err(to_status)?, self.during());
        let authorities = self.issuance.current();
        let redemption = Redemption {
            secret_hash: Digest::of(&secret),
            name,
            serial: serial.text().to_owned(),
            authority: authorities.signer.fingerprint(),
            now: during.now,
            certificate_expires: during.bounds().1,
            replace,
            bearer,
        };
        let token = self.store.token_id(&redemption.secret_hash).await.map_err(|error| to_status(error.problem()))?;
        let with = token.map_or_else(|| "an unknown token".to_owned(), |id| id.to_string());
        call::about(format!("join as {:.100} with {with}", redemption.name));
        let (identity, revoked, services, named, during) = match self.store.redeem(&redemption).await {
            Ok(Redeemed::Granted { identity, revoked, services, life, named }) => {
                let life = life.unwrap_or(self.life);
                (identity, revoked, services, named, Validity { life, ..during })
            }
            Ok(refused) => {
                let problem = refusal(&refused, &redemption.name);
                tracing::warn!(?remote, %problem, "refused to let somebody join");
                return Err(to_status(problem));
            }
            Err(error) => return Err(to_status(error.problem())),
        };
        self.revoked.extend(revoked);
        if let Identity::Host(host) = &identity {
            self.access.links().cut(host);
            // Until its agent connects and says better.
            let address = remote.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |remote| remote.ip().to_canonical());
            self.access.admit(host.clone(), address, named).await.map_err(to_status)?;
        }
        let signed = authorities.signer.sign(&certificate, &identity, &serial, during, &services);
        let certificate_pem = signed.map_err(to_status)?;
        call::changed(
            Value::Null,
            json!({ "identity": identity.to_string(), "serial": serial.text(), "services": services }),
        );
        tracing::info!(%identity, ?remote, serial = serial.text(), "joined");
        Ok(Response::new(answer(&authorities, certificate_pem, &identity)))
    }
}

impl Api {
    fn during(&self) -> Validity {
        Validity { now: wall_time(), life: self.life }
    }
}

/// The certificate, and whom to believe: everybody who may be met while one authority takes the place of another. A pipeline's
/// file is written once, so nobody would take the one that goes out of it: it believes the one that stays.
fn answer(authorities: &Authorities, certificate_pem: String, identity: &Identity) -> JoinReply {
    let authority_pem = match identity {
        Identity::Operator { role: Role::Ci, .. } => authorities.signer.certificate_pem().to_owned(),
        _ => authorities.bundle(),
    };
    JoinReply { certificate_pem, authority_pem, identity: identity.to_string() }
}

fn refusal(redeemed: &Redeemed, name: &str) -> Problem {
    let shown: String = name.chars().take(80).collect();
    let another = "make a new one on the coordinator: baton token create, for an operator with --role ROLE";
    let token = |what: &str| Problem::new(code::TOKEN, what).saw("asked for", format!("to join as {shown}")).help(another);
    match redeemed {
        Redeemed::Expired => token("this join token has expired"),
        Redeemed::Spent => token("this join token was used up, for this name or altogether, or revoked"),
        Redeemed::ForAnother(Admits::Host) => token("this join token is for a host, and was not used up")
            .help("on that host: baton-agent join; an operator's is made by: baton token create --role ROLE (admin, deployer, viewer or ci)"),
        Redeemed::ForAnother(Admits::Operator(role)) => {
            token(&format!("this join token is for an operator ({role}), and was not used up"))
                .help("with it: baton login; a host's is made by: baton token create")
        }
        Redeemed::NameNotAllowed => Problem::new(code::NAME, format!("this join token is not for the name {shown}"))
            .help("say --name with one of the names the token was made for"),
        Redeemed::NameInUse(admits) => taken(&shown).help(match admits {
            Admits::Host => format!("if this machine takes its place: baton-agent join --replace --name {shown} …"),
            Admits::Operator(_) => format!("if this login takes its place: baton login --replace --name {shown} …"),
        }),
        Redeemed::NameTaken(admits) => taken(&shown).help(match admits {
            Admits::Host => format!(
                "join under another name: baton-agent join --name OTHER …; or take its place, with a token for that very name: \
                 baton token create --name {shown}, and on the host baton-agent join --replace --name {shown} …"
            ),
            Admits::Operator(role) => format!(
                "log in under another name: baton login --name OTHER …; or take its place, with a token for that very name: \
                 baton token create --role {role} --name {shown}, and baton login --replace --name {shown} …"
            ),
        }),
        Redeemed::NameInvalid(why) => Problem::new(code::NAME, why.clone()).help("join with --name and another name"),
        Redeemed::Unknown | Redeemed::Granted { .. } => token("this join token is not known here"),
    }
}

fn taken(name: &str) -> Problem {
    Problem::new(code::NAME, format!("somebody has joined as {name} already"))
        .saw("its certificates", "would be revoked where they are not, and its connections cut")
}
