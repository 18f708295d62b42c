//! A manifest in, and either its values or the whole text people would read.

mod sound;
mod wreck;
mod wrong;

use super::{Manifest, parse};

/// The smallest useful manifest, as the README shows it.
const SAMPLE: &str = r#"service = "shop"
hosts   = ["web1", "web2", "web3"]

[artifact]
path = "shop-{version}.tar.zst"

[run]
command = "bin/shop --listen 0.0.0.0:{port}"
ports   = [8101, 8102]

[health]
http = "/healthz"

[balancer]
on   = ["lb1"]
pool = "shop"
"#;

/// The sample with one piece of text in another's place.
#[track_caller]
fn edited(from: &str, to: &str) -> String {
    assert!(SAMPLE.contains(from), "the sample does not contain {from}");
    SAMPLE.replacen(from, to, 1)
}

#[track_caller]
fn sound(text: &str) -> Manifest {
    parse("baton.toml", text).unwrap_or_else(|found| panic!("{}", rendered(&found)))
}

fn rendered(found: &[super::Diagnostic]) -> String {
    found.iter().map(super::Diagnostic::render).collect::<Vec<_>>().join("\n")
}

/// Compares everything said about a manifest that is refused; `{this version}` stands for what is different in each.
#[track_caller]
fn check(text: &str, expect: &str) {
    let found = parse("baton.toml", text).expect_err("this manifest should be refused");
    let (seen, expect) = (rendered(&found), expect.trim_start().replace("{this version}", env!("CARGO_PKG_VERSION")));
    assert!(seen == expect, "expected:\n{expect}\nseen:\n{seen}");
}
