//! Any text as what is written on one line: a join token, every name a stranger may write, a selector of failures; and what follows
//! the line as an application's page of metrics.

#![no_main]

use baton_core::name::{Digest, HostName, PoolName, RolloutId, ServiceName, Version};
use baton_core::scrape::{Scrape, Selector};
use baton_proto::identity::Identity;
use baton_proto::token::JoinToken;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let (line, page) = text.split_once('\n').unwrap_or((text, ""));
    names(line);
    metrics(line, page);
});

fn names(text: &str) {
    if let Ok(token) = text.parse::<JoinToken>() {
        assert_eq!(token.to_string().parse::<JoinToken>().ok(), Some(token), "read back as it was written");
    }
    drop((text.parse::<HostName>(), text.parse::<ServiceName>(), text.parse::<PoolName>(), text.parse::<RolloutId>()));
    drop((text.parse::<Version>(), text.parse::<Digest>(), text.parse::<Identity>()));
}

/// Numbers, or a reason.
fn metrics(line: &str, page: &str) {
    let Ok(errors) = line.parse::<Selector>() else { return };
    let Ok(requests) = "requests_total".parse() else { panic!("a plain name is a selector") };
    assert_eq!(errors.to_string().parse().as_ref(), Ok(&errors), "it comes back as it was written");
    match (Scrape { path: "/metrics".to_owned(), requests, errors }).read(page) {
        Ok(totals) => assert_eq!(totals.since(totals).map(|counts| counts.requests), Some(0)),
        Err(why) => assert!(!why.is_empty(), "refused, and nobody is told why"),
    }
}
