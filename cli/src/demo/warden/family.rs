//! Who descends from whom, read from `/proc`.

use rustix::process::{Pid, Signal, getpid, kill_process};
use std::collections::BTreeMap;
use std::time::Duration;

/// Between two looks whether the killed are gone.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Kills every descendant of this process, however often they start others meanwhile, and returns when none is left.
pub(super) fn end_all() {
    loop {
        let descendants = descendants(getpid());
        if descendants.is_empty() {
            return;
        }
        for pid in descendants {
            // Gone already is as good.
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn descendants(ancestor: Pid) -> Vec<Pid> {
    let parents = parents();
    let descends = |mut pid: i32| {
        // Bounded: the table may change under our eyes, and a chain is never longer than the table.
        for _ in 0..parents.len() {
            match parents.get(&pid) {
                Some(parent) if *parent == ancestor.as_raw_nonzero().get() => return true,
                Some(parent) => pid = *parent,
                None => return false,
            }
        }
        false
    };
    parents.keys().copied().filter(|pid| descends(*pid)).filter_map(Pid::from_raw).collect()
}

/// Every process's parent. Zombies are not listed: they are dead, and their end is being collected.
fn parents() -> BTreeMap<i32, i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return BTreeMap::new() };
    let processes = entries.flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse::<i32>().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name stands in parentheses and may contain anything, so the fields begin after the last one.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let (state, parent) = (fields.next()?, fields.next()?.parse().ok()?);
        (state != "Z" && state != "X").then_some((pid, parent))
    });
    processes.collect()
}
