//! Headers that belong to one hop and are not passed on (RFC 9110, 7.6.1), and those a proxy adds.

use super::client::Client;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use http::{Request, Version};

const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The protocol a request asks to switch to.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asks = tokens(headers).any(|token| token.eq_ignore_ascii_case("upgrade"));
    headers.get(header::UPGRADE).filter(|_| asks).cloned()
}

/// Makes a client's request into one for a member.
pub(super) fn prepare<B>(request: &mut Request<B>, client: &Client, upgrade: Option<&HeaderValue>) {
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    // An absolute target names the host, and wins over the header (RFC 9112, 3.2.2).
    let named = request.uri().authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    *request.uri_mut() = Uri::from(path);
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    strip(headers);
    // The proxy itself says "100 Continue" when it begins to read the body.
    headers.remove(header::EXPECT);
    if let Some(host) = named {
        headers.insert(header::HOST, host);
    }
    let before = headers.get(&FORWARDED_FOR).and_then(|value| value.to_str().ok()).map(|value| format!("{value}, "));
    let chain = HeaderValue::from_str(&format!("{}{}", before.unwrap_or_default(), client.address.ip()));
    if let Ok(chain) = chain {
        headers.insert(FORWARDED_FOR, chain);
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(client.scheme));
    join_cookies(headers);
    if let Some(protocol) = upgrade {
        announce(headers, protocol);
    }
}

/// Removes what belongs to one hop, and what `Connection` says does.
pub(super) fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = tokens(headers).filter_map(|token| token.parse().ok()).collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// One header, as HTTP/1.1 has it: over HTTP/2 each cookie may come in one of its own (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() < 2 {
        return;
    }
    if let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// Says that this hop switches protocols.
pub(super) fn announce(headers: &mut HeaderMap, protocol: &HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol.clone());
}

fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(builder: http::request::Builder) -> Request<()> {
        let mut request = builder.body(()).unwrap();
        let upgrade = upgrade(request.headers());
        let places = std::sync::Arc::new(tokio::sync::Semaphore::new(1));
        let place = std::sync::Arc::new(places.try_acquire_owned().unwrap());
        let client = Client { address: "192.0.2.7:1".parse().unwrap(), scheme: "https", _place: place };
        prepare(&mut request, &client, upgrade.as_ref());
        request
    }

    #[test]
    fn what_belongs_to_one_hop_is_not_passed_on() {
        let request = prepared(
            Request::get("http://shop.example/cart?a=1")
                .header("connection", "close, X-Private")
                .header("x-private", "1")
                .header("te", "trailers")
                .header("host", "other")
                .header("x-forwarded-for", "198.51.100.1")
                .header("cookie", "a=1")
                .header("cookie", "b=2"),
        );
        assert_eq!(request.uri(), "/cart?a=1");
        let all = |name: &str| request.headers().get_all(name).iter().cloned().collect::<Vec<_>>();
        assert_eq!(all("host"), ["shop.example"]);
        assert_eq!(all("x-forwarded-for"), ["198.51.100.1, 192.0.2.7"]);
        assert_eq!(
            (all("x-forwarded-proto"), all("cookie")),
            (vec!["https".parse().unwrap()], vec!["a=1; b=2".parse().unwrap()])
        );
        assert!(["connection", "x-private", "te"].iter().all(|name| !request.headers().contains_key(*name)));
    }

    #[test]
    fn an_upgrade_is_asked_for_again_only_when_the_connection_says_so() {
        let asked = prepared(Request::get("/").header("connection", "keep-alive, Upgrade").header("upgrade", "websocket"));
        assert_eq!(
            (&asked.headers()["connection"], &asked.headers()["upgrade"]),
            (&"upgrade".parse().unwrap(), &"websocket".parse().unwrap())
        );
        let not = prepared(Request::get("/").header("upgrade", "h2c"));
        assert!(!not.headers().contains_key("upgrade"));
    }
}
