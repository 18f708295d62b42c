//! The routes that Envoy watches: its owner's, in which a route to a pool that divides its requests is one of several.
//!
//! The owner's file stays as it is; Baton writes the same routes into another one. Each route to a pool alone becomes one a
//! rule, one for users or everybody with the share as weights, and one for whoever is no user. All of them lead to the same
//! cluster and choose its endpoints by their side, so gauges and counters stay with an endpoint that changes sides. What is
//! divided stands in the version, which Envoy says back.

use super::listing::{SIDE, number, version_text, word};
use crate::balancer::problem;
use baton_core::fleet::split::{PLACES, Rule, RuleAt, Share, Side, TrafficSplit, UserKey};
use baton_core::name::{Digest, PoolName};
use baton_core::problem::Problem;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// How each pool divides its requests.
pub(super) type Splits = BTreeMap<PoolName, TrafficSplit>;

/// Baton's file in the folder. No pool's name begins so.
pub(super) const FILE: &str = "~routes.json";

const KIND: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";

/// The owner's routes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Routes {
    /// What the listener calls them.
    pub(super) name: String,
    /// Of the owner's text.
    pub(super) digest: String,
    configuration: Map<String, Value>,
}

/// What a file of routes says of itself, and Envoy of those in effect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) number: u64,
    /// Which of the owner's texts it was made of.
    pub(super) of: String,
    pub(super) splits: Splits,
}

impl Version {
    /// `baton-7 2f01cc9be0aa shop 5% of users by cookie uid; till 0%, header X-Beta = 1`.
    pub(super) fn text(&self) -> String {
        let splits: Vec<String> = self.splits.iter().map(|(pool, split)| format!("{pool} {split}")).collect();
        format!("{} {} {}", version_text(self.number), self.of, splits.join("; ")).trim_end().to_owned()
    }

    /// Reads one; None for what Baton did not write.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.splitn(3, ' ');
        let number = number(words.next()?);
        let of = words.next().filter(|_| number > 0)?.to_owned();
        let splits = words.next().into_iter().flat_map(|splits| splits.split("; ")).map(|text| {
            let (pool, split) = text.split_once(' ')?;
            Some((pool.parse().ok()?, split.parse().ok()?))
        });
        Some(Self { number, of, splits: splits.collect::<Option<_>>()? })
    }

    /// That of a file.
    pub(super) fn of_file(text: &str) -> Option<Self> {
        let file: Value = serde_json::from_str(text).ok()?;
        Self::parse(file["version_info"].as_str()?)
    }
}

impl Routes {
    /// Reads the owner's file.
    ///
    /// # Errors
    /// B0451: it is not there, or holds something else than one route configuration.
    pub(super) fn read(path: &Path) -> Result<Self, Problem> {
        let text = fs::read_to_string(path).map_err(|error| problem::envoy_routes(path, &error))?;
        let wrong = |seen: &str| problem::envoy_routes(path, seen);
        let value: Value = serde_json::from_str(&text).map_err(|error| problem::envoy_routes(path, &error))?;
        let Value::Object(configuration) = value else { return Err(wrong("it is no JSON object")) };
        let name = configuration.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| wrong("`name` is missing: that of the listener's `route_config_name`"))?.to_owned();
        if hosts(&configuration).is_none_or(Vec::is_empty) {
            return Err(wrong("`virtual_hosts` is missing"));
        }
        Ok(Self { name, digest: Digest::of(text.as_bytes()).short(), configuration })
    }

    /// The pools that a route leads to, and to them alone.
    pub(super) fn clusters(&self) -> BTreeSet<PoolName> {
        let routes = hosts(&self.configuration).into_iter().flatten().filter_map(|host| host["routes"].as_array());
        routes.flatten().filter_map(|route| route["route"]["cluster"].as_str()?.parse().ok()).collect()
    }

    /// The whole file.
    pub(super) fn render(&self, version: &Version) -> String {
        let mut configuration = self.configuration.clone();
        for host in hosts_mut(&mut configuration).into_iter().flatten() {
            if let Some(routes) = host.get_mut("routes").and_then(Value::as_array_mut) {
                *routes = std::mem::take(routes).into_iter().flat_map(|route| divided(route, &version.splits)).collect();
            }
        }
        configuration.insert("@type".to_owned(), KIND.into());
        format!("{:#}\n", json!({ "version_info": version.text(), "resources": [configuration] }))
    }
}

