//! Facts about this host, for people.

use std::collections::BTreeMap;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// Operating system, kernel, processors, memory; what cannot be learnt is left out.
#[must_use]
pub fn facts() -> BTreeMap<String, String> {
    let ram = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let memory = System::new_with_specifics(ram).ok().map(|system| crate::text::bytes(system.total_memory()));
    let cores = std::thread::available_parallelism().ok().map(|cores| cores.to_string());
    let facts = [
        ("os", System::long_os_version().ok()),
        ("kernel", System::kernel_version().ok()),
        ("architecture", Some(System::cpu_arch())),
        ("cores", cores),
        ("memory", memory),
    ];
    facts.into_iter().filter_map(|(name, fact)| Some((name.to_owned(), fact?))).collect()
}
