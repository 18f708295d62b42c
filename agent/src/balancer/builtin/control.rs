//! What the driver and the proxy say to each other: one JSON document a line, over a unix socket only its owner may open.

use baton_core::fleet::latency::Latency;
use baton_core::fleet::spec::MemberState;
use baton_core::fleet::split::{Side, TrafficSplit};
use baton_core::name::PoolName;
use baton_core::release::Probe;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// A line longer than this is not ours.
pub(super) const LINE_MAX: u64 = 4 << 20;

/// What every pool should be: this very document is also what is on disk.
pub(super) type Wishes = BTreeMap<PoolName, BTreeMap<SocketAddr, Wish>>;

/// How one member should be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wish {
    pub(super) state: MemberState,
    pub(super) weight: u16,
    #[serde(default)]
    pub(super) side: Side,
}

/// How each pool that divides its requests does so.
pub(super) type Splits = BTreeMap<PoolName, TrafficSplit>;

/// What each member is asked by the proxy's own checks.
pub(super) type Checks = BTreeMap<PoolName, BTreeMap<SocketAddr, Probe>>;

/// A question to the proxy. Each is answered with a whole [`Answer`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Ask {
    Look {},
    /// Replaces the members of the pools it names.
    Set {
        pools: Wishes,
        /// Only if everything is as it was when it had this [mark](Answer::mark): else nothing is changed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seen: Option<String>,
    },
    /// Replaces how a pool divides its requests.
    Divide {
        pool: PoolName,
        split: Option<TrafficSplit>,
    },
    /// Replaces the checks of the pools it names. Only in memory: who restarts checks nobody until it is told again.
    Check {
        checks: Checks,
    },
    /// Hands the ports to the process that asks, and leaves. Answered with them: see [`takeover`](super::takeover).
    HandOver {},
    /// Ends what is in flight at a member.
    Cut {
        pool: PoolName,
        address: SocketAddr,
    },
}

/// The proxy as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Pid and start time.
    pub(super) identity: String,
    /// As its driver named it. `None`: a process of a version that cannot hand its ports over.
    #[serde(default)]
    pub(super) edition: Option<String>,
    /// Another process has its ports: it only finishes.
    #[serde(default)]
    pub(super) is_leaving: bool,
    pub(super) pools: BTreeMap<PoolName, BTreeMap<SocketAddr, Told>>,
    /// Read back from the state file.
    pub(super) on_disk: Wishes,
    /// Of the pools that divide their requests. `None`: a process of a version that could not.
    #[serde(default)]
    pub(super) splits: Option<BTreeMap<PoolName, Divided>>,
    #[serde(default)]
    pub(super) splits_on_disk: Splits,
    /// `None`: a process of a version that does not check, or is not to.
    #[serde(default)]
    pub(super) checks: Option<Checks>,
    /// Of the pools that have a certificate.
    #[serde(default)]
    pub(super) certificates: BTreeMap<PoolName, Certified>,
    /// Why the question was not followed.
    pub(super) error: Option<String>,
}

impl Answer {
    /// Stands for all of it by which is decided what to change: for everything but what counts and grows by itself.
    pub(super) fn mark(&self) -> io::Result<String> {
        let mut still = Self { error: None, ..self.clone() };
        for told in still.pools.values_mut().flat_map(BTreeMap::values_mut) {
            (told.in_flight, told.oldest_ms, told.out_for_ms, told.latency) = (0, None, 0, None);
            (told.cut, told.requests, told.errors) = (0, 0, 0);
            // How often in a row it says, too.
            told.down = told.down.take().map(|_| String::new());
        }
        for divided in still.splits.iter_mut().flat_map(BTreeMap::values_mut) {
            (divided.stable, divided.trial, divided.ruled) = (0, 0, 0);
        }
        Ok(blake3::hash(&serde_json::to_vec(&still)?).to_hex().to_string())
    }

    /// How the members of a pool are served.
    pub(super) fn wishes(&self, pool: &PoolName) -> BTreeMap<SocketAddr, Wish> {
        self.pools.get(pool).into_iter().flatten().map(|(address, told)| (*address, told.wish)).collect()
    }
}

/// A split, and what came of it since it is in effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Divided {
    pub(super) split: TrafficSplit,
    pub(super) stable: u64,
    pub(super) trial: u64,
    /// Of those to the trial side, sent there by a rule.
    pub(super) ruled: u64,
}

/// A pool's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Certified {
    /// False: there was none that could be served, so nobody is.
    pub(super) is_served: bool,
    /// What is wrong with the files as they are now.
    pub(super) wrong: Option<String>,
}

/// One member as the proxy serves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    #[serde(flatten)]
    pub(super) wish: Wish,
    pub(super) in_flight: u64,
    /// How long the oldest of those in flight has been open.
    #[serde(default)]
    pub(super) oldest_ms: Option<u64>,
    pub(super) out_for_ms: u64,
    pub(super) cut: u64,
    pub(super) requests: u64,
    pub(super) errors: u64,
    #[serde(default)]
    pub(super) latency: Option<Latency>,
    /// What was seen of one that fails its checks.
    #[serde(default)]
    pub(super) down: Option<String>,
    /// It gets no new requests for that.
    #[serde(default)]
    pub(super) is_kept_out: bool,
}

/// Asks one question in a connection of its own.
pub(super) async fn ask(path: &Path, ask: &Ask) -> io::Result<Answer> {
    let mut stream = BufReader::new(UnixStream::connect(path).await?);
    stream.write_all(&line(ask)?).await?;
    let mut answer = String::new();
    stream.take(LINE_MAX).read_line(&mut answer).await?;
    serde_json::from_str(&answer).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, answer))
}

/// A document as its line.
pub(super) fn line<T: Serialize>(document: &T) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(document)?;
    line.push(b'\n');
    Ok(line)
}
