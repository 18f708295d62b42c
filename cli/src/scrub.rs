//! Takes out of what is about to be handed on whatever could be a secret. What is not known to be none is one.

use serde_json::Value;

/// What stands in a removed value's place.
pub const REMOVED: &str = "(removed)";

/// Settings whose text says where something is, and nothing else.
const PLAIN: [&str; 19] = [
    "address",
    "admin",
    "certificate_life",
    "config",
    "control",
    "coordinator",
    "driver",
    "folder",
    "include",
    "listen",
    "maps",
    "master_socket",
    "metrics",
    "name",
    "pid_file",
    "prefix",
    "runtime",
    "socket",
    "state",
];

/// What an application or its probe said in its own words.
const SPOKEN: [&str; 2] = ["last log", "probe"];

/// A settings file as JSON, with every value taken out that is not known to hold no secret; all of it where it is no TOML.
#[must_use]
pub fn settings(text: &str) -> String {
    let Ok(table) = text.parse::<toml::Table>() else { return REMOVED.to_owned() };
    let left: toml::Table = table.into_iter().map(|(key, value)| plain(key, value)).collect();
    serde_json::to_string_pretty(&left).unwrap_or_else(|_| REMOVED.to_owned())
}

fn plain(key: String, value: toml::Value) -> (String, toml::Value) {
    let value = match value {
        toml::Value::Table(table) => {
            let known = key == "balancer" || key == "listen";
            let each = table.into_iter().map(|(key, value)| match value {
                toml::Value::String(text) if known && text.parse::<std::net::SocketAddr>().is_ok() => {
                    (key, toml::Value::String(text))
                }
                value => plain(key, value),
            });
            toml::Value::Table(each.collect())
        }
        // Somebody's password may stand before an address.
        toml::Value::String(text) if PLAIN.contains(&key.as_str()) && !text.contains('@') => toml::Value::String(text),
        toml::Value::String(_) | toml::Value::Array(_) => toml::Value::String(REMOVED.to_owned()),
        other => other,
    };
    (key, value)
}

/// A document of the coordinator's without the words of applications, which may say anything.
pub fn words(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let spoken = fields.get("label").and_then(Value::as_str).is_some_and(|label| SPOKEN.contains(&label));
            if let Some(evidence) = fields.get_mut("evidence").filter(|it| spoken && it.is_string()) {
                *evidence = Value::from(REMOVED);
            }
            fields.values_mut().for_each(words);
        }
        Value::Array(all) => {
            // Evidence as core writes it: a label and what was seen.
            if let [Value::String(label), seen @ Value::String(_)] = all.as_mut_slice()
                && SPOKEN.contains(&label.as_str())
            {
                *seen = Value::from(REMOVED);
            }
            all.iter_mut().for_each(words);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::{settings, words};
    use serde_json::json;

    #[test]
    fn a_setting_that_is_not_known_to_be_harmless_is_taken_out() {
        let text = "listen = \"0.0.0.0:7443\"\npassword = \"sentinel\"\nname = \"ana:sentinel@web1\"\nretries = 3\n\
                    words = [\"sentinel\"]\n[balancer]\ndriver = \"builtin\"\nkey = \"sentinel\"\nlisten = { shop = \"0.0.0.0:80\" }\n\
                    [more.deeper]\nstate = [[\"sentinel\"]]\n";
        let left = settings(text);
        assert!(!left.contains("sentinel"), "{left}");
        for kept in ["0.0.0.0:7443", "builtin", "0.0.0.0:80", "\"retries\": 3", "password"] {
            assert!(left.contains(kept), "{kept}: {left}");
        }
        assert!(!settings("password = sentinel").contains("sentinel"), "no TOML");
    }

    #[test]
    fn what_an_application_said_is_taken_out_wherever_it_stands() {
        let mut value = json!({
            "problems": [{ "seen": [{ "label": "last log", "evidence": "sentinel" }, { "label": "port", "evidence": "8101" }] }],
            "entry": { "seen": [["probe", "GET /: sentinel"], ["process", "pid 7"]] },
        });
        words(&mut value);
        let text = value.to_string();
        assert!(!text.contains("sentinel") && text.contains("8101") && text.contains("pid 7"), "{text}");
    }
}
