//! Who somebody is: tokens, logins, certificates.

use super::coordinator::Script;
use super::world::{World, at_rest, rolling};
use baton_proto::token::JoinToken;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_login_that_could_not_be_kept_spends_no_token_and_a_token_that_others_may_read_is_said() {
    let world = World::new(at_rest(1), Script::default());
    let token = world.folder().join("token");
    std::fs::write(&token, JoinToken { pin: [1; 32], secret: [2; 32] }.to_string()).unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).unwrap();
    // Root writes everywhere, but not into what is no folder.
    std::fs::write(world.folder().join("config"), "in the way").unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let ran = world.run(&format!("login {} --token-file token", nobody.local_addr().unwrap()));
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("error[B0513]"), "{ran:?}");
    assert!(ran.stderr.contains("others may read token (mode 0644)") && ran.stderr.contains("chmod 600 token"), "{ran:?}");
    nobody.set_nonblocking(true).unwrap();
    assert!(nobody.accept().is_err(), "the coordinator was asked");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let ran = world.run(&format!("login {} --token-file token", nobody.local_addr().unwrap()));
    assert!(!ran.stderr.contains("others may read"), "{ran:?}");
}

#[test]
fn whoever_loses_a_certificate_leaves_rollouts_behind_which_are_named() {
    let mut fleet = rolling("running", 1_000);
    let rollout = fleet.services[0].rollout.as_mut().unwrap();
    rollout.by = "ana".into();
    let id = rollout.id.clone();
    let world = World::new(fleet, Script::default());
    let ran = world.run("certificates revoke deployer/ana");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stdout.contains(&id) && ran.stdout.contains("to end it: baton abort shop"), "{ran:?}");
    for other in ["deployer/ben", "host/ana"] {
        let ran = world.run(&format!("certificates revoke {other}"));
        assert_eq!(ran.stdout, format!("{other} is not accepted any more\n"));
    }
}

#[test]
fn a_token_for_a_service_that_is_not_there_is_made_with_a_warning() {
    let world = World::new(at_rest(1), Script::default());
    let ran = world.run("token create --role deployer --service shop --service nosuch");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "baton1.abc\n"), "{ran:?}");
    assert!(ran.stderr.contains("there is no service nosuch") && !ran.stderr.contains("no service shop"), "{ran:?}");
}
