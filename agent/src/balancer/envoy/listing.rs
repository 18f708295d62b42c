//! The file that Envoy watches: one pool's endpoints, with a version that Envoy says back.

use baton_core::fleet::spec::MemberState;
use baton_core::fleet::split::Side;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// One pool's endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) version: u64,
    pub(super) members: BTreeMap<SocketAddr, Line>,
}

/// One endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) state: MemberState,
    pub(super) weight: u16,
    /// It is a zone of its own: of each, Envoy says how long answers took.
    pub(super) zoned: bool,
    pub(super) side: Side,
}

/// The key in an endpoint's metadata by which routes choose between the sides of a pool.
pub(super) const SIDE: &str = "baton";

/// A side as it stands there.
pub(super) const fn word(side: Side) -> &'static str {
    match side {
        Side::Stable => "stable",
        Side::Trial => "trial",
    }
}

const VERSION: &str = "baton-";

/// The number of a version Baton wrote; 0 for anybody else's.
pub(super) fn number(version: &str) -> u64 {
    version.strip_prefix(VERSION).and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// The version of a number.
pub(super) fn version_text(number: u64) -> String {
    format!("{VERSION}{number}")
}

impl Listing {
    pub(super) fn version_text(&self) -> String {
        version_text(self.version)
    }

    /// The whole file.
    ///
    /// Out is `DRAINING`, never `UNHEALTHY` and never left out while requests run: unhealthy endpoints get traffic again
    /// when there are too many of them, and one that is left out takes its gauges with it. A weight of 0 would be rejected.
    pub(super) fn render(&self, pool: &str) -> String {
        // Where Envoy weighs localities, one is worth what its members are.
        let locality = |zone: Option<String>, members: &[(&SocketAddr, &Line)]| {
            let weight: u64 = members.iter().map(|(_, line)| u64::from(line.weight.max(1))).sum();
            let endpoints: Vec<Value> = members.iter().map(|(address, line)| line.endpoint(**address)).collect();
            let mut locality = json!({ "lb_endpoints": endpoints, "load_balancing_weight": weight.max(1) });
            if let Some(zone) = zone {
                locality["locality"] = json!({ "zone": zone });
            }
            locality
        };
        let (zoned, together): (Vec<_>, Vec<_>) = self.members.iter().partition(|(_, line)| line.zoned);
        let zones = zoned.iter().map(|member| locality(Some(zone(*member.0)), &[*member]));
        let localities: Vec<Value> = std::iter::once(locality(None, &together)).chain(zones).collect();
        let assignment = json!({
            "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": pool,
            "endpoints": localities,
        });
        format!("{:#}\n", json!({ "version_info": self.version_text(), "resources": [assignment] }))
    }

    /// Reads a file, whoever wrote it; `None` for what Envoy could not read either.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let file: Value = serde_json::from_str(text).ok()?;
        let endpoints = file["resources"][0]["endpoints"].as_array().into_iter().flatten();
        let members = endpoints.flat_map(|locality| {
            let zone = locality["locality"]["zone"].as_str().unwrap_or_default();
            let endpoints = locality["lb_endpoints"].as_array().into_iter().flatten();
            endpoints.filter_map(move |endpoint| Line::of(endpoint, zone))
        });
        Some(Self { version: number(file["version_info"].as_str().unwrap_or_default()), members: members.collect() })
    }
}

impl Line {
    fn endpoint(self, address: SocketAddr) -> Value {
        let (ip, port) = (address.ip().to_string(), address.port());
        let mut endpoint = json!({
            "endpoint": { "address": { "socket_address": { "address": ip, "port_value": port } } },
            "health_status": if self.state == MemberState::Ready { "HEALTHY" } else { "DRAINING" },
            "load_balancing_weight": self.weight.max(1),
        });
        let mut own = Map::new();
        if self.state == MemberState::Drain {
            own.insert("state".to_owned(), "drain".into());
        }
        if self.side == Side::Trial {
            own.insert("side".to_owned(), word(self.side).into());
        }
        let mut metadata = Map::new();
        if !own.is_empty() {
            metadata.insert("baton".to_owned(), own.into());
        }
        // A side where nobody is in has no endpoint at all: then Envoy sends its requests to the other.
        if self.state == MemberState::Ready {
            metadata.insert("envoy.lb".to_owned(), json!({ SIDE: word(self.side) }));
        }
        if !metadata.is_empty() {
            endpoint["metadata"] = json!({ "filter_metadata": metadata });
        }
        endpoint
    }

    fn of(endpoint: &Value, of_zone: &str) -> Option<(SocketAddr, Self)> {
        let address = address(&endpoint["endpoint"]["address"])?;
        let own = &endpoint["metadata"]["filter_metadata"]["baton"];
        let polite = own["state"] == "drain";
        let side = if own["side"] == word(Side::Trial) { Side::Trial } else { Side::Stable };
        let state = match endpoint["health_status"].as_str() {
            None | Some("HEALTHY" | "UNKNOWN") => MemberState::Ready,
            Some("DRAINING") if !polite => MemberState::Out,
            // Anybody else's word for it: neither in nor what out is here.
            Some(_) => MemberState::Drain,
        };
        let weight = endpoint["load_balancing_weight"].as_u64().unwrap_or(1);
        let zoned = of_zone == zone(address);
        Some((address, Self { state, weight: u16::try_from(weight).unwrap_or(u16::MAX), zoned, side }))
    }
}

/// The zone of a member that is one of its own.
pub(super) fn zone(address: SocketAddr) -> String {
    address.to_string()
}

/// Envoy's way to write an address.
pub(super) fn address(value: &Value) -> Option<SocketAddr> {
    let ip: IpAddr = value["socket_address"]["address"].as_str()?.parse().ok()?;
    Some(SocketAddr::new(ip, u16::try_from(value["socket_address"]["port_value"].as_u64()?).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let line = |state, side| Line { state, weight: 3, zoned: state != MemberState::Drain, side };
        let members = BTreeMap::from([
            ("127.0.0.1:80".parse().unwrap(), line(MemberState::Ready, Side::Stable)),
            ("127.0.0.2:80".parse().unwrap(), line(MemberState::Drain, Side::Stable)),
            ("127.0.0.3:80".parse().unwrap(), line(MemberState::Ready, Side::Trial)),
            ("[::1]:80".parse().unwrap(), line(MemberState::Out, Side::Trial)),
        ]);
        let listing = Listing { version: 7, members };
        let text = listing.render("shop");
        assert_eq!(Listing::parse(&text), Some(listing));
        assert!(text.contains("\"zone\": \"[::1]:80\"") && !text.contains("\"zone\": \"127.0.0.2:80\""), "{text}");
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let chosen = |side| words.matches(&format!("\"envoy.lb\": {{ \"baton\": \"{side}\"")).count();
        assert_eq!((chosen("stable"), chosen("trial")), (1, 1), "who is out has no side there: {text}");
        assert!(text.contains("baton-7") && !text.contains("UNHEALTHY"), "{text}");
    }

    #[test]
    fn anybody_elses_unhealthy_is_not_out() {
        let text = Listing { version: 1, members: BTreeMap::new() }.render("shop");
        let endpoint = r#"{ "endpoint": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": 80 } } },
            "health_status": "UNHEALTHY" }"#;
        let listing = Listing::parse(&text.replace("[]", &format!("[{endpoint}]"))).unwrap();
        assert_eq!(listing.members[&"127.0.0.1:80".parse().unwrap()].state, MemberState::Drain);
        assert_eq!(Listing::parse("{ \"version_info\": "), None);
    }
}
