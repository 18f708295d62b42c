//! Certificates, from the operator's side: who has which, and which are not to be accepted any more.

use super::Api;
use crate::audit::call;
use crate::identity::wall_time;
use crate::store::certificate::Certificate;
use baton_core::problem::Problem;
use baton_proto::problem::{code, to_status};
use baton_proto::v1::{CertificateList, CertificateView, RevokeCertificatesRequest};
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
            return Err(to_status(problem.help("baton certificates list shows identities and serial numbers")));
        }
        call::about(request.whose.clone());
        call::why(request.why);
        call::changed(json!({ "accepted": serials }), json!({ "accepted": [] }));
        tracing::info!(whose = %request.whose, count = serials.len(), "revoked certificates");
        self.revoked.extend(serials);
        self.list_certificates().await
    }
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
