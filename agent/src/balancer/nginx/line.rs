//! What nginx says of one request, once it is answered.
//!
//! Everything in it was seen by nginx and some of it was chosen by strangers, so nothing of it is kept but numbers, counted
//! under names that are known already.

use crate::balancer::requests::{Line, Try};
use std::net::SocketAddr;
use std::time::Duration;

/// The format's name: what a server with an `access_log` of its own names, too.
pub(super) const FORMAT: &str = "baton";

/// What one line says: the upstream, and of each try where it went, the status and the time until the answer began.
pub(super) const VARIABLES: &str = "$proxy_host|$upstream_addr|$upstream_status|$upstream_header_time";

/// What stands before the line, whatever syslog puts before that.
const TAG: &str = "baton: ";

/// Reads a datagram; None for what nginx would not send.
pub(super) fn parse(datagram: &[u8]) -> Option<Line<'_, SocketAddr>> {
    let text = std::str::from_utf8(datagram).ok()?;
    let (_, text) = text.split_once(TAG)?;
    let mut fields = text.trim_end().split('|');
    let (upstream, addresses, statuses, times) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let (mut statuses, mut times) = (tries(statuses), tries(times));
    let mut line = Line { upstream: if upstream == "-" { "" } else { upstream }, tries: Vec::new() };
    for address in tries(addresses) {
        let (status, time) = (statuses.next()?, times.next()?);
        // Without a status the client left first; and a name instead of an address is a pool with nobody to ask.
        let Some((address, status)) = address.parse().ok().zip(status.parse::<u16>().ok()) else { continue };
        let took = time.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        line.tries.push(Try { member: address, failed: status >= 500, took });
    }
    fields.next().is_none().then_some(line)
}

/// Between tries stands a comma, and between those before and after an internal redirect a colon.
fn tries(text: &str) -> impl Iterator<Item = &str> {
    text.split(", ").flat_map(|part| part.split(" : ")).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tries_of(text: &str) -> Vec<(String, bool, Option<u64>)> {
        let datagram = format!("<190>Nov 28 05:00:00 baton: {text}");
        let line = parse(datagram.as_bytes()).unwrap();
        let millis = |took: Option<Duration>| took.map(|took| took.as_millis() as u64);
        line.tries.iter().map(|it| (it.member.to_string(), it.failed, millis(it.took))).collect()
    }

    #[test]
    fn every_try_of_a_request_is_one_of_its_member() {
        let one = |address: &str, failed, took| (address.to_owned(), failed, took);
        assert_eq!(tries_of("shop|10.0.0.1:80|200|0.012"), [one("10.0.0.1:80", false, Some(12))]);
        let retried = tries_of("shop|10.0.0.1:80, [::1]:80|502, 200|-, 0.001");
        assert_eq!(retried, [one("10.0.0.1:80", true, None), one("[::1]:80", false, Some(1))]);
        let redirected = tries_of("shop~trial|10.0.0.1:80 : 10.0.0.2:80|404 : 503|0.001 : 0.002");
        assert_eq!(redirected, [one("10.0.0.1:80", false, Some(1)), one("10.0.0.2:80", true, Some(2))]);
    }

    #[test]
    fn what_nobody_answered_for_is_nobodys() {
        assert_eq!(tries_of("shop|shop|502|-"), []);
        assert_eq!(tries_of("shop|10.0.0.1:80|-|-"), [], "the client left");
        assert_eq!(tries_of("-|unix:/run/app.sock|200|0.001"), []);
    }

    #[test]
    fn what_is_no_line_of_nginx_is_nothing() {
        for text in ["", "baton: ", "baton: shop|1.2.3.4:5|200", "baton: a|b|c|d|e", "baton: a|1.2.3.4:5, 1.2.3.4:6|200|-"] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse(b"baton: \xff|||"), None);
    }
}
