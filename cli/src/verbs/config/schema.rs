//! The JSON Schema of a manifest, made from the parser's own table of keys, so that editors know what the parser knows.
//!
//! It says what each key may be, and not what keys say together: `baton config check` does that.

use baton_core::manifest::keys::{Fallback, KEYS, Key, Kind};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Tables that may be left out although they have a key without a default: then there is no load balancer.
const OPTIONAL: [&str; 1] = ["balancer"];

/// The whole schema. Draft 7: what editors of TOML understand.
#[must_use]
pub fn schema() -> Value {
    let mut schema = table("");
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["title"] = json!("Baton's manifest");
    schema["description"] = json!("baton.toml: what a service is, where it runs, and how its releases replace each other.");
    schema
}

/// A table with everything in it. The root is `""`.
fn table(path: &str) -> Value {
    let (mut properties, mut required) = (Map::new(), BTreeSet::new());
    for key in KEYS {
        let Some(rest) = below(path, key.path) else { continue };
        let (name, inner) = rest.split_once('.').map_or((rest, None), |(name, inner)| (name, Some(inner)));
        let place = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        if !properties.contains_key(name) {
            properties.insert(name.to_owned(), if inner.is_some() { table(&place) } else { value(key) });
        }
        if is_required(key) && !OPTIONAL.contains(&place.as_str()) {
            required.insert(name);
        }
    }
    let mut table = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    match path {
        "" => drop(required.insert("health")),
        "health" => table["oneOf"] = ["http", "tcp", "exec"].map(|probe| json!({ "required": [probe] })).into(),
        "guard.metrics" => required.extend(["requests", "errors"]),
        "guard.prometheus" => required.extend(["url", "requests", "errors"]),
        _ if path.starts_with("hooks.") => drop(required.insert("command")),
        _ => {}
    }
    if !required.is_empty() {
        table["required"] = json!(required);
    }
    table
}

fn below<'a>(table: &str, path: &'a str) -> Option<&'a str> {
    if table.is_empty() { Some(path) } else { path.strip_prefix(table)?.strip_prefix('.') }
}

fn is_required(key: &Key) -> bool {
    key.fallback == Fallback::Required
}

/// One key: what it may be, what it is for, and what holds without it.
fn value(key: &Key) -> Value {
    let mut value = kind(key.kind);
    let mut description = key.doc.to_owned();
    match key.fallback {
        Fallback::Required | Fallback::Absent => {}
        Fallback::Value(default) => value["default"] = fallback(key.kind, default),
        Fallback::Derived(words) => description.push_str(&format!(" Without it: {words}.")),
    }
    value["description"] = description.into();
    value
}

fn fallback(kind: Kind, default: &str) -> Value {
    match (kind, default.parse::<u64>()) {
        (Kind::Waves, _) => json!([default]),
        (Kind::Amount | Kind::Count, Ok(number)) => json!(number),
        _ => json!(default),
    }
}

fn kind(kind: Kind) -> Value {
    let amount = || json!({ "type": ["integer", "string"], "minimum": 0, "pattern": "^[0-9]+%?$" });
    let texts = || json!({ "type": "array", "items": { "type": "string" }, "minItems": 1, "uniqueItems": true });
    match kind {
        Kind::Text => json!({ "type": "string" }),
        Kind::OneOf(words) => json!({ "type": "string", "enum": words }),
        Kind::Hosts | Kind::Rules => texts(),
        Kind::Steps => json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 }),
        Kind::Ports => json!({
            "type": "array",
            "items": { "type": "integer", "minimum": 1, "maximum": u16::MAX },
            "minItems": 1,
            "uniqueItems": true,
        }),
        Kind::Duration => {
            json!({ "type": "string", "pattern": "^\\s*([0-9]+(\\.[0-9]+)?\\s*[a-zA-Zµ]+\\s*)+$|^\\s*0\\s*$" })
        }
        Kind::Amount => amount(),
        Kind::Waves => json!({ "type": "array", "items": amount() }),
        Kind::Addresses => json!({ "anyOf": [{ "type": "string" }, texts()] }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Variables => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Kind::Confidence => json!({ "type": "string", "pattern": "%\\s*$" }),
        Kind::Tolerance => json!({ "type": "string", "pattern": "^[0-9.x%+\\s]+$" }),
        Kind::Regression => json!({ "type": "string", "pattern": "^\\s*\\+?.*%\\s*$" }),
        Kind::Count => json!({ "type": "integer", "minimum": 0 }),
        Kind::Series => json!({ "type": "string", "pattern": "^\\s*[a-zA-Z_:][a-zA-Z0-9_:]*\\s*(\\{.*\\})?\\s*$" }),
    }
}
