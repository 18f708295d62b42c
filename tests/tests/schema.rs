//! The JSON Schema of a manifest says what the parser says: manifests that are sound are valid, and what the parser calls
//! unknown, missing, or of the wrong type is not.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use baton_cli::verbs::config::schema;
use baton_core::manifest::keys::{KEYS, Kind, LATER};
use baton_core::manifest::{codes, parse};
use baton_core::problem::Code;
use jsonschema::Validator;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "packaging/baton/root/usr/share/doc/baton/examples";
const GOLDEN: &str = "core/src/manifest/tests/golden";

/// Nothing in it can be left out.
const SMALLEST: &str = "service = \"shop\"
hosts = [\"web1\"]
artifact = { path = \"shop-{version}.tar.zst\" }
run = { command = \"bin/shop\", ports = [8101] }
health = { tcp = true }
";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn validator() -> Validator {
    jsonschema::draft7::new(&schema()).unwrap()
}

/// The manifests of a folder: path and text.
fn manifests(folder: &str) -> Vec<(String, String)> {
    let entries = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|it| it == "toml"))
        .map(|path| (path.display().to_string(), fs::read_to_string(&path).unwrap()))
        .collect();
    found.sort();
    found
}

/// A manifest as an editor hands it to a validator; None: it is not even TOML.
fn json(text: &str) -> Option<Value> {
    Some(serde_json::to_value(text.parse::<toml::Table>().ok()?).unwrap())
}

fn complaints(validator: &Validator, manifest: &Value) -> Vec<String> {
    validator.iter_errors(manifest).map(|error| format!("{} {error}", error.instance_path())).collect()
}

/// The codes with which the parser refuses a manifest; empty: it takes it.
fn refused(text: &str) -> Vec<Code> {
    parse("baton.toml", text).err().into_iter().flatten().map(|it| it.code).collect()
}

/// The manifest with another value at a place; tables on the way are made.
fn with(mut manifest: toml::Table, place: &str, value: toml::Value) -> toml::Table {
    let (first, rest) = place.split_once('.').map_or((place, None), |(first, rest)| (first, Some(rest)));
    let value = match rest {
        None => value,
        Some(rest) => {
            let inner = manifest.get(first).and_then(toml::Value::as_table).cloned().unwrap_or_default();
            toml::Value::Table(with(inner, rest, value))
        }
    };
    manifest.insert(first.to_owned(), value);
    manifest
}

/// A manifest as text, a line a key.
fn text_of(manifest: &toml::Table) -> String {
    manifest.iter().map(|(name, value)| format!("{name} = {}\n", inline(value))).collect()
}

fn inline(value: &toml::Value) -> String {
    let listed = |items: Vec<String>| items.join(", ");
    match value {
        toml::Value::String(text) => format!("{text:?}"),
        toml::Value::Array(items) => format!("[{}]", listed(items.iter().map(inline).collect())),
        toml::Value::Table(table) => {
            format!("{{ {} }}", listed(table.iter().map(|(name, value)| format!("{name} = {}", inline(value))).collect()))
        }
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(flag) => flag.to_string(),
        toml::Value::Datetime(time) => panic!("no key is a time: {time:?}"),
    }
}

#[test]
fn every_sound_manifest_is_valid_and_what_the_parser_cannot_read_is_not() {
    // What a schema can see: the rest is what keys say together, and what a name or a command may be.
    const SEEN: [Code; 6] =
        [codes::UNKNOWN_KEY, codes::WRONG_TYPE, codes::MISSING, codes::NOT_YET, codes::NOT_A_CHOICE, codes::NO_HOSTS];
    let validator = validator();
    let mut wrong = 0;
    for (path, text) in manifests(GOLDEN) {
        let (Some(manifest), codes) = (json(&text), refused(&text)) else { continue };
        let complaints = complaints(&validator, &manifest);
        // Those with nothing but warnings.
        assert!(!codes.is_empty() || complaints.is_empty(), "{path}: {complaints:#?}");
        if codes.iter().any(|code| SEEN.contains(code)) {
            wrong += 1;
            assert!(!complaints.is_empty(), "{path}: the parser says {codes:?}");
        }
    }
    assert!(wrong >= 15, "{wrong} are too few to be all");
}

#[test]
fn every_example_and_every_manifest_on_a_page_is_valid() {
    let validator = validator();
    let mut all = manifests(EXAMPLES);
    assert!(all.len() >= 3, "{all:?}");
    for (path, text) in &all {
        let manifest = parse(path, text).unwrap_or_else(|found| panic!("{path}: {found:#?}"));
        assert_eq!(manifest.warnings, [], "{path}");
        assert!(text.starts_with("#:schema /usr/share/baton/manifest.schema.json\n"), "{path}");
    }
    all.push(("baton init".to_owned(), baton_cli::verbs::init::starter(&"shop".parse().unwrap())));
    for page in fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()) {
        let text = fs::read_to_string(&page).unwrap();
        let blocks = text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
        let manifests = blocks.filter(|block| block.contains("service ")).map(str::to_owned);
        all.extend(manifests.map(|block| (page.display().to_string(), block)));
    }
    assert!(all.len() >= 6, "{} are too few to be all", all.len());
    for (path, text) in all {
        let complaints = complaints(&validator, &json(&text).unwrap());
        assert!(complaints.is_empty(), "{path}: {complaints:#?}");
    }
}

