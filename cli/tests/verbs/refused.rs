//! What the coordinator refuses ends every command alike: a mistake with 1, what may be welcome at another time with 7.

use super::coordinator::Script;
use super::world::{World, at_rest};
use baton_core::problem::{Code, Problem};

/// Every command that asks for something.
const ASK: [&str; 26] = [
    "deploy shop 2.1.0",
    "deploy shop 2.1.0 --no-wait",
    "rollback shop",
    "rollback shop --to 2.0.3",
    "pause shop",
    "resume shop",
    "promote shop",
    "abort shop",
    "abort shop --keep",
    "retry shop",
    "skip shop web2",
    "restart shop --yes",
    "rehearse shop",
    "freeze shop --why holidays",
    "unfreeze shop",
    "services remove shop --yes",
    "hosts drain web2",
    "hosts undrain web2",
    "hosts label web2 rack=a",
    "hosts accept web2",
    "hosts remove web2",
    "balancers declare-dead lb1 --why gone",
    "balancers revive lb1",
    "recover --without web2 --why lost",
    "reboot web2 --yes",
    "reboot --cancel",
];

#[test]
fn a_mistake_ends_every_command_with_1_and_a_refusal_with_7_and_nothing_is_answered() {
    let world = World::new(at_rest(1_000), Script::default());
    for line in ASK {
        for (code, exit) in [(709, 1), (711, 7)] {
            world.coordinator.script().refusal = Some(Problem::new(Code(code), "it cannot be").help("something"));
            let ran = world.run(line);
            assert_eq!(ran.code, Some(exit), "{line}: {ran:?}");
            assert!(
                ran.stderr.contains(&format!("error[B0{code}]: it cannot be")) && ran.stdout.is_empty(),
                "{line}: {ran:?}"
            );
        }
    }
}

#[test]
fn every_refusal_has_the_exit_code_that_the_documentation_promises() {
    let world = World::new(at_rest(1_000), Script::default());
    let table = [
        // Names that nobody knows, and nothing to do it with.
        (1, &[702, 703, 706, 708, 709, 714, 715, 716, 721, 722, 733, 741, 743, 745][..]),
        // Another rollout, policy, a freeze, what is needed, too few hosts, removal, a stale plan, a host that was told to reboot.
        (7, &[567, 701, 705, 707, 711, 712, 713, 718, 719, 736, 740, 744, 746, 748, 751, 805][..]),
    ];
    for (exit, codes) in table {
        for code in codes {
            world.coordinator.script().refusal = Some(Problem::new(Code(*code), "it cannot be"));
            let ran = world.run("hosts undrain web2 --json");
            let document: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
            assert_eq!((ran.code, &document["exit"]), (Some(exit), &exit.into()), "B{code:04}: {ran:?}");
        }
    }
}
