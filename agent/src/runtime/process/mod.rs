//! Instances as plain processes: a group of their own, found again by process id and start time.
//!
//! What an instance writes goes to a file, not to a pipe: a pipe would break with the agent.

mod holder;
mod journal;
mod log;

use super::command::Program;
use super::handle::Handle;
use super::sockets::PublicSockets;
use super::{Answer, Exit, Found, Launch, MARK, Running, Runtime, START, command, handing};
use crate::connections::descendants;
use crate::secrets;
use crate::text;
use baton_core::fleet::InstanceKey;
use baton_core::name::ServiceName;
use baton_core::problem::{Code, Problem};
use baton_core::release::{Signal, Stop};
use journal::Journal;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Runs instances as children of the agent, which they outlive.
#[derive(Debug)]
pub struct ProcessRuntime {
    journal: Journal,
    /// Where instances find their secrets: beside the folder of journals, which nobody else may walk through.
    credentials: PathBuf,
    /// By incarnation.
    handles: Mutex<BTreeMap<String, Arc<Handle>>>,
    sockets: Arc<PublicSockets>,
    /// Whose logs are kept; None: nobody said yet.
    services: Mutex<Option<BTreeSet<ServiceName>>>,
    /// The words that start a part of this agent.
    parts: Vec<String>,
}

impl ProcessRuntime {
    /// Uses `folder` for journals and logs.
    ///
    /// # Errors
    /// B0604: the folder cannot be used, or this system has no boot id.
    pub fn open(folder: &Path, parts: Vec<String>) -> Result<Self, Problem> {
        let journal = Journal::open(folder)?;
        let starter = holder::Starter::new(parts.clone());
        let sockets = Arc::new(PublicSockets::new(journal.folder().to_owned(), Box::new(starter)));
        let credentials = folder.with_file_name("credentials");
        Ok(Self { journal, credentials, handles: Mutex::default(), sockets, services: Mutex::default(), parts })
    }

    fn handles(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Handle>>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, running: &Running) -> Option<Arc<Handle>> {
        self.handles().get(&running.incarnation).cloned()
    }

    async fn launch(&self, launch: Launch) -> Result<Running, Problem> {
        let program = command::resolve(&launch.command, &launch.folder)?;
        let sockets = self.sockets.get(&launch.key.service, &launch.listen).await?;
        let child = self.spawn(&launch, &program, &sockets).await?;
        let handle = Handle::of_child(child.id()).map_err(|error| vanished(&error))?;
        let running = Running {
            incarnation: self.journal.incarnation(handle.pid(), handle.started()),
            pid: handle.pid(),
            key: launch.key,
            release: launch.release,
            start: launch.start,
            folder: launch.folder,
            stop: launch.stop,
        };
        self.journal.write(&running);
        self.handles().insert(running.incarnation.clone(), Arc::new(handle));
        Ok(running)
    }

    async fn spawn(&self, launch: &Launch, program: &Program, sockets: &[Arc<OwnedFd>]) -> Result<Child, Problem> {
        let words = match sockets {
            [] => program.clone(),
            _ => command::begun(&self.parts, program),
        };
        let mut child = Command::new(&words.path);
        child.args(&words.arguments).current_dir(&launch.folder).process_group(0);
        let user = launch.user.as_deref().map(command::user).transpose()?;
        let credentials = self.lay_down(launch, user.as_ref())?;
        child
            .env_clear()
            .envs(secrets::variables(&credentials, launch.secrets.keys().cloned()))
            .envs(command::environment(&launch.env))
            .env(MARK, self.journal.mark(&launch.key))
            .env(START, launch.start.to_string());
        let (out, err) = log::create(&self.journal.log(&launch.key));
        child.stdin(Stdio::null()).stdout(out).stderr(err);
        if let Some(user) = user {
            child.uid(user.uid).gid(user.gid);
        }
        if sockets.is_empty() {
            return child.spawn().map_err(|error| self.refused(launch, &program.path, &error));
        }
        let (input, outcome) = handing::hand(sockets).map_err(|error| handing::unhanded(&error))?;
        child.stdin(input).env("LISTEN_FDNAMES", handing::names(launch.key.service.as_str(), sockets));
        let mut begun = child.spawn().map_err(|error| self.refused(launch, &words.path, &error))?;
        if let Err(error) = outcome.known().await {
            let _ = begun.kill();
            let _ = begun.wait();
            return Err(self.refused(launch, &program.path, &error));
        }
        Ok(begun)
    }

    /// The folder of an instance's secrets, made anew.
    fn lay_down(&self, launch: &Launch, user: Option<&command::User>) -> Result<PathBuf, Problem> {
        let credentials = secrets::folder(&self.credentials, &launch.key);
        if launch.secrets.is_empty() {
            let _ = secrets::take_away(&credentials);
        } else {
            secrets::lay_down(&credentials, &launch.secrets, user.map(|user| (user.uid, user.gid)))?;
        }
        Ok(credentials)
    }

