//! The audit log: what is wrong with it, what somebody accepts, and a file of it.

use super::coordinator::Script;
use super::world::{World, at_rest};
use baton_proto::v1::{AuditFault, AuditHead, AuditLoss, AuditVerdict};

#[test]
fn a_loss_of_the_audit_log_is_accepted_by_whoever_says_so_and_an_export_is_checked_without_a_coordinator() {
    let heads = vec![AuditHead { number: 58, hash: vec![1; 32] }];
    let lost = AuditLoss { first: 42, last: 58, heads, held_by: vec!["host/web1".into()], ..AuditLoss::default() };
    let faults = vec![AuditFault { number: 58, what: "host/web1 remembers another entry 58".into() }];
    let verdict = AuditVerdict { entries: 59, faults, lost: Some(lost), ..AuditVerdict::default() };
    let world = World::new(at_rest(1_000), Script { verdict, ..Script::default() });
    let ran = world.run("audit verify");
    assert_eq!(ran.code, Some(5), "{ran:?}");
    assert!(ran.stderr.ends_with("next: baton audit accept --why REASON\n"), "{ran:?}");
    let ran = world.run("audit accept --why restored");
    assert_eq!(ran.code, Some(7), "{ran:?}");
    assert!(ran.stderr.contains("entries 42 to 58 are lost") && ran.stderr.contains("--yes says it"), "{ran:?}");
    let ran = world.run("audit accept --why restored --yes");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stdout.contains("admin/ana accepted that on") && ran.stdout.contains("(entry 60): restored"), "{ran:?}");
    assert_eq!(world.run("audit verify").code, Some(0));
    let ran = world.run("audit accept --why restored --yes");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("nothing is lost that could be accepted"), "{ran:?}");
    let ran = world.run("audit verify --file /nowhere/audit.jsonl");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("error[B0153]"), "{ran:?}");
}
