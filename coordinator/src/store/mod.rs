//! What must survive: desired state, issued specs, who was admitted. Observations are not here; agents repeat them.
//!
//! One trait of a few methods, two implementations: SQLite ([`sqlite`]) and its twin in memory ([`memory`]), held together by
//! one suite of tests (`contract`).

pub mod certificate;
mod connection;
#[cfg(test)]
mod contract;
pub mod memory;
#[cfg(test)]
mod older;
mod schema;
pub mod sqlite;
pub mod token;

use crate::audit::chain::{Entry, Head, Record};
use baton_core::fleet::fence::Fence;
use baton_core::fleet::orders::{Freeze, Maintenance, Order};
use baton_core::fleet::past::Forgotten;
use baton_core::fleet::spec::HostSpec;
use baton_core::fleet::{Fleet, Host, Labels, Service};
use baton_core::name::{Digest, Epoch, HostName, ReleaseId, RolloutId, ServiceName, Version};
use baton_core::problem::{Code, Problem};
use baton_core::reboot::Reboot;
use baton_core::release::Release;
use baton_core::rollout::Rollout;
use baton_core::time::Moment;
use baton_core::upgrade::Upgrade;
use certificate::{Certificate, Renewal};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use token::{Redeemed, Redemption, Token, TokenId};

/// Where the coordinator remembers.
///
/// Whatever a method returned `Ok` for is durable: it survives `kill -9` and the loss of power. Whatever it returned an error
/// for has not happened, as a whole: there are no half transactions. Every method may be called from many tasks at once.
#[tonic::async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads everything a driver needs to begin.
    ///
    /// Of the rollouts, the active ones and the latest ended one of each service; the others stay in the store.
    async fn load(&self) -> Result<Snapshot, StoreError>;

    /// Writes one pass of the driver as one transaction.
    ///
    /// Compare-and-set twice over: fails with [`StoreError::Fenced`] when the stored epoch is not [`Changes::held`] (somebody
    /// else drives), and with [`StoreError::ActiveRollout`] when a service would have two active rollouts (invariant 8).
    /// Within one call, rollouts that end make room for those that begin.
    async fn commit(&self, changes: &Changes) -> Result<(), StoreError>;

    /// The newest upgrade of agents.
    async fn upgrade(&self) -> Result<Option<Upgrade>, StoreError>;

    /// Keeps it as it is now, in place of the one before. Fails with [`StoreError::Fenced`] as [`Self::commit`] does.
    async fn keep_upgrade(&self, held: Epoch, upgrade: &Upgrade) -> Result<(), StoreError>;

    /// The newest reboots that were asked for.
    async fn reboot(&self) -> Result<Option<Reboot>, StoreError>;

    /// Keeps them as [`Self::keep_upgrade`] does.
    async fn keep_reboot(&self, held: Epoch, reboot: &Reboot) -> Result<(), StoreError>;

    /// Rollouts, those under way first, then the newest.
    async fn history(&self, about: &About) -> Result<Vec<Dated>, StoreError>;

    /// Releases that were forgotten, those that were last first, and [`FORGOTTEN_MAX`] of them at most.
    async fn forgotten(&self, which: &Which) -> Result<Vec<Forgotten>, StoreError>;

    /// Lists tokens that could still be redeemed at `now`, oldest first.
    async fn tokens(&self, now: WallTime) -> Result<Vec<Token>, StoreError>;

    /// Keeps a new token. Those that expired more than a week ago are forgotten.
    async fn keep_token(&self, token: &Token) -> Result<(), StoreError>;

    /// Takes one use from a token and records the certificate about to be issued for it, in one transaction.
    ///
    /// The use is taken by one conditional update: of any number of concurrent redemptions of a token with `n` uses left,
    /// exactly `n` are granted. What is not [`Redeemed::Granted`] took nothing. Certificates that the name had before are
    /// revoked, and named in the grant.
    async fn redeem(&self, redemption: &Redemption) -> Result<Redeemed, StoreError>;

    /// What people call the token with this secret, also one that is spent; None: there is none.
    async fn token_id(&self, secret_hash: &Digest) -> Result<Option<TokenId>, StoreError>;

    /// Makes a token worthless; false when no such token could be redeemed any more.
    async fn revoke_token(&self, id: &TokenId) -> Result<bool, StoreError>;

    /// Records the certificate about to be issued to whoever shows one; false when what is shown was revoked.
    ///
    /// A certificate the store does not know is none of its business: after a restore from a backup, those that were issued
    /// since are genuine, and nobody revoked them.
    async fn renew(&self, renewal: &Renewal) -> Result<bool, StoreError>;

    /// Lists certificates that have not expired at `now`, by identity, oldest first.
    async fn certificates(&self, now: WallTime) -> Result<Vec<Certificate>, StoreError>;

    /// Revokes a certificate by its serial number, or all of an identity. Returns those that were good until now.
    async fn revoke(&self, whose: &str) -> Result<Vec<String>, StoreError>;

    /// Notes that a certificate was used. One the store does not know is written down: after a restore from a backup, those
    /// that were issued since are genuine, and somebody needs their authority.
    async fn note_use(&self, used: &Certificate) -> Result<(), StoreError>;

    /// Settles whose certificates are good, by the fingerprints of the authorities that are believed, the oldest last: those
    /// of any other are revoked, and named. What was issued before authorities were written down is the oldest one's.
    async fn believe(&self, authorities: &[String]) -> Result<Vec<String>, StoreError>;

    /// Appends an entry to the audit log, chained to the one before.
    async fn append(&self, at: WallTime, entry: &Entry) -> Result<Head, StoreError>;

    /// Entries of the audit log after a number, oldest first, so many at most. They are as they are stored: whether they were
    /// written so is another question.
    async fn audit(&self, after: u64, most: u32) -> Result<Vec<Record>, StoreError>;

    /// Where the audit log ends.
    async fn audit_head(&self) -> Result<Head, StoreError>;
}

