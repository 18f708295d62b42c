//! Any bytes as the tar inside an artifact, and every thousandth time as the artifact itself: taken, or refused. Never a crash.

#![no_main]

use baton_agent::artifact::check;
use std::io::Write as _;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((mode, tar)) = bytes.split_first() else { return };
    let packed = match mode {
        0 => tar.to_vec(),
        _ => zstd::encode_all(tar, 1).expect("into memory"),
    };
    let mut file = tempfile::Builder::new().tempfile_in("/dev/shm").expect("memory");
    file.write_all(&packed).expect("memory");
    if let Err(problem) = check(file.path()) {
        assert!(!problem.what.is_empty() && problem.help.is_some(), "{problem:?}");
    }
});