#[test]
fn a_value_of_the_wrong_type_is_refused_at_every_key() {
    let (validator, smallest) = (validator(), SMALLEST.parse::<toml::Table>().unwrap());
    assert_eq!(refused(SMALLEST), []);
    assert_eq!(complaints(&validator, &json(SMALLEST).unwrap()), [] as [String; 0]);
    for key in KEYS {
        // No key is a number with a fraction.
        let text = text_of(&with(smallest.clone(), key.path, toml::Value::Float(1.5)));
        assert!(!refused(&text).is_empty(), "{} takes 1.5", key.path);
        let complaints = complaints(&validator, &json(&text).unwrap());
        assert!(complaints.iter().any(|it| it.contains(&key.path.replace('.', "/"))), "{}: {complaints:#?}", key.path);
    }
}

#[test]
fn what_has_no_default_is_required_and_what_is_planned_is_refused() {
    let (validator, smallest) = (validator(), SMALLEST.parse::<toml::Table>().unwrap());
    let is_refused = |manifest: &toml::Table| {
        let text = text_of(manifest);
        assert!(!refused(&text).is_empty(), "the parser takes {text}");
        assert!(!validator.is_valid(&json(&text).unwrap()), "the schema takes {text}");
    };
    for name in smallest.keys() {
        let mut without = smallest.clone();
        without.remove(name);
        is_refused(&without);
        for inner in smallest[name].as_table().into_iter().flat_map(toml::Table::keys) {
            let mut table = smallest[name].as_table().unwrap().clone();
            table.remove(inner);
            is_refused(&with(smallest.clone(), name, toml::Value::Table(table)));
        }
    }
    let text = |text: &str| toml::Value::String(text.to_owned());
    is_refused(&with(smallest.clone(), "balancer.pool", text("shop")));
    is_refused(&with(smallest.clone(), "health.http", text("/")));
    is_refused(&with(smallest.clone(), "hooks.migrate.timeout", text("1m")));
    is_refused(&with(smallest.clone(), "guard.metrics.path", text("/metrics")));
    is_refused(&with(smallest.clone(), "guard.prometheus.url", text("http://prometheus:9090")));
    for place in LATER {
        is_refused(&with(smallest.clone(), place, text("x")));
    }
}

/// What is written in words of its own, as people write it.
#[test]
fn the_words_for_times_and_shares_are_those_of_the_parser() {
    let (validator, smallest) = (validator(), SMALLEST.parse::<toml::Table>().unwrap());
    let (smallest, number) = (with(smallest, "balancer.on", toml::Value::from(vec!["lb1"])), toml::Value::Integer);
    // Rules are for a first wave that leaves somebody for the rest.
    let smallest = with(smallest, "hosts", toml::Value::from(vec!["web1", "web2"]));
    let smallest = with(smallest, "rollout.waves", toml::Value::from(vec![1]));
    let text = |words: &str| toml::Value::String(words.to_owned());
    let good = [
        ("rollout.drain", vec![text("30s"), text("0s"), text("1m 30s"), text("1 hour"), text(" 500ms "), text("2h30m")]),
        ("rollout.max_unavailable", vec![number(1), text("1"), text("100%")]),
        ("rollout.waves", vec![toml::Value::from(vec!["100%"]), toml::Value::from(vec![1])]),
        ("guard.confidence", vec![text("99%"), text("99.9 %")]),
        ("guard.tolerance", vec![text("1.2x + 0.1%"), text("2x"), text("0.05%+2x")]),
        ("gate.rule_out", vec![text("+1%"), text("0.5%")]),
        ("proof.max_failed", vec![number(0)]),
        ("rollout.match", vec![toml::Value::from(vec!["header X-Beta = 1"])]),
    ];
    let bad = [
        ("rollout.drain", vec![text("30"), text("soon"), text("")]),
        ("rollout.max_unavailable", vec![number(-1), text("a few"), text("1.5%"), text("-1")]),
        ("guard.confidence", vec![text("99")]),
        ("guard.tolerance", vec![text("twice")]),
        ("gate.rule_out", vec![text("+1")]),
        ("proof.max_failed", vec![number(-1)]),
        (
            "run.ports",
            vec![toml::Value::from(vec![0]), toml::Value::from(vec![70_000]), toml::Value::from(vec![8101, 8101])],
        ),
        ("run.stop.signal", vec![text("SIGKILL")]),
    ];
    for (values, right) in [(&good[..], true), (&bad[..], false)] {
        for (place, value) in values.iter().flat_map(|(place, values)| values.iter().map(move |value| (*place, value))) {
            let written = text_of(&with(smallest.clone(), place, value.clone()));
            assert_eq!(refused(&written).is_empty(), right, "the parser: {written}\n{:?}", refused(&written));
            assert_eq!(validator.is_valid(&json(&written).unwrap()), right, "the schema: {written}");
        }
    }
    let kinds = KEYS.iter().filter(|key| matches!(key.kind, Kind::Tolerance | Kind::Regression | Kind::Confidence)).count();
    assert_eq!(kinds, 3, "another key has words of its own: add it above");
}
