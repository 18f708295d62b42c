//! Joining: a token and a public key in, a certificate out.

use super::{Api, invalid};
use crate::identity::authority::{LEAF_LIFE, Request as CertificateRequest, Serial};
use crate::identity::wall_time;
use crate::store::WallTime;
use crate::store::token::{Redeemed, Redemption};
use baton_core::name::Digest;
use baton_core::problem::Problem;
use baton_proto::identity::Identity;
use baton_proto::problem::{code, to_status};
use baton_proto::tls::peer;
use baton_proto::v1::enrollment_server::Enrollment;
use baton_proto::v1::{JoinReply, JoinRequest};
use std::net::{IpAddr, Ipv4Addr};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Enrollment for Api {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        let remote = peer(&request).remote;
        let JoinRequest { secret, csr_pem, name } = request.into_inner();
        if secret.len() != 32 {
            return Err(invalid("secret", format!("{} bytes instead of 32", secret.len())));
        }
        // Whatever can be wrong is looked at before the token is touched: a typo must not cost a use.
        let certificate = CertificateRequest::read(&csr_pem).map_err(to_status)?;
        let (serial, now) = (Serial::random().map_err(to_status)?, wall_time());
        let redemption = Redemption {
            secret_hash: Digest::of(&secret),
            name,
            serial: serial.text().to_owned(),
            now,
            certificate_expires: WallTime(now.0.saturating_add(LEAF_LIFE)),
        };
        let (identity, revoked) = match self.store.redeem(&redemption).await {
            Ok(Redeemed::Granted { identity, revoked }) => (identity, revoked),
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
            self.access.admit(host.clone(), address).await.map_err(to_status)?;
        }
        let certificate_pem = self.authority.sign(&certificate, &identity, &serial, now).map_err(to_status)?;
        tracing::info!(%identity, ?remote, serial = serial.text(), "joined");
        Ok(Response::new(JoinReply {
            certificate_pem,
            authority_pem: self.authority.certificate_pem().to_owned(),
            identity: identity.to_string(),
        }))
    }
}

fn refusal(redeemed: &Redeemed, name: &str) -> Problem {
    let shown: String = name.chars().take(80).collect();
    let another = "make a new one on the coordinator: baton token create";
    let token = |what: &str| Problem::new(code::TOKEN, what).saw("asked for", format!("to join as {shown}")).help(another);
    match redeemed {
        Redeemed::Expired => token("this join token has expired"),
        Redeemed::Spent => token("this join token was used up or revoked"),
        Redeemed::NameNotAllowed => Problem::new(code::NAME, format!("this join token is not for the name {shown}"))
            .help("join with --name and one of the names the token was made for"),
        Redeemed::NameTaken => Problem::new(code::NAME, format!("somebody has joined as {shown} already"))
            .help(format!("to take its place, make a token for that very name: baton token create --name {shown}")),
        Redeemed::NameInvalid(why) => Problem::new(code::NAME, why.clone()).help("join with --name and another name"),
        Redeemed::Unknown | Redeemed::Granted { .. } => token("this join token is not known here"),
    }
}