/// Envoy reads a field's name in either way.
const HOSTS: [&str; 2] = ["virtual_hosts", "virtualHosts"];

fn hosts(configuration: &Map<String, Value>) -> Option<&Vec<Value>> {
    HOSTS.iter().find_map(|name| configuration.get(*name)?.as_array())
}

fn hosts_mut(configuration: &mut Map<String, Value>) -> Option<&mut Vec<Value>> {
    let name = HOSTS.iter().find(|name| configuration.contains_key(**name))?;
    configuration.get_mut(*name)?.as_array_mut()
}

/// The routes that one route becomes.
fn divided(route: Value, splits: &Splits) -> Vec<Value> {
    let pool = route["route"]["cluster"].as_str().and_then(|cluster| cluster.parse::<PoolName>().ok());
    let Some((pool, split)) = pool.and_then(|pool| splits.get_key_value(&pool)) else { return vec![route] };
    let mut routes: Vec<Value> = split
        .rules
        .iter()
        .map(|rule| {
            let mut route = asking(to(route.clone(), Side::Trial), met(rule));
            route["stat_prefix"] = ruled(pool).into();
            route
        })
        .collect();
    match (&split.sticky, split.share) {
        (_, Share::NONE) => routes.push(to(route, Side::Stable)),
        (_, Share::ALL) => routes.push(to(route, Side::Trial)),
        (None, share) => routes.push(weighed(route, pool, share)),
        (Some(key), share) => {
            let mut users = weighed(route.clone(), pool, share);
            let action = &mut users["route"];
            action["weighted_clusters"]["use_hash_policy"] = true.into();
            let (mark, hash) = user(key);
            let others = action["hash_policy"].as_array().cloned().unwrap_or_default();
            action["hash_policy"] = std::iter::once(hash).chain(others).collect();
            routes.push(mark.iter().fold(users, |route, mark| asking(route, mark.clone())));
            // Nobody is stable until the share is everything.
            routes.extend(mark.map(|_| to(route, Side::Stable)));
        }
    }
    routes
}

/// The name Envoy counts the requests by that a rule decided.
pub(super) fn ruled(pool: &PoolName) -> String {
    format!("{pool}~ruled")
}

fn chosen(side: Side) -> Value {
    json!({ "filter_metadata": { "envoy.lb": { SIDE: word(side) } } })
}

/// The same route to one side.
fn to(mut route: Value, side: Side) -> Value {
    route["route"]["metadata_match"] = chosen(side);
    route
}

/// The same route with so many of the places for the trial side. It comes first: who is there stays while the share grows.
fn weighed(mut route: Value, pool: &PoolName, share: Share) -> Value {
    let cluster = |side, weight: u16| json!({ "name": pool.as_str(), "weight": weight, "metadata_match": chosen(side) });
    let trial = share.places();
    let clusters = json!([cluster(Side::Trial, trial), cluster(Side::Stable, PLACES - trial)]);
    if let Some(action) = route["route"].as_object_mut() {
        action.remove("cluster");
        action.insert("weighted_clusters".to_owned(), json!({ "clusters": clusters }));
    }
    route
}

/// The same route for requests that have this header as well.
fn asking(mut route: Value, header: Value) -> Value {
    let headers = route["match"]["headers"].as_array().cloned().unwrap_or_default();
    route["match"]["headers"] = headers.into_iter().chain([header]).collect();
    route
}

/// What a request has that meets a rule. Of a cookie that stands more than once, any counts: RE2 cannot ask for the last.
fn met(rule: &Rule) -> Value {
    match rule.at {
        RuleAt::Header => json!({ "name": rule.name, "string_match": { "exact": rule.value } }),
        RuleAt::Cookie => cookie(&rule.name, &literal(&rule.value)),
    }
}

