//! `baton-coordinator config check`.

use std::process::Command;

#[test]
fn settings_are_checked_without_starting_anything() {
    let folder = tempfile::tempdir().unwrap();
    let (file, state) = (folder.path().join("coordinator.toml"), folder.path().join("state"));
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let program = env!("CARGO_BIN_EXE_baton-coordinator");
        let ran = Command::new(program).args(["config", "check", "--config"]).arg(&file).output().unwrap();
        (ran.status.code(), String::from_utf8(ran.stdout).unwrap(), String::from_utf8(ran.stderr).unwrap())
    };
    let (code, said, complaints) = check(&format!("state = {state:?}\nlisten = \"127.0.0.1:7444\"\n"));
    assert_eq!((code, complaints.as_str()), (Some(0), ""));
    assert!(said.contains("coordinator.toml is right") && said.contains("listen  127.0.0.1:7444"), "{said}");
    assert!(!state.exists(), "nothing was made");
    let (code, said, complaints) = check("sokcet = \"/x\"\nlisten = \"7443\"\n");
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert_eq!(complaints.matches("error[B1007]").count(), 2, "{complaints}");
    for place in ["coordinator.toml:1:1", "coordinator.toml:2:10"] {
        assert!(complaints.contains(place), "{place}: {complaints}");
    }
}