    fn refused(&self, launch: &Launch, program: &Path, error: &std::io::Error) -> Problem {
        match (&launch.user, error.kind()) {
            (Some(user), std::io::ErrorKind::PermissionDenied) if !rustix::process::geteuid().is_root() => {
                Problem::new(Code(204), format!("this agent may not start a program as `{user}`"))
                    .help("run the agent as root, or leave run.user out")
            }
            _ => command::not_started(program, error),
        }
    }

    /// Takes an instance over that another agent started.
    fn adopt(&self, running: Running) -> Found {
        let handle = Handle::of_stranger(running.pid)
            .filter(|handle| self.journal.incarnation(running.pid, handle.started()) == running.incarnation);
        let alive = handle.is_some();
        if let Some(handle) = handle {
            self.handles().insert(running.incarnation.clone(), Arc::new(handle));
        }
        Found { running, alive }
    }

    async fn end(&self, running: &Running, stop: Option<&Stop>) -> Exit {
        let Some(handle) = self.handle(running) else { return Exit { end: super::End::Unseen, left_behind: 0 } };
        let exit = match stop {
            None => handle.ended().await,
            Some(stop) => handle.stop(signal(stop.signal), stop.timeout).await,
        };
        self.handles().remove(&running.incarnation);
        exit
    }
}

impl Runtime for ProcessRuntime {
    fn unnamed_is_root(&self) -> bool {
        rustix::process::geteuid().is_root()
    }

    fn list(&self) -> Answer<'_, Result<Vec<Found>, Problem>> {
        Box::pin(async {
            let mut found: Vec<_> = self.journal.read().into_iter().map(|running| self.adopt(running)).collect();
            let alive: BTreeSet<_> =
                found.iter().filter(|found| found.alive).map(|found| found.running.key.clone()).collect();
            for running in self.journal.unwritten().into_iter().filter(|running| !alive.contains(&running.key)) {
                found.retain(|found| found.running.key != running.key);
                self.journal.write(&running);
                found.push(self.adopt(running));
            }
            self.journal.sweep();
            Ok(found)
        })
    }

    fn start(&self, launch: Launch) -> Answer<'_, Result<Running, Problem>> {
        Box::pin(self.launch(launch))
    }

    fn ended<'a>(&'a self, running: &'a Running) -> Answer<'a, Exit> {
        Box::pin(self.end(running, None))
    }

    fn stop<'a>(&'a self, running: &'a Running, stop: &'a Stop) -> Answer<'a, Exit> {
        Box::pin(self.end(running, Some(stop)))
    }

    fn signal<'a>(&'a self, running: &'a Running, wanted: Signal) -> Answer<'a, ()> {
        Box::pin(async move {
            if let Some(handle) = self.handle(running) {
                handle.signal(signal(wanted));
            }
        })
    }

    fn processes(&self, running: &Running) -> BTreeSet<u32> {
        descendants(running.pid)
    }

    fn log<'a>(&'a self, running: &'a Running) -> Answer<'a, Vec<String>> {
        Box::pin(async { log::tail(&self.journal.log(&running.key)) })
    }

    fn forget<'a>(&'a self, key: &'a InstanceKey) -> Answer<'a, ()> {
        Box::pin(async {
            self.journal.remove(key);
            let _ = secrets::take_away(&secrets::folder(&self.credentials, key));
        })
    }

    fn keep_listening<'a>(&'a self, addresses: &'a BTreeSet<SocketAddr>) -> Answer<'a, Result<(), Problem>> {
        Box::pin(self.sockets.keep(addresses))
    }

    fn keep_logs(&self, services: BTreeSet<ServiceName>) {
        *self.services.lock().unwrap_or_else(PoisonError::into_inner) = Some(services);
    }

    fn tend(&self) {
        if let Some(services) = &*self.services.lock().unwrap_or_else(PoisonError::into_inner) {
            self.journal.forget_others(services);
        }
        let sockets = self.sockets.clone();
        tokio::spawn(async move { sockets.tend().await });
        let keys: BTreeSet<_> = self.journal.keys();
        keys.iter().for_each(|key| log::trim(&self.journal.log(key)));
    }
}

fn signal(signal: Signal) -> rustix::process::Signal {
    match signal {
        Signal::Term => rustix::process::Signal::TERM,
        Signal::Int => rustix::process::Signal::INT,
        Signal::Quit => rustix::process::Signal::QUIT,
        Signal::Usr1 => rustix::process::Signal::USR1,
        Signal::Usr2 => rustix::process::Signal::USR2,
    }
}

fn vanished(error: &std::io::Error) -> Problem {
    Problem::new(Code(204), format!("the program was started, and then could not be watched: {}", text::io_error(error)))
}

#[cfg(test)]
mod tests;
