//! Any bytes as what one half of an agent says to the other, and on into what a document from there becomes.

#![no_main]

use baton_core::fleet::spec::HostSpec;
use baton_core::problem::Problem;
use baton_proto::convert::UpgradeOrder;
use baton_proto::frame;
use baton_proto::v1::{HostMessage, LinkMessage, coordinator_message, link_message, link_piece};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let mut rest = bytes;
        while let Ok(Some(message)) = frame::read::<LinkMessage>(&mut rest).await {
            let mut written = Vec::new();
            frame::write(&mut written, &message).await.expect("what was read is not too long to write");
            let again = frame::read::<LinkMessage>(&mut written.as_slice()).await;
            assert!(again.is_ok_and(|again| again.is_some()), "what was written is read");
            take(message);
        }
        let mut rest = bytes;
        while let Ok(Some(_)) = frame::read::<HostMessage>(&mut rest).await {}
    });
});

/// As the half that acts takes it.
fn take(message: LinkMessage) {
    match message.kind {
        Some(link_message::Kind::Lost(problem)) => drop(Problem::try_from(problem)),
        Some(link_message::Kind::Heard(message)) => match message.kind {
            Some(coordinator_message::Kind::Spec(spec)) => drop(HostSpec::try_from(spec)),
            Some(coordinator_message::Kind::Upgrade(order)) => drop(UpgradeOrder::try_from(order)),
            _ => {}
        },
        Some(link_message::Kind::Piece(piece)) => {
            if let Some(link_piece::Kind::Refused(problem)) = piece.kind {
                drop(Problem::try_from(problem));
            }
        }
        _ => {}
    }
}
