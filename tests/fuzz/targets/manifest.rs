//! Any file as a manifest: read, or refused with a place that can be shown.

#![no_main]

use baton_core::manifest::parse;

libfuzzer_sys::fuzz_target!(|text: &str| {
    match parse("baton.toml", text) {
        Ok(manifest) => manifest.warnings.iter().for_each(|finding| drop(finding.render())),
        Err(findings) => {
            assert!(!findings.is_empty(), "refused, and nobody is told why");
            findings.iter().for_each(|finding| assert!(!finding.render().is_empty()));
        }
    }
});
