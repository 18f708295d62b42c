//! The audit log, from the operator's side.

use super::Api;
use crate::audit::chain::Witness;
use baton_proto::problem::to_status;
use baton_proto::v1::{AuditEntry, AuditFault, AuditVerdict, ListAuditRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

impl Api {
    /// Sends entries page by page, so that a log of years needs no more memory than one of a day.
    pub(super) fn list_audit(&self, request: &ListAuditRequest) -> ReceiverStream<Result<AuditEntry, Status>> {
        let (out, entries) = mpsc::channel(16);
        let audit = self.audit.clone();
        let newest = if request.newest == 0 { u64::MAX } else { request.newest };
        let last = audit.heads().borrow().number;
        let mut after = request.after.max(last.saturating_sub(newest));
        tokio::spawn(async move {
            loop {
                let page = match audit.after(after).await {
                    Ok(page) => page,
                    Err(error) => return drop(out.send(Err(to_status(error.problem()))).await),
                };
                let Some(end) = page.last().map(|record| record.number) else { return };
                for record in page {
                    let hash = record.hash.as_bytes().to_vec();
                    let entry = AuditEntry { number: record.number, at_seconds: record.at.0, text: record.text, hash };
                    if out.send(Ok(entry)).await.is_err() {
                        return;
                    }
                }
                after = end;
            }
        });
        ReceiverStream::new(entries)
    }

    pub(super) async fn verify_audit(&self) -> Result<AuditVerdict, Status> {
        let hellos = self.access.links().hellos();
        let witnesses: Vec<Witness> = hellos
            .iter()
            .flat_map(|(host, hello)| hello.audit_heads.iter().map(move |head| (host, *head)))
            .map(|(host, head)| Witness { name: format!("host/{host}"), head })
            .collect();
        let mut names: Vec<String> = witnesses.iter().map(|witness| witness.name.clone()).collect();
        names.dedup();
        let (head, faults) = self.audit.verify(witnesses).await.map_err(|error| to_status(error.problem()))?;
        Ok(AuditVerdict {
            entries: head.number,
            head: head.hash.as_bytes().to_vec(),
            faults: faults.into_iter().map(|fault| AuditFault { number: fault.number, what: fault.what }).collect(),
            witnesses: names,
        })
    }
}
