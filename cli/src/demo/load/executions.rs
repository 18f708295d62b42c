//! Joins what clients know of their orders with what instances executed: the only proof that nothing was lost or done twice.

use super::tally::{Posts, order_id};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

/// Orders of one phase, as client and instances know them together.
#[derive(Debug, Clone, Serialize)]
pub struct Executions {
    pub sent: u64,
    pub acknowledged: u64,
    /// Executed more than once.
    pub twice: u64,
    /// Acknowledged to the client, executed by nobody.
    pub lost: u64,
    /// Executed, but the client never heard of it.
    pub unheard: u64,
}

/// Reads every `*.log` in `folder` and joins it with a phase's orders.
///
/// # Errors
/// When a log cannot be read.
pub fn join(posts: &Posts, folder: &Path) -> std::io::Result<Executions> {
    let mut executed = BTreeMap::<String, u64>::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            read(&path, &mut executed)?;
        }
    }
    let times = |number: u64| executed.get(&order_id(&posts.tag, number)).copied().unwrap_or(0);
    let all = || posts.numbers.clone();
    Ok(Executions {
        sent: posts.sent,
        acknowledged: posts.acknowledged,
        twice: all().filter(|number| times(*number) > 1).count() as u64,
        lost: all().filter(|number| times(*number) == 0 && !posts.unacknowledged.contains(number)).count() as u64,
        unheard: posts.unacknowledged.iter().filter(|number| times(**number) > 0).count() as u64,
    })
}

fn read(path: &Path, executed: &mut BTreeMap<String, u64>) -> std::io::Result<()> {
    for line in BufReader::new(std::fs::File::open(path)?).lines() {
        let line = line?;
        let mut words = line.split(' ').skip(3);
        if let (Some("post"), Some(id)) = (words.next(), words.next()) {
            *executed.entry(id.to_owned()).or_default() += 1;
        }
    }
    Ok(())
}
