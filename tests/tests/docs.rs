//! What the documents say is there: links lead somewhere, commands exist, tables are what the code says.
//!
//! `BATON_REGENERATE=1 cargo test -p baton-tests --test docs` writes the tables anew.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use baton_cli::args::Cli;
use baton_cli::verbs::explain;
use baton_core::manifest::keys::{Fallback, KEYS, Kind};
use baton_core::manifest::{Severity, parse};
use clap::CommandFactory;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every page of the repository, by its path from the root.
fn pages() -> Vec<String> {
    let mut pages = Vec::new();
    for folder in ["", "docs"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().to_string_lossy().to_string();
            if name.ends_with(".md") {
                pages.push(if folder.is_empty() { name } else { format!("{folder}/{name}") });
            }
        }
    }
    pages.sort();
    assert!(pages.len() >= 10, "{pages:?}");
    pages
}

/// The fenced blocks of a page: language and text.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in page.lines() {
        match (line.trim_start().strip_prefix("```"), open.take()) {
            (Some(language), None) => open = Some((language.to_string(), String::new())),
            (Some(_), Some(block)) => blocks.push(block),
            (None, Some((language, text))) => open = Some((language, text + line + "\n")),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is never closed");
    blocks
}

/// The page without its fenced blocks.
fn prose(page: &str) -> String {
    let mut inside = false;
    let keep = |line: &&str| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        !inside && !fence
    };
    page.lines().filter(keep).collect::<Vec<_>>().join("\n")
}

/// A heading's anchor, the way GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading
        .trim()
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .collect::<String>();
    kept.replace(' ', "-")
}

#[track_caller]
fn nothing(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn links_lead_somewhere() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in pages() {
        let text = prose(&read(&page));
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("https://") {
                continue;
            }
            seen += 1;
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let base = root().join(&page);
            let target = if file.is_empty() { base } else { base.parent().unwrap().join(file) };
            if !target.exists() {
                wrong.push(format!("{page}: {link} is not there"));
            } else if !heading.is_empty() {
                let headings = fs::read_to_string(&target).unwrap();
                let mut anchors =
                    headings.lines().filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#')));
                if !anchors.any(|it| it == heading) {
                    wrong.push(format!("{page}: {link} has no such heading"));
                }
            }
        }
    }
    assert!(seen > 20, "{seen} links are too few to be all");
    nothing(&wrong);
}

/// Paths that pages mention in code, such as `core/src/host/plan.rs`.
#[test]
fn files_that_are_mentioned_exist() {
    const ROOMS: [&str; 8] = ["core/", "proto/", "agent/", "coordinator/", "cli/", "packaging/", "tests/", "docs/"];
    let mut wrong = Vec::new();
    for page in pages() {
        let text = read(&page);
        let words = text.split(|c: char| c.is_whitespace() || matches!(c, '`' | '(' | ')' | ',' | ';' | '|' | '{'));
        for word in words.map(|word| word.trim_end_matches(['.', ':'])) {
            let path = ROOMS.iter().any(|room| word.starts_with(room)) && !word.contains(['*', '<']);
            if path && !root().join(word).exists() && !root().join("docs").join(word).exists() {
                wrong.push(format!("{page}: {word} is not there"));
            }
        }
    }
    nothing(&wrong);
}

#[test]
fn the_architecture_fits_on_its_page() {
    assert!(read("ARCHITECTURE.md").lines().count() <= 200);
}

#[test]
fn both_readmes_show_the_same_commands() {
    let (english, korean) = (blocks(&read("README.md")), blocks(&read("README.ko.md")));
    assert_eq!(english, korean);
    for command in ["cargo run --release -- demo\n", "cargo test --workspace\n"] {
        assert!(english.contains(&("sh".into(), command.into())), "{command}");
    }
    let headings = |page: &str| prose(&read(page)).lines().filter(|line| line.starts_with('#')).count();
    assert_eq!(headings("README.md"), headings("README.ko.md"));
}