/// Seconds since 1970. Only for what has a date that people read, or that leaves the coordinator with it: tokens, certificates,
/// the audit log, when a rollout was over (invariant 17).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WallTime(pub i64);

/// Everything a driver begins with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The last driver's; a new driver takes the next one.
    pub epoch: Epoch,
    pub moment: Moment,
    /// The number of the last rollout that got an id.
    pub sequence: u64,
    pub hosts: BTreeMap<HostName, HostRecord>,
    pub services: BTreeMap<ServiceName, Service>,
    pub releases: BTreeMap<ReleaseId, Arc<Release>>,
    pub rollouts: BTreeMap<RolloutId, Rollout>,
    /// A freeze of every service.
    pub freeze: Option<Freeze>,
    /// Where it was restored from a copy.
    pub fence: Option<Fence>,
    /// Serial numbers of certificates that are not accepted any more, though they have not expired.
    pub revoked: BTreeSet<String>,
}

/// Forgotten releases in one answer, at most.
pub const FORGOTTEN_MAX: usize = 1000;

/// Which forgotten releases are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    Ids(BTreeSet<ReleaseId>),
    Called(ServiceName, Version),
    /// None: of every service.
    Of(Option<ServiceName>),
}

/// Which rollouts are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// None: of every service.
    pub service: Option<ServiceName>,
    /// None: all of them.
    pub rollout: Option<RolloutId>,
    pub limit: u32,
}

/// A rollout with the day on which it was over. The driver's own clock stands while nobody drives; what people are told does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dated {
    pub rollout: Rollout,
    /// None while it is under way, and where a version wrote it that kept no such thing.
    pub ended: Option<WallTime>,
}

/// What is remembered of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRecord {
    pub address: IpAddr,
    pub issued: HostSpec,
    pub accepted: bool,
    pub maintenance: Option<Maintenance>,
    pub dead_balancer: Option<Order>,
    pub labels: Labels,
}

