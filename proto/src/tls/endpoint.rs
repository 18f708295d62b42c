//! Where a coordinator is, as people write it.

use http::uri::Authority;
use std::net::IpAddr;

/// Where a coordinator listens unless somebody says otherwise.
const PORT: u16 = 7443;

/// An address with the usual port, where it names none.
#[must_use]
pub fn with_port(address: &str) -> String {
    if let Ok(IpAddr::V6(bare)) = address.parse::<IpAddr>() {
        return format!("[{bare}]:{PORT}");
    }
    match address.parse::<Authority>() {
        Ok(named) if named.as_str() == named.host() => format!("{address}:{PORT}"),
        // With a port, or no address at all: whoever dials says what is wrong with it.
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_port_has_the_usual_one() {
        for (named, means) in [
            ("coord.example.net", "coord.example.net:7443"),
            ("192.0.2.1", "192.0.2.1:7443"),
            ("2001:db8::1", "[2001:db8::1]:7443"),
            ("[2001:db8::1]", "[2001:db8::1]:7443"),
            ("coord:9000", "coord:9000"),
            ("[::1]:9000", "[::1]:9000"),
            ("coord:", "coord:"),
            ("no address", "no address"),
            ("", ""),
        ] {
            assert_eq!(with_port(named), means, "{named}");
        }
    }
}
