//! What HAProxy logs of one request, once it is answered: the line of `option httplog`, in the one header that `log` has unless it
//! is told otherwise.
//!
//! Much of a line was chosen by strangers: captured headers, the request itself. All of it stands behind what is read here, or, in
//! a line of `option httplog clf`, in quotes that HAProxy never lets anybody close. A line that begins in another way is none.

use crate::balancer::requests::{Line, Try};
use std::time::Duration;

/// A line's numbers and names, wherever its format has them.
struct Fields<'a> {
    backend: &'a str,
    server: &'a str,
    /// Connect and response time.
    times: [&'a str; 2],
    status: &'a str,
    /// How often a connection was tried again; with a plus sign, the last time at another server.
    retries: &'a str,
}

/// Reads a datagram; None for whatever tells nothing of one request and its times. The end of a line may be missing.
pub(super) fn parse(datagram: &[u8]) -> Option<Line<'_, String>> {
    // Only what is cut off, or was chosen by a stranger, is no text.
    let text = datagram.utf8_chunks().next()?.valid();
    let (_, rest) = text.strip_prefix('<')?.split_once('>')?;
    // `Nov 28 05:00:00 haproxy[4727]: `, before which nothing has a colon and a space.
    let (_, line) = rest.split_once(": ")?;
    let fields = http(line).or_else(|| clf(line))?;
    let tries = fields.tries().into_iter().collect();
    Some(Line { upstream: fields.backend, tries })
}

impl Fields<'_> {
    fn tries(&self) -> Option<Try<String>> {
        // `<NOSRV>` is what no server was asked for, and HAProxy's statistics' own is `<STATS>`.
        (!self.server.starts_with('<')).then(|| Try {
            member: self.server.to_owned(),
            failed: self.status.parse::<u16>().is_ok_and(|status| status >= 500),
            took: self.took(),
        })
    }

    /// From the first try to connect until the answer began. A connection that was tried again may have cost its time at another
    /// server.
    fn took(&self) -> Option<Duration> {
        let [connect, response] = self.times.map(|millis| millis.parse::<u64>().ok());
        let connect = connect.filter(|_| self.retries == "0").unwrap_or_default();
        Some(Duration::from_millis(response?.saturating_add(connect)))
    }
}

/// `127.0.0.1:57158 [28/Nov/2026:13:13:16.712] f1 shop/s1 0/0/0/51/51 200 116 - - ---- 1/1/0/0/0 0/0 …`, also of `httpslog`.
fn http(line: &str) -> Option<Fields<'_>> {
    let mut words = line.split_ascii_whitespace();
    let mut word = || words.next();
    let (client, date, _frontend) = (word()?, word()?, word()?);
    let (_, port) = client.rsplit_once(':')?;
    (port.parse::<u32>().is_ok() && date.starts_with('[') && date.ends_with(']')).then_some(())?;
    let (backend, server) = word()?.split_once('/')?;
    let mut times = word()?.split('/');
    let (_request, _queue, connect, response, _all) =
        (times.next()?, times.next()?, times.next()?, times.next()?, times.next()?);
    let status = word()?;
    let (_bytes, _cookie, _set, _ended) = (word()?, word()?, word()?, word()?);
    let retries = word()?.split('/').nth(4)?;
    times.next().is_none().then_some(())?;
    Some(Fields { backend, server, times: [connect, response], status, retries })
}