/// One transaction: what is in it replaces what was there; what is not stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// The epoch the writer believes is stored: the fence.
    pub held: Epoch,
    /// The epoch from now on: the same, but for a driver's first transaction.
    pub epoch: Epoch,
    pub moment: Moment,
    /// What the clock on the wall says: rollouts that are over by now get it, unless they have it.
    pub at: WallTime,
    pub sequence: u64,
    pub hosts: BTreeMap<HostName, HostRecord>,
    pub services: BTreeMap<ServiceName, Service>,
    /// Those that are new, or remembered again.
    pub releases: BTreeMap<ReleaseId, Arc<Release>>,
    /// Those that are remembered no more: from now on they are found by [`Store::forgotten`], and nowhere else.
    pub forgotten: BTreeMap<ReleaseId, Forgotten>,
    pub rollouts: BTreeMap<RolloutId, Rollout>,
    /// The freeze of every service, where it changed.
    pub freeze: Option<Thaw>,
    /// The fence of a restored coordinator, where it changed. It is never taken away, it only falls.
    pub fence: Option<Fence>,
    /// Hosts that are forgotten.
    pub gone_hosts: BTreeSet<HostName>,
    /// Services that are forgotten, with their releases, also those that were before. Their rollouts stay as history.
    pub gone_services: BTreeSet<ServiceName>,
}

/// A change of the fleet's freeze: to this one, or to none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thaw(pub Option<Freeze>);

/// Why the store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("{0} already has an active rollout")]
    ActiveRollout(ServiceName),
    #[error("epoch {held} no longer drives: the store is at epoch {found}")]
    Fenced { held: Epoch, found: Epoch },
    /// Full disk, read-only file system, lost file: trying again may help.
    #[error("the store cannot be read or written: {0}")]
    Unavailable(String),
    /// What is stored is not what this version writes.
    #[error("the store holds something this version cannot read: {0}")]
    Unreadable(String),
}

impl StoreError {
    /// The problem as people see it.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::ActiveRollout(service) => Problem::new(Code(720), format!("{service} already has an active rollout"))
                .help(format!("baton why {service}")),
            Self::Fenced { held, found } => Problem::new(Code(1005), "another coordinator has taken over this fleet")
                .saw("epoch", format!("this one drives epoch {held}, the store is at {found}"))
                .help("stop this coordinator: two were started from one state"),
            Self::Unavailable(seen) => Problem::new(
                Code(1001),
                "the coordinator cannot write its store, so it decides nothing; hosts go on serving",
            )
            .saw("store", seen.clone())
            .help("make room on the disk of the coordinator's state folder; it goes on by itself"),
            Self::Unreadable(seen) => Problem::new(Code(1004), "the coordinator's store cannot be read by this version")
                .saw("store", seen.clone())
                .help("run the version of baton-coordinator that wrote it, or restore a backup"),
        }
    }
}

impl Snapshot {
    /// The fleet as it was last decided; nobody has been heard yet.
    #[must_use]
    pub fn into_fleet(mut self) -> Fleet {
        // Rollouts of services that were removed are history.
        self.rollouts.retain(|_, rollout| self.services.contains_key(&rollout.service));
        let hosts = self.hosts.into_iter().map(|(name, record)| {
            let HostRecord { address, mut issued, accepted, maintenance, dead_balancer, labels } = record;
            // A document is held once, on however many hosts the release is.
            for (id, release) in &mut issued.releases {
                if let Some(known) = self.releases.get(id) {
                    *release = Arc::clone(known);
                }
            }
            (name, Host { address, issued, heard: None, connected: false, accepted, maintenance, dead_balancer, labels })
        });
        Fleet {
            epoch: self.epoch,
            hosts: hosts.collect(),
            services: self.services,
            releases: self.releases,
            rollouts: self.rollouts,
            freeze: self.freeze,
            fence: self.fence,
            ..Fleet::default()
        }
    }
}

impl Changes {
    /// Whether anything is in it but the clock.
    #[must_use]
    pub fn decides_nothing(&self) -> bool {
        self.held == self.epoch
            && self.hosts.is_empty()
            && self.services.is_empty()
            && self.releases.is_empty()
            && self.forgotten.is_empty()
            && self.rollouts.is_empty()
            && self.freeze.is_none()
            && self.fence.is_none()
            && self.gone_hosts.is_empty()
            && self.gone_services.is_empty()
    }
}
