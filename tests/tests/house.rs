//! The house stays as it is meant: what each room may know, how large a page may be, which names are no names.
//!
//! `ARCHITECTURE.md` says these rules in words; here they are kept.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Everything `core` may use: small, pure, no I/O.
const CORE_LIST: [&str; 9] =
    ["blake3", "humantime", "litemap", "regex-lite", "serde", "smol_str", "thiserror", "toml", "twox-hash"];

/// Which rooms a room may import.
const IMPORTS: [(&str, &[&str]); 11] = [
    ("core", &[]),
    ("proto", &["core"]),
    ("agent", &["core", "proto"]),
    ("coordinator", &["core", "proto"]),
    ("cli", &["core", "proto", "agent", "coordinator"]),
    (
        "tests",
        &["core", "proto", "agent", "coordinator", "cli", "simulation", "core-mutant", "model-mutant", "simulation-mutant"],
    ),
    ("tests/model", &["core"]),
    ("tests/mutants/core", &[]),
    ("tests/mutants/model", &["core"]),
    ("tests/mutants/simulation", &["core"]),
    ("tests/simulation", &["core"]),
];

/// A file longer than this is looking for its second idea.
const LONGEST_FILE: usize = 500;

/// Words that say where something was left and not what it is.
const NO_NAMES: [&str; 12] =
    ["util", "utils", "helper", "helpers", "common", "manager", "handler", "handlers", "misc", "data", "info", "stuff"];

