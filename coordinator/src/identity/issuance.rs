//! Who signs now, whom the coordinator believes, and what it shows: changed in one order, while it runs.
//!
//! The order is disk, listener, everybody else: nobody is told of an authority before its certificates are accepted.

use super::authority::Validity;
use super::rotation::Authorities;
use super::{server, wall_time};
use baton_core::problem::Problem;
use baton_proto::tls::{Hot, hot};
use rustls::ServerConfig;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How often the remaining life of the coordinator's certificate is looked at, at most and at least: the wall clock may jump.
const LOOK_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// The authorities of a coordinator that runs, and its own certificate.
#[derive(Debug)]
pub struct Issuance {
    folder: PathBuf,
    /// Of the coordinator's own certificates, in seconds.
    life: i64,
    current: watch::Sender<Arc<Authorities>>,
    tls: Hot<ServerConfig>,
    /// Held while something in the folder changes.
    changing: Mutex<()>,
}

impl Issuance {
    /// Reads what a folder has, finishes what was begun there, and makes the coordinator a certificate where it needs one.
    ///
    /// # Errors
    /// B1002 when there is no authority, B1001 and B1004 when the folder cannot be read or written.
    pub fn open(folder: &Path, life: i64) -> Result<Self, Problem> {
        Authorities::finish(folder)?;
        let authorities = Authorities::load(folder)?;
        let credentials = server::credentials(&authorities, folder, Validity { now: wall_time(), life })?;
        Ok(Self {
            folder: folder.to_owned(),
            life,
            tls: hot(server::configuration(&credentials)?),
            current: watch::Sender::new(Arc::new(authorities)),
            changing: Mutex::default(),
        })
    }

    /// The authorities as of now.
    #[must_use]
    pub fn current(&self) -> Arc<Authorities> {
        Arc::clone(&self.current.borrow())
    }

    /// The authorities whenever they change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<Authorities>> {
        self.current.subscribe()
    }

    /// What a listener serves with.
    #[must_use]
    pub fn tls(&self) -> Hot<ServerConfig> {
        Arc::clone(&self.tls)
    }

    /// Makes an authority that signs from now on; the one before it is believed until it is retired.
    ///
    /// # Errors
    /// Those of [`Authorities::rotated`] and [`Authorities::begin`]; nothing has changed then.
    pub fn rotate(&self) -> Result<Arc<Authorities>, Problem> {
        self.change(|folder| {
            let next = Authorities::rotated(folder, wall_time())?;
            Ok((next, Authorities::begin))
        })
    }

    /// Ends the authority before the signer. Whoever has nothing but a certificate of it is a stranger from now on.
    ///
    /// # Errors
    /// Those of [`Authorities::retired`] and [`Authorities::end`]; nothing has changed then.
    pub fn retire(&self) -> Result<Arc<Authorities>, Problem> {
        self.change(|folder| Ok((Authorities::retired(folder)?, |_, folder| Authorities::end(folder))))
    }

    fn change(
        &self,
        next: impl FnOnce(&Path) -> Result<(Authorities, fn(&Authorities, &Path) -> Result<(), Problem>), Problem>,
    ) -> Result<Arc<Authorities>, Problem> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        // What could not be written the last time is in the way of what comes.
        Authorities::finish(&self.folder)?;
        let (next, write_down) = next(&self.folder)?;
        let credentials = next.issue_server(&server::host_name(), Validity { now: wall_time(), life: self.life })?;
        let configuration = server::configuration(&credentials)?;
        write_down(&next, &self.folder)?;
        // It has happened: what fails from here on is done by the next start.
        self.tls.store(configuration);
        let next = Arc::new(next);
        self.current.send_replace(Arc::clone(&next));
        let kept = Authorities::finish(&self.folder).and_then(|()| server::keep(&credentials, &next, &self.folder));
        if let Err(problem) = kept {
            tracing::warn!(%problem, "the change of the authority is not finished on this disk yet");
        }
        Ok(next)
    }

    /// Keeps the coordinator's own certificate from ending, without touching open connections.
    pub async fn renew(self: Arc<Self>) {
        let mut known = None;
        let mut changes = self.changes();
        loop {
            let wait = match self.renewed(&mut known) {
                Ok(left) => left,
                Err(problem) => {
                    tracing::error!(%problem, "the coordinator's certificate was not renewed");
                    LOOK_AFTER.1
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait.clamp(LOOK_AFTER.0, LOOK_AFTER.1)) => {}
                _ = changes.changed() => {}
            }
        }
    }

    /// Renews when it is time; how long that takes still.
    fn renewed(&self, known: &mut Option<String>) -> Result<Duration, Problem> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = wall_time();
        let credentials = server::credentials(&self.current(), &self.folder, Validity { now, life: self.life })?;
        let subject = credentials.subject()?;
        let left = subject.renew_at().saturating_sub(now.0);
        if known.as_ref() != Some(&subject.serial) {
            self.tls.store(server::configuration(&credentials)?);
            *known = Some(subject.serial);
        }
        Ok(Duration::from_secs(u64::try_from(left).unwrap_or(0)))
    }
}
