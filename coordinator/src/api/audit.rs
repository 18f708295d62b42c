//! The audit log, from the operator's side.

use super::Api;
use crate::audit::call;
use crate::audit::chain::{Head, Verdict, Witness};
use crate::audit::loss::{Accepted, Loss};
use baton_core::name::Digest;
use baton_core::problem::Problem;
use baton_proto::problem::{code, to_status};
use baton_proto::tls::Peer;
use baton_proto::v1::{
    AcceptAuditLossRequest, AuditEntry, AuditFault, AuditHead, AuditLoss, AuditVerdict, ListAuditRequest,
    RecordBackupRequest,
};
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
        let (Verdict { head, faults, lost, accepted }, witnesses) = self.checked().await?;
        Ok(AuditVerdict {
            entries: head.number,
            head: head.hash.as_bytes().to_vec(),
            faults: faults.into_iter().map(|fault| AuditFault { number: fault.number, what: fault.what }).collect(),
            witnesses,
            lost: lost.map(loss),
            accepted: accepted.into_iter().map(acceptance).collect(),
        })
    }

    /// The log, compared with what hosts that are connected remember; and which hosts those are.
    async fn checked(&self) -> Result<(Verdict, Vec<String>), Status> {
        let hellos = self.access.links().hellos();
        let witnesses: Vec<Witness> = hellos
            .iter()
            .flat_map(|(host, hello)| hello.audit_heads.iter().map(move |head| (host, *head)))
            .map(|(host, head)| Witness { name: format!("host/{host}"), head })
            .collect();
        let mut names: Vec<String> = witnesses.iter().map(|witness| witness.name.clone()).collect();
        names.dedup();
        let verdict = self.audit.verify(witnesses).await.map_err(|error| to_status(error.problem()))?;
        Ok((verdict, names))
    }

    /// Writes its entries itself: each says what the whole call is about.
    pub(super) async fn accept_audit_loss(
        &self,
        caller: &Peer,
        request: AcceptAuditLossRequest,
    ) -> Result<AuditVerdict, Status> {
        let AcceptAuditLossRequest { heads, why } = request;
        if why.trim().is_empty() {
            let problem = Problem::new(code::USAGE, "a loss is accepted for a reason, which stays on the record");
            return Err(to_status(problem.help("baton audit accept --why REASON")));
        }
        let named: Vec<Head> = heads.iter().filter_map(head).collect();
        let (Verdict { lost, .. }, _) = self.checked().await?;
        let lost = if heads.is_empty() { lost } else { lost.and_then(|lost| lost.only(&named)) };
        let Some(lost) = lost else {
            let problem = Problem::new(code::USAGE, "nothing is lost that could be accepted");
            return Err(to_status(problem.help("baton audit verify says what is wrong with the log, if anything is")));
        };
        self.audit.accept(caller, &lost, &why).await.map_err(|error| to_status(error.problem()))?;
        tracing::info!(first = lost.first, last = lost.last, by = %caller.identity, "a loss of the audit log was accepted");
        self.verify_audit().await
    }
}

/// The gate writes it down; what there is to say is the file.
pub(super) fn record_backup(request: RecordBackupRequest) {
    call::about(request.file);
}

fn loss(loss: Loss) -> AuditLoss {
    let heads = loss.heads.iter().map(|head| AuditHead { number: head.number, hash: head.hash.as_bytes().to_vec() });
    AuditLoss {
        first: loss.first,
        last: loss.last,
        heads: heads.collect(),
        held_by: loss.held_by.into_iter().collect(),
        ..AuditLoss::default()
    }
}

fn acceptance(accepted: Accepted) -> AuditLoss {
    let Accepted { entry, at, by, why, loss: lost } = accepted;
    AuditLoss { entry, at_seconds: at.0, by, why, ..loss(lost) }
}

fn head(head: &AuditHead) -> Option<Head> {
    let hash: [u8; 32] = head.hash.as_slice().try_into().ok()?;
    Some(Head { number: head.number, hash: Digest::from_bytes(hash) })
}