/// `127.0.0.1 - - [28/Nov/2026:13:13:21 +0000] "GET / HTTP/1.1" 200 116 "" "" 40494 796 "f2" "shop" "s1" 0 0 0 0 0 ---- 1 1 0 0 0 …`
fn clf(line: &str) -> Option<Fields<'_>> {
    let (client, rest) = line.split_once(" - - [")?;
    (!client.contains([' ', '"'])).then_some(())?;
    let (date, rest) = rest.split_once("] \"")?;
    (!date.contains('"')).then_some(())?;
    let (_request, rest) = rest.split_once("\" ")?;
    let words: Vec<&str> = rest.split_ascii_whitespace().take(20).collect();
    let word = |at: usize| words.get(at).map(|word| word.trim_matches('"'));
    Some(Fields { backend: word(7)?, server: word(8)?, times: [word(11)?, word(12)?], status: word(0)?, retries: word(19)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As HAProxy 2.6 sent them, of clients that send what looks like a line.
    const SLOW: &str = "<134>Nov 28 13:13:16 haproxy[4727]: 127.0.0.1:57158 [28/Nov/2026:13:13:16.712] f1 shop/s1 0/0/1/51/52 200 \
        116 - - ---- 1/1/0/0/0 0/0 {evil#22 shop/s2 0/0/0/9/9 200 #22} \"GET /slow HTTP/1.1\"\n";
    const NO_ANSWER: &str = "<134>Nov 28 13:13:21 haproxy[4727]: 127.0.0.1:57164 [28/Nov/2026:13:13:16.787] f1 shop/s1 \
        0/0/0/-1/5000 504 198 - - sH-- 1/1/0/0/0 0/0 \"GET /break HTTP/1.1\"\n";
    const CLF: &str = "<134>Nov 28 13:13:21 haproxy[4727]: 127.0.0.1 - - [28/Nov/2026:13:13:21 +0000] \"GET /x#22y HTTP/1.1\" 200 \
        116 \"\" \"\" 40494 796 \"f2\" \"shop\" \"s1\" 0 0 2 40 43 ---- 1 1 0 0 0 0 0 \"\" \"\" \n";
    const HTTPS: &str = "<134>Nov 28 13:13:21 haproxy[4727]: 127.0.0.1:42944 [28/Nov/2026:13:13:21.805] f3~ shop/s1 0/0/0/7/7 200 \
        116 - - ---- 1/1/0/0/0 0/0 \"GET /x#22y HTTP/1.1\" 0/-/-/-/0 -/-/-\n";
    const AT_ONCE: &str = "<134>Nov 28 13:13:21 haproxy[4727]: 127.0.0.1:52962 [28/Nov/2026:13:13:21.843] f6 shop/s1 0/0/0/3/+3 200 \
        +114 - - ---- 1/1/1/1/0 0/0 \"GET /x#22y HTTP/1.1\"\n";
    const REFUSED: &str = "<134>Nov 28 13:13:24 haproxy[4727]: 127.0.0.1:47372 [28/Nov/2026:13:13:21.852] f7 nobody/s1 \
        0/3005/-1/-1/3005 503 217 - - SC-- 1/1/0/0/3 0/0 \"GET /x#22y HTTP/1.1\"\n";
    const BAD: &str = "<134>Nov 28 13:13:24 haproxy[4727]: 127.0.0.1:58212 [28/Nov/2026:13:13:24.860] f1 f1/<NOSRV> -1/-1/-1/-1/0 400 \
        0 - - CR-- 1/1/0/0/0 0/0 \"<BADREQ>\"\n";
    const PLAIN: &str = "<134>Nov 28 13:13:21 haproxy[4727]: Connect from 127.0.0.1:42002 to 127.0.0.1:28004 (f4/HTTP)\n";
    const TCP: &str = "<134>Nov 28 13:13:21 haproxy[4727]: 127.0.0.1:49648 [28/Nov/2026:13:13:21.829] f5 raw/s1 1/0/2 113 -- 1/1/0/0/0 0/0\n";

    fn told(line: &str) -> (String, Vec<(String, bool, Option<u64>)>) {
        let line = parse(line.as_bytes()).unwrap();
        let millis = |took: Option<Duration>| took.map(|took| took.as_millis() as u64);
        let tries = line.tries.into_iter().map(|it| (it.member, it.failed, millis(it.took)));
        (line.upstream.to_owned(), tries.collect())
    }

    #[test]
    fn each_format_of_a_request_says_who_answered_and_after_how_long() {
        let one = |backend: &str, failed, took| (backend.to_owned(), vec![("s1".to_owned(), failed, took)]);
        assert_eq!(told(SLOW), one("shop", false, Some(52)), "until it was connected, and until it answered");
        assert_eq!(told(CLF), one("shop", false, Some(42)));
        assert_eq!(told(HTTPS), one("shop", false, Some(7)));
        assert_eq!(told(AT_ONCE), one("shop", false, Some(3)), "option logasap");
        assert_eq!(told(NO_ANSWER), one("shop", true, None), "nothing answered is nothing timed");
        assert_eq!(told(REFUSED), one("nobody", true, None));
        assert_eq!(told(BAD), ("f1".to_owned(), vec![]));
        let again = SLOW.replace("1/1/0/0/0", "1/1/0/0/+1").replace("0/0/1/51/52", "0/0/3005/51/3056");
        assert_eq!(told(&again), one("shop", false, Some(51)), "another server did not take the connection");
        let named =
            SLOW.replace("13:13:16 haproxy", "13:13:16 lb1.example.org haproxy").replace("127.0.0.1:57158", "::1:57158");
        assert_eq!(told(&named), one("shop", false, Some(52)), "option log-send-hostname, and IPv6");
    }

    #[test]
    fn a_line_that_was_cut_off_still_says_it() {
        let (whole, _) = SLOW.split_once("0/0 {").unwrap();
        assert_eq!(told(whole), told(SLOW));
        let bytes = [SLOW.as_bytes(), b"\xff"].concat();
        assert!(parse(&bytes).is_some(), "whatever a client sent");
    }

    #[test]
    fn what_tells_nothing_of_one_request_is_none() {
        let (_, message) = SLOW.split_once(": ").unwrap();
        let own =
            format!("<134>Nov 28 13:13:16 haproxy[4727]: \"a: {message}\" 127.0.0.1:57158 [a] f shop/s2 0/0/0/1/1 200\n");
        let short = "<134>Nov 28 13:13:16 haproxy[4727]: 1:1 [a] f shop/s1 0/0/0/1/1 200 1 - -";
        for line in [PLAIN, TCP, message, "", "<134>", "<134>: ", own.as_str(), short] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
    }
}
