//! docs/configuration.md and the manual pages know every key of the agent's and the coordinator's settings, and no other.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::Path;

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn agent(text: &str) -> Result<baton_agent::config::Config, toml::de::Error> {
    toml::from_str(text)
}

fn coordinator(text: &str) -> Result<baton_coordinator::config::Config, toml::de::Error> {
    toml::from_str(text)
}

/// The names in `unknown field ``x``, expected one of ``a``, ``b```: the type itself says what it knows.
fn expected<T: std::fmt::Debug>(refused: Result<T, toml::de::Error>) -> BTreeSet<String> {
    let said = refused.unwrap_err().message().to_owned();
    let (_, known) = said.split_once("expected").unwrap_or_else(|| panic!("{said}"));
    known.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn told(keys: baton_core::settings::Keys) -> BTreeSet<String> {
    keys.iter().map(|(key, _)| key.to_string()).collect()
}

fn drivers() -> BTreeSet<String> {
    expected(agent("[balancer]\ndriver = \"none of them\"\n"))
}

/// The page below a heading, up to the next of any level.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let at = page.find(&format!("{heading}\n")).unwrap_or_else(|| panic!("there is no `{heading}`")) + heading.len();
    let end = page[at..].find("\n##").map_or(page.len(), |end| at + end);
    &page[at..end]
}

/// The keys in the first column of a section's table.
fn rows(section: &str) -> BTreeSet<String> {
    section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(key, _)| key.to_owned()).collect()
}

/// The settings a section shows as an example.
fn example<'a>(section: &'a str, file: &str) -> &'a str {
    let marked = format!("```toml\n# {file}\n");
    let at = section.find(&marked).unwrap_or_else(|| panic!("no example of {file} in {section}")) + marked.len();
    section[at..].split("```").next().unwrap()
}

fn keys(settings: &toml::Table) -> BTreeSet<String> {
    settings.keys().cloned().collect()
}

/// The default that a key's row names.
fn default_of<'a>(section: &'a str, key: &str) -> &'a str {
    let row = section.lines().find(|line| line.starts_with(&format!("| `{key}` | "))).unwrap();
    row.split(" | ").nth(2).unwrap().trim_matches('`')
}

#[test]
fn every_key_of_the_agent_is_on_the_page_with_an_example_that_works() {
    let page = read("docs/configuration.md");
    let agents = section(&page, "## The agent: `/etc/baton/agent.toml`");
    let known = expected(agent("nobody_knows = 1\n"));
    assert_eq!(rows(agents), known);
    assert_eq!(told(baton_agent::config::KEYS), known, "the keys a refusal tells");
    let shown = example(agents, "agent.toml");
    agent(shown).unwrap();
    let mut examples = keys(&shown.parse().unwrap());
    examples.insert("balancer".to_owned());
    assert_eq!(examples, known);
    let allow = section(&page, "### `[allow]`");
    let known = expected(agent("[allow]\nnobody_knows = 1\n"));
    assert_eq!(rows(allow), known);
    assert_eq!(told(baton_agent::allow::KEYS), known, "the keys a refusal tells");
    let shown = example(allow, "agent.toml");
    agent(shown).unwrap();
    assert_eq!(keys(shown.parse::<toml::Table>().unwrap()["allow"].as_table().unwrap()), known);
    let usual = serde_json::to_value(agent("").unwrap()).unwrap();
    for key in &known {
        let shown: serde_json::Value = default_of(allow, key).parse().unwrap();
        assert_eq!(shown, usual["allow"][key], "{key}");
    }
    assert_eq!(drivers(), baton_agent::balancer::DRIVERS.iter().map(ToString::to_string).collect());
    for driver in drivers() {
        let drivers = section(&page, &format!("### `driver = \"{driver}\"`"));
        let known = expected(agent(&format!("[balancer]\ndriver = \"{driver}\"\nnobody_knows = 1\n")));
        assert_eq!(rows(drivers), known, "{driver}");
        assert_eq!(told(baton_agent::balancer::keys(&driver)), known, "the keys a refusal tells");
        let shown = example(drivers, "agent.toml");
        agent(shown).unwrap();
        let mut examples = keys(shown.parse::<toml::Table>().unwrap()["balancer"].as_table().unwrap());
        assert!(examples.remove("driver"));
        assert_eq!(examples, known, "{driver}");
    }
}

#[test]
fn every_key_of_the_coordinator_is_on_the_page_with_an_example_that_works() {
    let page = read("docs/configuration.md");
    let section = section(&page, "## The coordinator: `/etc/baton/coordinator.toml`");
    let known = expected(coordinator("nobody_knows = 1\n"));
    assert_eq!(rows(section), known);
    assert_eq!(told(baton_coordinator::config::KEYS), known, "the keys a refusal tells");
    let shown = example(section, "coordinator.toml");
    coordinator(shown).unwrap();
    // What is off unless it is asked for has nothing else to show than an example.
    let is_off = |line: &&str| line.split_once(" = ").is_some_and(|(key, _)| default_of(section, key) == "none");
    let defaults: Vec<&str> = shown.lines().filter(|line| !is_off(line)).collect();
    assert_eq!(coordinator(&defaults.join("\n")).unwrap(), coordinator("").unwrap(), "the example shows the defaults");
    let shown: toml::Table = shown.parse().unwrap();
    assert_eq!(keys(&shown), known);
    for (key, value) in shown.iter().filter(|(key, _)| default_of(section, key) != "none") {
        assert_eq!(default_of(section, key), serde_json::to_string(value).unwrap(), "{key}");
    }
}

#[test]
fn the_agents_defaults_on_the_page_are_the_programs() {
    let page = read("docs/configuration.md");
    let agents = section(&page, "## The agent: `/etc/baton/agent.toml`");
    let usual = serde_json::to_value(agent("").unwrap()).unwrap();
    for key in ["state", "runtime"] {
        assert_eq!(default_of(agents, key), usual[key].to_string(), "{key}");
    }
}

#[test]
fn the_manual_pages_know_every_key() {
    let page = |name: &str| read(&format!("packaging/man/{name}.toml.5")).replace("\\-", "-");
    let mut known = vec![("baton-agent", expected(agent("nobody_knows = 1\n")))];
    known.push(("baton-agent", expected(agent("[allow]\nnobody_knows = 1\n"))));
    known.push(("baton-coordinator", expected(coordinator("nobody_knows = 1\n"))));
    for driver in drivers() {
        known.push(("baton-agent", expected(agent(&format!("[balancer]\ndriver = \"{driver}\"\nnobody_knows = 1\n")))));
        assert!(page("baton-agent").contains(&format!("\n.SS {driver}\n")), "{driver}");
    }
    for (name, keys) in known {
        let missing: Vec<_> = keys.iter().filter(|key| !page(name).contains(&format!("\n.TP\n.B {key}\n"))).collect();
        assert!(missing.is_empty() && !keys.is_empty(), "{name}.toml(5): {missing:?}");
    }
}
