//! Certificates, from the operator's side: who has which, and which are not to be accepted any more.

use super::Api;
use crate::audit::call;
use crate::identity::wall_time;
use crate::store::WallTime;
use crate::store::certificate::Certificate;
use baton_core::problem::Problem;
use baton_proto::problem::{code, to_status};
use baton_proto::tls::date;
use baton_proto::v1::{CertificateList, CertificateView, FleetView, RevokeCertificatesRequest};
use serde_json::json;
use tonic::Status;

impl Api {
    pub(super) async fn list_certificates(&self) -> Result<CertificateList, Status> {
        let certificates = self.store.certificates(wall_time()).await.map_err(|error| to_status(error.problem()))?;
        Ok(CertificateList { certificates: certificates.into_iter().map(view).collect() })
    }

    /// Revokes, first in the store and then in front of every call: what is open ends at once.
    pub(super) async fn revoke_certificates(&self, request: RevokeCertificatesRequest) -> Result<CertificateList, Status> {
        let serials = self.store.revoke(&request.whose).await.map_err(|error| to_status(error.problem()))?;
        if serials.is_empty() {
            let shown: String = request.whose.chars().take(80).collect();
            let what = format!("there is no certificate of {shown} that could be revoked");
            let problem = Problem::new(code::NO_CERTIFICATE, what);
            return Err(to_status(problem.help(
                "baton certificates list shows identities and serial numbers; after a restore, one that was issued since the backup is there \
                 once somebody has used it",
            )));
        }
        call::about(request.whose.clone());
        call::why(request.why);
        call::changed(json!({ "accepted": serials }), json!({ "accepted": [] }));
        tracing::info!(whose = %request.whose, count = serials.len(), "revoked certificates");
        self.revoked.extend(serials);
        self.list_certificates().await
    }
}

impl Api {
    /// Says of hosts that are away where none of their certificates is accepted: they cannot come back by themselves.
    pub(super) async fn tell_locked_out(&self, mut view: FleetView) -> Result<FleetView, Status> {
        if view.hosts.iter().all(|host| host.connected) {
            return Ok(view);
        }
        let now = wall_time();
        // Also those that ended: when they did says whether it is they or a clock.
        let certificates = self.store.certificates(WallTime(i64::MIN)).await.map_err(|error| to_status(error.problem()))?;
        for host in view.hosts.iter_mut().filter(|host| !host.connected) {
            host.problems.extend(locked_out(&host.name, &certificates, now).map(|problem| (&problem).into()));
        }
        Ok(view)
    }
}

fn locked_out(host: &str, certificates: &[Certificate], now: WallTime) -> Option<Problem> {
    let own = || certificates.iter().filter(|it| it.identity.strip_prefix("host/") == Some(host));
    let newest = own().filter(|it| !it.revoked).max_by_key(|it| it.expires);
    // They renew themselves: one that is as long over as it lasted was hardly forgotten.
    if let Some(newest) = newest.filter(|it| now.0 - it.expires.0 > it.expires.0 - it.issued.0) {
        return Some(
            Problem::new(code::CERTIFICATE_TIME, format!("by the clock here the certificate of {host} ended long ago"))
                .saw("valid until", date(newest.expires.0))
                .saw("clock here", date(now.0))
                .help(format!(
                    "compare `date -u` on the coordinator and on {host}: is the coordinator's clock wrong, set it, and the host \
                     comes back by itself; is it right: baton token create --name {host}; there: baton-agent join … --replace"
                )),
        );
    }
    if own().any(|it| !it.revoked && it.expires > now) {
        return None;
    }
    // Those it had before it was given another one are revoked, too.
    let last = own().max_by_key(|it| (it.issued, !it.revoked));
    let (code, became) = match last.is_some_and(|it| it.revoked && it.expires > now) {
        true => (code::REFUSED, "was revoked or replaced"),
        false => (code::CERTIFICATE_TIME, "has ended"),
    };
    let problem = Problem::new(code, format!("the certificate of {host} {became}: its agent is turned away"));
    Some(problem.help(format!("baton token create --name {host}; there: baton-agent join … --replace")))
}

fn view(certificate: Certificate) -> CertificateView {
    CertificateView {
        serial: certificate.serial,
        identity: certificate.identity,
        issued_seconds: certificate.issued.0,
        expires_seconds: certificate.expires.0,
        revoked: certificate.revoked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_locked_out_when_none_of_its_certificates_is_accepted() {
        let of = |identity: &str, expires: i64, revoked| Certificate {
            serial: String::new(),
            identity: identity.into(),
            authority: String::new(),
            issued: WallTime(0),
            expires: WallTime(expires),
            revoked,
            used: true,
        };
        let said =
            |certificates: &[Certificate]| locked_out("web1", certificates, WallTime(100)).map(|problem| problem.code);
        assert_eq!(said(&[of("host/web1", 90, false), of("host/web1", 200, false)]), None);
        assert_eq!(said(&[of("host/web1", 200, true), of("host/web1", 300, false)]), None);
        assert_eq!(said(&[of("host/web1", 90, false), of("host/web2", 200, false)]), Some(code::CERTIFICATE_TIME));
        assert_eq!(said(&[of("host/web1", 200, true), of("admin/web1", 200, false)]), Some(code::REFUSED));
        // What it had before was revoked when it was given another one, and that one has ended.
        let last = Certificate { issued: WallTime(50), ..of("host/web1", 90, false) };
        assert_eq!(said(&[of("host/web1", 200, true), last]), Some(code::CERTIFICATE_TIME));
        // As long over as it lasted: whose clock is it?
        let told = |expires| {
            let problem = locked_out("web1", &[of("host/web1", expires, false)], WallTime(100)).unwrap();
            (problem.code, problem.seen.len(), problem.help.as_ref().unwrap().contains("date -u"))
        };
        assert_eq!((told(90), told(40)), ((code::CERTIFICATE_TIME, 0, false), (code::CERTIFICATE_TIME, 2, true)));
    }
}