/// From two machines with nothing on them to a service that runs.
#[test]
fn the_first_five_minutes_take_at_most_twelve_commands() {
    let page = read("README.md");
    let (_, rest) = page.split_once("\n## The first five minutes\n").unwrap();
    let (way, _) = rest.split_once("From another machine").unwrap();
    let shells: Vec<_> = blocks(way).into_iter().filter(|(language, _)| language == "sh").map(|(_, text)| text).collect();
    let commands: Vec<_> = shells.iter().flat_map(|text| text.lines()).filter(|line| !line.is_empty()).collect();
    assert!(commands.last().is_some_and(|last| last.starts_with("baton deploy ")), "{commands:?}");
    assert!(commands.len() <= 12, "{commands:?}");
}

#[test]
fn the_readmes_first_command_runs_the_demo() {
    let workspace: toml::Table = read("Cargo.toml").parse().unwrap();
    assert_eq!(workspace["workspace"]["default-members"].as_array().unwrap(), &[toml::Value::from("cli")]);
    let cli: toml::Table = read("cli/Cargo.toml").parse().unwrap();
    assert_eq!(cli["package"]["default-run"].as_str(), Some("baton"));
    for arguments in ["demo", "demo --ci --json", "demo --balancer haproxy"] {
        let line = ["baton"].into_iter().chain(arguments.split(' '));
        Cli::command().try_get_matches_from(line).unwrap_or_else(|error| panic!("{arguments}: {error}"));
    }
}

/// Commands in fenced shell blocks are parsed whole; those between backticks must at least begin with a verb there is.
#[test]
fn every_command_of_baton_exists() {
    let mut command = Cli::command();
    // `help` is there once it is built.
    command.build();
    let verbs: BTreeSet<String> = command.get_subcommands().map(|verb| verb.get_name().to_string()).collect();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in pages() {
        let text = read(&page);
        let lines =
            blocks(&text).into_iter().filter(|(language, _)| language == "sh").map(|(_, text)| text).collect::<String>();
        for line in lines.lines().filter(|line| line.starts_with("baton ")) {
            seen += 1;
            let words = line.split(" > ").next().unwrap_or_default().split_whitespace();
            if let Err(error) = Cli::command().try_get_matches_from(words) {
                wrong.push(format!("{page}: {line}\n{error}"));
            }
        }
        for code in prose(&text).split('`').skip(1).step_by(2).filter_map(|code| code.strip_prefix("baton ")) {
            seen += 1;
            let verb = code.split_whitespace().next().unwrap_or_default();
            if !verbs.contains(verb) {
                wrong.push(format!("{page}: `baton {code}`: there is no verb {verb}"));
            }
        }
    }
    assert!(seen > 20, "{seen} commands are too few to be all");
    nothing(&wrong);
}

#[test]
fn every_manifest_on_a_page_is_sound() {
    let mut seen = 0;
    for page in pages() {
        for (_, text) in
            blocks(&read(&page)).into_iter().filter(|(language, text)| language == "toml" && text.contains("service ="))
        {
            seen += 1;
            let manifest = parse(&page, &text).unwrap_or_else(|found| {
                panic!("{}", found.iter().map(|it| it.render()).collect::<String>());
            });
            assert!(manifest.warnings.iter().all(|it| it.severity == Severity::Error), "{page}: {:?}", manifest.warnings);
        }
    }
    assert!(seen >= 3, "{seen} manifests");
}

#[test]
fn the_errors_a_page_shows_are_the_ones_people_see() {
    let page = read("docs/manifest.md");
    let (_, shown) = blocks(&page).into_iter().find(|(_, text)| text.starts_with("error[")).unwrap();
    let sample = blocks(&page).into_iter().find(|(language, _)| language == "toml").unwrap().1;
    let found = parse("baton.toml", &sample.replace("command", "comand")).unwrap_err();
    assert_eq!(found.iter().map(|it| it.render()).collect::<String>(), shown);
}

