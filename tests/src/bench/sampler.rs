//! An observer of its own: what HAProxy itself says of each server, every few milliseconds.
//!
//! The bench does not take Baton's word for when a member was out, drained or in again.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

/// Fine against the 60 ms that are to be judged, and light against the balancer's own work.
const EVERY: Duration = Duration::from_millis(4);

/// When a server turned: by the wall clock, as the instances' logs are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Turns {
    /// First seen in maintenance.
    pub(super) out: Option<SystemTime>,
    /// First seen in maintenance with nothing in flight.
    pub(super) drained: Option<SystemTime>,
    /// First seen serving again.
    pub(super) back: Option<SystemTime>,
}

/// A sampler under way.
#[derive(Debug)]
pub(super) struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeMap<String, Turns>>,
}

impl Sampler {
    pub(super) fn start(socket: PathBuf) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("sampler".into()).spawn(move || sample(&socket, &stopped))?;
        Ok(Self { stop, thread })
    }

    /// What was seen, by server.
    pub(super) fn finish(self) -> BTreeMap<String, Turns> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

fn sample(socket: &PathBuf, stop: &AtomicBool) -> BTreeMap<String, Turns> {
    let mut servers = BTreeMap::<String, Turns>::new();
    while !stop.load(Ordering::Relaxed) {
        let now = SystemTime::now();
        for row in look(socket).unwrap_or_default() {
            let turns = servers.entry(row.server).or_default();
            let out = row.status.starts_with("MAINT");
            if out && turns.out.is_none() {
                turns.out = Some(now);
            }
            if turns.out.is_some() && out && row.in_flight == 0 && turns.drained.is_none() {
                turns.drained = Some(now);
            }
            if turns.out.is_some() && !out && turns.back.is_none() {
                turns.back = Some(now);
            }
        }
        std::thread::sleep(EVERY);
    }
    servers
}

struct Row {
    server: String,
    status: String,
    in_flight: u64,
}

fn look(socket: &PathBuf) -> std::io::Result<Vec<Row>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    // 4: servers only, of every backend.
    stream.write_all(b"show stat -1 4 -1\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text.lines().filter(|line| !line.starts_with('#')).filter_map(row).collect())
}

/// `pxname,svname,qcur,qmax,scur,…,status` is column 17.
fn row(line: &str) -> Option<Row> {
    let fields = line.split(',').collect::<Vec<_>>();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Row {
        server: (*fields.get(1)?).to_owned(),
        status: (*fields.get(17)?).to_owned(),
        in_flight: number(2)? + number(4)?,
    })
}
