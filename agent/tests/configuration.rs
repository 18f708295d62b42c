//! `baton-agent config check`.

use std::process::Command;

#[test]
fn a_configuration_is_checked_without_starting_anything() {
    let folder = tempfile::tempdir().unwrap();
    let (file, state) = (folder.path().join("agent.toml"), folder.path().join("state"));
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let ran = Command::new(env!("CARGO_BIN_EXE_baton-agent")).args(["config", "check", "--config"]).arg(&file).output();
        let ran = ran.unwrap();
        (ran.status.code(), String::from_utf8(ran.stdout).unwrap(), String::from_utf8(ran.stderr).unwrap())
    };
    let right = format!("state = {state:?}\n[balancer]\ndriver = \"haproxy\"\nsocket = \"/x\"\nstate_file = \"/y\"\n");
    let (code, said, complaints) = check(&right);
    assert_eq!((code, complaints.as_str()), (Some(0), ""));
    assert!(said.contains("agent.toml is right") && said.contains("balancer     haproxy"), "{said}");
    assert!(!state.exists(), "nothing was made");
    let (code, said, complaints) = check(&right.replace("/x", "127.0.0.1:9999"));
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert!(complaints.contains("B0439"), "{complaints}");
    let (code, said, complaints) = check("stat = \"/x\"\nruntime = \"docker\"\n[balancer]\ndriver = \"haproxi\"\n");
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert_eq!(complaints.matches("error[B0530]").count(), 3, "{complaints}");
    for place in ["agent.toml:1:1", "agent.toml:2:11", "agent.toml:4:10"] {
        assert!(complaints.contains(place), "{place}: {complaints}");
    }
}
