//! Any bytes as any message that arrives, and on into what `core` works with.

#![no_main]

use baton_core::fleet::report::HostReport;
use baton_core::fleet::spec::HostSpec;
use baton_core::problem::Problem;
use baton_core::release::Release;
use baton_proto::v1;
use prost::Message;

/// Decodes as the nth of these; what was understood is written and understood once more.
macro_rules! decoded {
    ($nth:expr, $bytes:expr, [$($message:ident),* $(,)?]) => {{
        let tried: &[fn(&[u8])] = &[$(|bytes| again(v1::$message::decode(bytes))),*];
        if let Some(nth) = usize::from($nth).checked_rem(tried.len()) {
            tried[nth]($bytes);
        }
    }};
}

fn again<M: Message + Default + PartialEq>(message: Result<M, prost::DecodeError>) {
    if let Ok(message) = message {
        let bytes = message.encode_to_vec();
        let read = M::decode(&*bytes).expect("what was written is read");
        // Not compared as values: a NaN is never itself.
        assert_eq!(read.encode_to_vec(), bytes);
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((nth, bytes)) = bytes.split_first() else { return };
    match nth {
        0 => drop(v1::HostReport::decode(bytes).map(HostReport::try_from)),
        1 => drop(v1::HostSpec::decode(bytes).map(HostSpec::try_from)),
        2 => drop(v1::Release::decode(bytes).map(Release::try_from)),
        3 => drop(v1::Problem::decode(bytes).map(Problem::try_from)),
        nth => decoded!(
            *nth,
            bytes,
            [
                AgentMessage,
                CoordinatorMessage,
                ArtifactStatRequest,
                UploadMessage,
                FetchRequest,
                DeployRequest,
                RollbackRequest,
                ServiceRequest,
                AbortRequest,
                PlaceRequest,
                FreezeRequest,
                HostRequest,
                LabelRequest,
                RecoverRequest,
                StatusRequest,
                HistoryRequest,
                CreateTokenRequest,
                ListTokensRequest,
                RevokeTokenRequest,
                ListCertificatesRequest,
                RevokeCertificatesRequest,
                RotateAuthorityRequest,
                RetireAuthorityRequest,
                AuthorityView,
                ListAuditRequest,
                VerifyAuditRequest,
                AcceptAuditLossRequest,
                RecordBackupRequest,
                GreetRequest,
                JoinRequest,
                RenewRequest,
                PlanView,
                FleetView,
                RolloutList,
            ]
        ),
    }
});
