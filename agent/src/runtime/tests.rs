//! The test program as a part of the agent: started again as itself.

use super::{handing, sockets};
use std::ffi::OsString;

/// The words that start one.
pub(crate) fn parts() -> Vec<String> {
    let own = std::env::current_exe().unwrap().display().to_string();
    // The test program takes what comes after `--` for names of tests, and finds none of that name.
    [&own, "--exact", "runtime::tests::part", "--nocapture", "--"].map(str::to_owned).to_vec()
}

/// Not a test, unless it was started as a part.
#[test]
fn part() {
    let words: Vec<OsString> = std::env::args_os().skip_while(|word| word != "--").skip(1).collect();
    match words.first().and_then(|word| word.to_str()) {
        Some(handing::HOLD) => sockets::hold().unwrap(),
        Some(handing::BEGIN) => handing::begin(&words[2..]).unwrap(),
        _ => {}
    }
}
