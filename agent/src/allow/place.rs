//! Where members of a pool may be: an address, one port of it, a network, or a pattern of addresses.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// One entry of `[allow] members`, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Place {
    text: String,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Address(IpAddr),
    Port(SocketAddr),
    /// Whatever begins with so many bits of an address.
    Network(IpAddr, u32),
    /// `*` stands for anything; of an address, or of an address and a port.
    Pattern,
}

/// A text that is none of these.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address, no address with a port, no network and no pattern of addresses")]
pub struct InvalidPlace(String);

impl Place {
    /// Everywhere.
    #[must_use]
    pub fn any() -> Self {
        Self { text: "*".to_owned(), kind: Kind::Pattern }
    }

    /// Whether an address is there.
    #[must_use]
    pub fn has(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        match self.kind {
            Kind::Address(allowed) => allowed == ip,
            Kind::Port(allowed) => (allowed.ip().to_canonical(), allowed.port()) == (ip, address.port()),
            Kind::Network(network, bits) => begins_alike(network, ip, bits),
            Kind::Pattern => {
                let with_port = || super::fits(&self.text, &SocketAddr::new(ip, address.port()).to_string());
                let alone = || super::fits(&self.text, &ip.to_string());
                // In an address of the newer kind a colon says nothing of a port, unless there is one alone.
                match (ip, self.text.contains('['), self.text.matches(':').count()) {
                    (IpAddr::V6(_), true, _) | (IpAddr::V6(_), false, 1) => with_port(),
                    (IpAddr::V6(_), false, _) => alone(),
                    (IpAddr::V4(_), ..) => with_port() || alone(),
                }
            }
        }
    }
}

/// Whether two addresses are of one kind and begin with the same bits.
fn begins_alike(one: IpAddr, other: IpAddr, bits: u32) -> bool {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros() >= bits,
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros() >= bits,
        _ => false,
    }
}

impl TryFrom<String> for Place {
    type Error = InvalidPlace;

    fn try_from(text: String) -> Result<Self, InvalidPlace> {
        let is_of_addresses = |byte: u8| byte.is_ascii_hexdigit() || b".:[]*".contains(&byte);
        let kind = if let Ok(address) = text.parse::<IpAddr>() {
            Kind::Address(address.to_canonical())
        } else if let Ok(port) = text.parse() {
            Kind::Port(port)
        } else if let Some((network, bits)) = network(&text) {
            Kind::Network(network, bits)
        } else if text.contains('*') && text.bytes().all(is_of_addresses) {
            Kind::Pattern
        } else {
            return Err(InvalidPlace(text));
        };
        Ok(Self { text, kind })
    }
}

fn network(text: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = text.split_once('/')?;
    let (address, bits): (IpAddr, u32) = (address.parse().ok()?, bits.parse().ok()?);
    let most = if address.is_ipv4() { 32 } else { 128 };
    match address.to_canonical() {
        _ if bits > most => None,
        // An address of the older kind in the clothes of the newer: the last 32 bits are its own.
        mapped @ IpAddr::V4(_) if address.is_ipv6() => Some((mapped, bits.checked_sub(96)?)),
        _ => Some((address, bits)),
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.text
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_the_addresses_it_says_and_no_others() {
        for (place, inside, outside) in [
            ("10.0.3.7", "10.0.3.7:81", "10.0.3.70:81"),
            ("10.0.3.7:81", "10.0.3.7:81", "10.0.3.7:82"),
            ("10.0.3.0/24", "10.0.3.255:1", "10.0.4.0:1"),
            ("10.0.3.9/24", "10.0.3.1:1", "10.0.2.9:1"),
            ("10.0.3.7/32", "10.0.3.7:1", "10.0.3.6:1"),
            ("0.0.0.0/0", "203.0.113.9:1", "[fd00::1]:1"),
            ("fd00:1::/32", "[fd00:1:ffff::1]:81", "[fd00:2::1]:81"),
            ("fd00::1", "[fd00::1]:81", "[fd00::11]:81"),
            ("10.0.3.*", "10.0.3.4:81", "10.0.30.4:81"),
            ("10.0.3.*:81", "10.0.3.4:81", "10.0.3.4:82"),
            ("[fd00::*]:81", "[fd00::4]:81", "[fd00::4]:82"),
            ("10.0.3.7", "[::ffff:10.0.3.7]:81", "[fd00::7]:81"),
            ("::ffff:10.0.3.0/120", "10.0.3.7:81", "10.0.4.7:81"),
            ("*:81", "10.0.3.7:81", "[fd00::81]:9000"),
            ("*:81", "[fd00::9]:81", "10.0.0.81:9000"),
            ("fd00::*", "[fd00::4]:81", "[fd01::4]:81"),
        ] {
            let place = Place::try_from(place.to_owned()).unwrap();
            assert!(place.has(inside.parse().unwrap()), "{place}: {inside}");
            assert!(!place.has(outside.parse().unwrap()), "{place}: {outside}");
        }
        assert!(Place::any().has("[fd00::1]:1".parse().unwrap()) && Place::any().has("10.0.0.1:1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for text in [
            "",
            "web1",
            "10.0.3.300",
            "10.0.3.7:99999",
            " 10.0.3.7",
            "10.0.3",
            "10.0.3.0/33",
            "10.0.3.0/",
            "web*",
            "10.0.3.0/24:81",
        ] {
            assert_eq!(Place::try_from(text.to_owned()), Err(InvalidPlace(text.to_owned())));
        }
    }
}