/// Compares the part of a page between two marks with what the code says, or writes it.
fn generated(path: &str, mark: &str, fresh: &str) {
    let page = read(path);
    let begin = page.find(&format!("<!-- {mark}:")).and_then(|at| page[at..].find("-->\n").map(|end| at + end + 4)).unwrap();
    let end = page.find(&format!("<!-- /{mark} -->")).unwrap();
    if std::env::var_os("BATON_REGENERATE").is_some() {
        fs::write(root().join(path), format!("{}{fresh}{}", &page[..begin], &page[end..])).unwrap();
    } else {
        assert!(
            &page[begin..end] == fresh,
            "{path} is not what the code says: BATON_REGENERATE=1 cargo test -p baton-tests --test docs\n{fresh}"
        );
    }
}

#[test]
fn the_manifests_reference_is_the_parsers_own_table() {
    let mut table = String::from("| key | value | default | |\n|---|---|---|---|\n");
    for key in KEYS {
        let kind = match key.kind {
            Kind::OneOf(words) => words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", "),
            other => other.expected().replace(", such as \"30s\"", "").replace(" such as \"25%\"", ""),
        };
        let fallback = match key.fallback {
            Fallback::Required => "*required*".to_string(),
            Fallback::Absent => String::new(),
            Fallback::Value(value) if key.kind == Kind::Amount => format!("`{value}`"),
            Fallback::Value(value) if key.kind == Kind::Waves => format!("`[\"{value}\"]`"),
            Fallback::Value(value) => format!("`\"{value}\"`"),
            Fallback::Derived(words) => words.to_string(),
        };
        table.push_str(&format!("| `{}` | {kind} | {fallback} | {} |\n", key.path, key.doc));
    }
    generated("docs/manifest.md", "keys", &table);
}

#[test]
fn the_list_of_codes_is_that_of_baton_explain() {
    const RANGES: [(u16, &str); 10] = [
        (100, "The manifest"),
        (200, "Start and readiness"),
        (300, "Drain"),
        (400, "Load balancers"),
        (500, "Agent, network, TLS"),
        (600, "Artifacts and space"),
        (700, "Refusals"),
        (800, "Hooks"),
        (900, "Analysis"),
        (1000, "Coordinator and store"),
    ];
    let mut text = String::new();
    for (begin, title) in RANGES {
        let mut known: Vec<_> = explain::all().filter(|it| (begin..begin + 100).contains(&number(&it.code))).collect();
        known.sort_by_key(|it| number(&it.code));
        if known.is_empty() {
            continue;
        }
        text.push_str(&format!("## {title}\n\n"));
        for it in known {
            text.push_str(&format!("### {}: {}\n\n{}\n\n", it.code, it.title, it.text));
        }
    }
    generated("docs/errors.md", "codes", &text);
}

/// The number of `B0123`.
fn number(code: &str) -> u16 {
    code.trim_start_matches('B').parse().unwrap()
}

/// The number in each `Code(123)` of a line.
fn codes_in(line: &str) -> impl Iterator<Item = u16> {
    line.split("Code(").skip(1).filter_map(|rest| rest.split(')').next()?.parse().ok())
}

/// Every code that the sources of a room make, outside its tests.
fn codes_of(room: &str) -> BTreeSet<u16> {
    let mut codes = BTreeSet::new();
    let mut folders = vec![root().join(room).join("src")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap().to_string_lossy().to_string();
            if path.is_dir() && !matches!(name.as_str(), "gen" | "tests") {
                folders.push(path);
            } else if name.ends_with(".rs") && name != "tests.rs" {
                let text = fs::read_to_string(&path).unwrap();
                let code = text
                    .lines()
                    .take_while(|line| !line.starts_with("mod tests"))
                    .filter(|line| !line.contains("==") && !line.contains("//"));
                codes.extend(code.flat_map(codes_in).filter(|code| *code > 0));
            }
        }
    }
    codes
}

