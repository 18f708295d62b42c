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

/// This boot of this host, also where it is a container: those have the boot id of the kernel they share, whichever boot they
/// are in, and a first process that is another one with every boot.
///
/// # Errors
/// `/proc` is not there.
pub fn of_host() -> io::Result<String> {
    let first = fs::read_to_string("/proc/1/stat").ok().and_then(|stat| started(&stat));
    let id = id()?;
    Ok(first.map_or_else(|| id.clone(), |ticks| format!("{id}-{ticks}")))
}

/// When a process began, in ticks since the kernel did.
fn started(stat: &str) -> Option<u64> {
    // Its name stands in parentheses, and may have some of its own.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{id, of_host, started};

    #[test]
    fn a_boot_is_the_kernels_and_the_first_processs() {
        let stat = "1 (a) b) S 0 1 1 0 -1 4194560 9 8 7 6 5 4 3 2 20 0 1 0 4711 22 33";
        assert_eq!((started(stat), started("1 (init"), started("1 (init) S 0")), (Some(4711), None, None));
        let (host, kernel) = (of_host().unwrap(), id().unwrap());
        assert_eq!(host, of_host().unwrap(), "it stays what it is");
        assert!(host.starts_with(&kernel) && host.len() > kernel.len(), "{host}");
    }
}