/// What tells that there is a user, if anything has to, and what makes one.
fn user(key: &UserKey) -> (Option<Value>, Value) {
    match key {
        UserKey::Source => (None, json!({ "connection_properties": { "source_ip": true }, "terminal": true })),
        UserKey::Header(name) => (
            Some(json!({ "name": name, "string_match": { "safe_regex": { "regex": ".+" } } })),
            json!({ "header": { "header_name": name }, "terminal": true }),
        ),
        UserKey::Cookie(name) => (Some(cookie(name, "[^;]+")), json!({ "cookie": { "name": name }, "terminal": true })),
    }
}

fn cookie(name: &str, value: &str) -> Value {
    let regex = format!("(?:.*;)?\\s*{}\\s*=\\s*{value}\\s*(?:;.*)?", literal(name));
    json!({ "name": "cookie", "string_match": { "safe_regex": { "regex": regex } } })
}

/// A pattern that only the text itself meets.
fn literal(text: &str) -> String {
    text.chars().flat_map(|c| (!c.is_ascii_alphanumeric()).then_some('\\').into_iter().chain([c])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn splits(text: &str) -> Splits {
        [("shop".parse().unwrap(), text.parse().unwrap())].into()
    }

    fn routes(split: &str) -> Vec<Value> {
        let route = json!({
            "match": { "prefix": "/", "headers": [{ "name": "host", "present_match": true }] },
            "route": { "cluster": "shop", "timeout": "9s" },
        });
        divided(route, &splits(split))
    }

    #[test]
    fn a_version_says_what_is_divided_and_is_read_again() {
        for splits in [Splits::new(), splits("5% of users by cookie uid, header X-Beta = 1, cookie cohort = staff")] {
            let version = Version { number: 7, of: "2f01cc9be0aa".to_owned(), splits };
            assert_eq!(Version::parse(&version.text()), Some(version));
        }
        for text in ["", "7", "baton-7", "mine-7 2f01 shop 5%", "baton-7 2f01 shop half"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_share_is_the_first_weight_of_one_route_that_keeps_what_its_owner_wrote() {
        let [route] = &routes("12.34%")[..] else { panic!() };
        let action = &route["route"];
        let weights = action["weighted_clusters"]["clusters"].as_array().unwrap();
        let weight = |at: usize| (weights[at]["weight"].as_u64(), weights[at]["metadata_match"] == chosen(Side::Trial));
        assert_eq!((weight(0), weight(1)), ((Some(1_234), true), (Some(8_766), false)));
        assert_eq!((&action["timeout"], &action["cluster"]), (&json!("9s"), &Value::Null));
        assert_eq!(route["match"]["headers"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn rules_come_first_then_users_then_nobody() {
        let routes = routes("5% of users by cookie uid, header X-Beta = 1, cookie cohort = a.b");
        let side = |route: &Value| route["route"]["metadata_match"] == chosen(Side::Trial);
        assert_eq!(routes.iter().map(side).collect::<Vec<_>>(), [true, true, false, false]);
        let asked = |at: usize| routes[at]["match"]["headers"][1].clone();
        assert_eq!(asked(0), json!({ "name": "X-Beta", "string_match": { "exact": "1" } }));
        assert_eq!(asked(1)["string_match"]["safe_regex"]["regex"], "(?:.*;)?\\s*cohort\\s*=\\s*a\\.b\\s*(?:;.*)?");
        assert_eq!(routes[2]["route"]["weighted_clusters"]["use_hash_policy"], true);
        assert_eq!((asked(2).is_null(), asked(3).is_null()), (false, true));
        assert_eq!(self::routes("0%").len(), 1);
        assert!(side(&self::routes("100% of users by source")[0]));
    }

    #[test]
    fn a_route_elsewhere_stays_as_it_is() {
        let route = json!({ "match": { "prefix": "/till" }, "route": { "cluster": "till" } });
        assert_eq!(divided(route.clone(), &splits("5%")), [route]);
        let redirect = json!({ "match": { "prefix": "/old" }, "redirect": { "path_redirect": "/" } });
        assert_eq!(divided(redirect.clone(), &splits("5%")), [redirect]);
    }
}
