//! Which boot this is.

use std::fs;
use std::io;

/// The kernel's boot id: changes with every boot, and never else.
///
/// # Errors
/// `/proc` is not there.
pub fn id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().replace('-', ""))
}
