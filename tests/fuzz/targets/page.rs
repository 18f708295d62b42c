//! Any first line as a selector of failures, and what follows as an application's page of metrics: numbers, or a reason.

#![no_main]

use baton_core::scrape::{Scrape, Selector};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let (line, page) = text.split_once('\n').unwrap_or((text, ""));
    let Ok(errors) = line.parse::<Selector>() else { return };
    let Ok(requests) = "requests_total".parse() else { panic!("a plain name is a selector") };
    assert_eq!(errors.to_string().parse().as_ref(), Ok(&errors), "it comes back as it was written");
    match (Scrape { path: "/metrics".to_owned(), requests, errors }).read(page) {
        Ok(totals) => assert_eq!(totals.since(totals).map(|counts| counts.requests), Some(0)),
        Err(why) => assert!(!why.is_empty(), "refused, and nobody is told why"),
    }
});