/// What a pure room never mentions outside its tests, each with its reason.
const IMPURE: [(&str, &str); 16] = [
    ("std::time::Instant", "time is an argument"),
    ("std::time::SystemTime", "no wall clock in a decision"),
    ("Instant::now", "time is an argument"),
    ("SystemTime", "no wall clock in a decision"),
    ("std::fs", "no files"),
    ("std::env", "no environment"),
    ("std::process", "no processes"),
    ("std::thread", "no threads"),
    ("std::io", "no I/O"),
    ("TcpStream", "no sockets"),
    ("TcpListener", "no sockets"),
    ("UdpSocket", "no sockets"),
    ("UnixStream", "no sockets"),
    ("HashMap", "its order is random"),
    ("tokio", "no runtime"),
    ("tracing", "no logging"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The files below a folder with this extension, without what is built or generated.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for path in entries.map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap().to_string_lossy().to_string();
            if path.is_dir() && !matches!(name.as_str(), "target" | "dist" | "gen") && !name.starts_with('.') {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no .{extension} files below {}", folder.display());
    found
}

fn rust_files() -> Vec<PathBuf> {
    IMPORTS.iter().filter(|(room, _)| !room.contains('/')).flat_map(|(room, _)| files(&root().join(room), "rs")).collect()
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn manifest(path: &str) -> toml::Table {
    fs::read_to_string(root().join(path)).unwrap().parse().unwrap()
}

fn table(of: &toml::Table, name: &str) -> toml::Table {
    of.get(name).and_then(|it| it.as_table()).cloned().unwrap_or_default()
}

/// The lines of a source file that are code: no comments, and nothing from its test module on.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .take_while(|line| !line.starts_with("mod tests {"))
        .enumerate()
        .map(|(number, line)| (number + 1, line.split("//").next().unwrap_or_default()))
}

fn is_test(path: &Path) -> bool {
    let below = path.strip_prefix(root()).unwrap_or(path);
    below.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs")))
}

#[track_caller]
fn nothing(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn core_depends_on_its_list_and_on_nothing_else() {
    let core = manifest("core/Cargo.toml");
    let depends: BTreeSet<String> = table(&core, "dependencies").keys().cloned().collect();
    assert_eq!(depends, CORE_LIST.map(String::from).into());
    for elsewhere in ["dev-dependencies", "build-dependencies", "target", "features"] {
        assert!(!core.contains_key(elsewhere), "core/Cargo.toml has [{elsewhere}]");
    }
}

#[test]
fn a_crate_with_mistakes_depends_on_what_the_one_without_does() {
    for room in ["core", "simulation", "model"] {
        let right = if room == "core" { "core/Cargo.toml".to_owned() } else { format!("tests/{room}/Cargo.toml") };
        let depends = |path: &str| table(&manifest(path), "dependencies").keys().cloned().collect::<BTreeSet<String>>();
        assert_eq!(depends(&format!("tests/mutants/{room}/Cargo.toml")), depends(&right), "{room}");
    }
}

#[test]
fn imports_point_one_way() {
    let mut wrong = Vec::new();
    for (room, allowed) in IMPORTS {
        let cargo = manifest(&format!("{room}/Cargo.toml"));
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for name in table(&cargo, kind).keys() {
                let imported = match name.as_str() {
                    "baton" => "cli",
                    other => other.strip_prefix("baton-").unwrap_or(""),
                };
                if !imported.is_empty() && !allowed.contains(&imported) {
                    wrong.push(format!("{room}/Cargo.toml: {room} must not import {imported}"));
                }
            }
        }
    }
    nothing(&wrong);
}

#[test]
fn every_room_is_in_the_workspace_and_keeps_its_lints() {
    let workspace = manifest("Cargo.toml");
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let members: BTreeSet<&str> = members.iter().map(|member| member.as_str().unwrap()).collect();
    assert_eq!(members, IMPORTS.map(|(room, _)| room).into());
    assert_eq!(workspace["workspace"]["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
    for (room, _) in IMPORTS {
        let lints = table(&manifest(&format!("{room}/Cargo.toml")), "lints");
        assert_eq!(lints.get("workspace").and_then(toml::Value::as_bool), Some(true), "{room}");
    }
}

#[test]
fn every_dependency_names_the_features_it_uses() {
    let workspace = manifest("Cargo.toml");
    let mut wrong = Vec::new();
    for (name, how) in workspace["workspace"]["dependencies"].as_table().unwrap() {
        let own = how.get("path").is_some();
        if !own && how.get("default-features").and_then(toml::Value::as_bool) != Some(false) {
            wrong.push(format!("Cargo.toml: {name} has its default features on"));
        }
    }
    for (room, _) in IMPORTS {
        let cargo = manifest(&format!("{room}/Cargo.toml"));
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, how) in table(&cargo, kind) {
                let mutant = how.get("package").and_then(toml::Value::as_str).is_some_and(|it| it == "baton-core-mutant");
                if !mutant && how.get("workspace").and_then(toml::Value::as_bool) != Some(true) {
                    wrong.push(format!("{room}/Cargo.toml: {name} does not come from [workspace.dependencies]"));
                }
            }
        }
    }
    nothing(&wrong);
}

#[test]
fn core_mentions_nothing_that_looks_at_the_world() {
    let mut wrong = Vec::new();
    for path in files(&root().join("core/src"), "rs").iter().filter(|path| !is_test(path)) {
        let text = fs::read_to_string(path).unwrap();
        for (number, line) in code_lines(&text) {
            for (word, reason) in IMPURE.iter().filter(|(word, _)| line.contains(word)) {
                wrong.push(format!("{}:{number}: {word}: {reason}", shown(path)));
            }
            if line.contains("async fn") || line.contains(".await") {
                wrong.push(format!("{}:{number}: core is not asynchronous", shown(path)));
            }
        }
    }
    nothing(&wrong);
}

#[test]
fn the_command_line_knows_agent_and_coordinator_only_in_its_demo() {
    let mut wrong = Vec::new();
    for path in files(&root().join("cli"), "rs") {
        // It asks the agent's reader of archives, and starts nothing.
        let reads = path == root().join("cli/src/archive.rs");
        if path.starts_with(root().join("cli/src/demo")) || reads {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in code_lines(&text) {
            if line.contains("baton_agent") || line.contains("baton_coordinator") {
                wrong.push(format!("{}:{number}: only cli/src/demo starts agents and coordinators", shown(&path)));
            }
        }
    }
    nothing(&wrong);
}

#[test]
fn no_file_is_longer_than_it_can_be_read() {
    let long = |path: &PathBuf| {
        let lines = fs::read_to_string(path).unwrap().lines().count();
        (lines > LONGEST_FILE).then(|| format!("{}: {lines} lines, {LONGEST_FILE} at most", shown(path)))
    };
    nothing(&rust_files().iter().filter_map(long).collect::<Vec<_>>());
}

#[test]
fn names_say_what_a_thing_is() {
    let mut wrong = Vec::new();
    for path in rust_files() {
        let below = path.strip_prefix(root()).unwrap().with_extension("");
        let parts = below.components().map(|part| part.as_os_str().to_string_lossy().to_string());
        let words: Vec<String> = parts.flat_map(|part| part.split('_').map(String::from).collect::<Vec<_>>()).collect();
        wrong.extend(
            words
                .iter()
                .filter(|word| NO_NAMES.contains(&word.as_str()))
                .map(|word| format!("{}: `{word}` names nothing", shown(&path))),
        );
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let rest = line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
            let name = rest.strip_prefix("mod ").and_then(|rest| rest.split([';', ' ', '{']).next());
            if name.is_some_and(|name| NO_NAMES.contains(&name)) {
                wrong.push(format!("{}:{}: `{}` names nothing", shown(&path), number + 1, name.unwrap_or_default()));
            }
        }
    }
    nothing(&wrong);
}

#[test]
fn a_rule_that_is_broken_is_seen() {
    let lines: Vec<(usize, &str)> = code_lines("use std::fs; // fine\n// std::env\nmod tests {\nstd::process\n").collect();
    assert_eq!(lines, [(1, "use std::fs; "), (2, "")]);
    assert!(is_test(&root().join("core/src/manifest/tests/sound.rs")) && !is_test(Path::new("core/src/time.rs")));
}