#[test]
fn a_code_means_one_thing_and_is_explained() {
    // A host and the coordinator each keep artifacts and say the same of them; "no such service" is said before and after
    // the question reached the planner.
    const SHARED: [u16; 4] = [601, 602, 604, 709];
    let rooms = ["core", "proto", "agent", "coordinator", "cli"].map(|room| (room, codes_of(room)));
    let known: BTreeSet<u16> = explain::all().map(|it| number(&it.code)).collect();
    let mut wrong = Vec::new();
    for (room, codes) in &rooms {
        for code in codes {
            if !known.contains(code) {
                wrong.push(format!("B{code:04} of {room} is not explained: cli/src/verbs/explain/known.txt"));
            }
            for (other, theirs) in rooms.iter().filter(|(other, _)| room < other) {
                if theirs.contains(code) && !SHARED.contains(code) {
                    wrong.push(format!("B{code:04} is made in {room} and in {other}"));
                }
            }
        }
    }
    nothing(&wrong);
}

#[test]
fn a_new_manifest_shows_the_defaults_there_are() {
    let text = read("cli/src/verbs/init/starter.toml");
    let (mut table, mut seen) = (String::new(), 0);
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            table = name.to_string();
        }
        let Some((key, value)) = line.strip_prefix('#').and_then(|line| line.split_once(" = ")) else { continue };
        if key.contains(' ') {
            continue;
        }
        let path = format!("{table}.{key}");
        let known = KEYS.iter().find(|it| it.path == path).unwrap_or_else(|| panic!("{path} is no key"));
        if let Fallback::Value(default) = known.fallback {
            seen += 1;
            assert_eq!(value.trim_matches('"'), default, "{path}");
        }
    }
    assert!(seen >= 5, "{seen} defaults");
}

#[test]
fn man_pages_name_every_verb_key_and_setting() {
    let plain = |page: &str| read(&format!("packaging/man/{page}")).replace("\\-", "-");
    let mut wrong = Vec::new();
    let manifest = plain("baton.toml.5");
    for key in KEYS.iter().filter(|key| !manifest.contains(&format!("\n.B {}\n", key.path))) {
        wrong.push(format!("baton.toml(5): {}", key.path));
    }
    let baton = plain("baton.1");
    let command = Cli::command();
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let name = verb.get_name();
        let heads = [".BR", ".BI", ".B"].map(|font| format!("\n.TP\n{font} {name}"));
        if !heads.iter().any(|head| baton.contains(head.as_str())) {
            wrong.push(format!("baton(1): {name}"));
        }
    }
    for (page, settings) in [("baton-agent", "agent"), ("baton-coordinator", "coordinator")] {
        let file = read(&format!("packaging/{page}/root/etc/baton/{settings}.toml"));
        let text = plain(&format!("{page}.8"));
        let keys = file.lines().filter_map(|line| line.strip_prefix('#')?.split_once(" = ")).map(|(key, _)| key);
        for key in keys.filter(|key| !key.contains(' ') && !text.contains(key)) {
            wrong.push(format!("{page}(8): {key}"));
        }
    }
    nothing(&wrong);
}

#[test]
fn every_file_that_is_installed_is_on_the_page_of_packages() {
    let page = read("docs/packages.md");
    let (mut seen, mut wrong) = (0, Vec::new());
    for package in ["baton", "baton-agent", "baton-coordinator"] {
        let section = page.split("\n## ").find(|section| section.starts_with(&format!("{package}\n"))).unwrap();
        let files = root().join("packaging").join(package).join("root");
        let mut folders = vec![files.clone()];
        let mut installed = vec![format!("/usr/bin/{package}")];
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    folders.push(path);
                } else {
                    installed.push(format!("/{}", path.strip_prefix(&files).unwrap().display()));
                }
            }
        }
        let manual = fs::read_dir(root().join("packaging/man")).unwrap().map(|entry| entry.unwrap().file_name());
        for name in manual.map(|name| name.to_string_lossy().to_string()) {
            let (of, number) = name.rsplit_once('.').unwrap();
            if of.strip_suffix(".toml").unwrap_or(of) == package {
                installed.push(format!("/usr/share/man/man{number}/{name}.gz"));
            }
        }
        for file in &installed {
            seen += 1;
            if !section.contains(&format!("`{file}`")) {
                wrong.push(format!("docs/packages.md: {package} has {file}"));
            }
        }
    }
    assert!(seen > 15, "{seen} files are too few to be all");
    nothing(&wrong);
}
