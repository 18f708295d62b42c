//! The operator: deploys with the command line on the coordinator's host, and watches what the coordinator says.

use super::service;
use crate::fleet::host::Host;
use crate::fleet::pool::Pool;
use anyhow::{Context as _, bail};
use baton_proto::tls::local_channel;
use baton_proto::v1::control_client::ControlClient;
use baton_proto::v1::{FleetView, StatusRequest};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// `baton deploy`, under way.
#[derive(Debug)]
pub(super) struct Deploy(Child);

impl Deploy {
    /// Starts it.
    ///
    /// # Errors
    /// When the host does not run.
    pub(super) fn start(coordinator: &Host, pool: &Pool, version: &str) -> anyhow::Result<Self> {
        let line = format!("cd {} && exec baton deploy {} {version} --plain", service::folder(pool), pool.name);
        let mut command = coordinator.command(&["sh", "-c", &line])?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(Self(command.spawn().context("cannot start `baton deploy`")?))
    }

    /// Waits for its end: its exit code and what it said.
    ///
    /// # Errors
    /// When it does not end.
    pub(super) fn end(mut self, deadline: Duration) -> anyhow::Result<(i32, String)> {
        let begun = Instant::now();
        while self.0.try_wait()?.is_none() {
            if begun.elapsed() > deadline {
                self.0.kill()?;
                let output = self.0.wait_with_output()?;
                bail!("`baton deploy` still waits after {deadline:?}\n{}", crate::fleet::run::said(&output));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let output = self.0.wait_with_output()?;
        Ok((output.status.code().unwrap_or(-1), crate::fleet::run::said(&output)))
    }
}

/// Everything the coordinator says of itself, as it says it, over however many of its lives.
#[derive(Debug)]
pub(super) struct Watcher {
    views: Receiver<FleetView>,
    last: FleetView,
}

impl Watcher {
    /// Begins to watch, on a thread that ends with this value.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub(super) fn start(coordinator: Host) -> anyhow::Result<Self> {
        let (tell, views) = channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("watcher".into()).spawn(move || runtime.block_on(watch(coordinator, tell)))?;
        Ok(Self { views, last: FleetView::default() })
    }

    /// Waits until a view gives an answer.
    ///
    /// # Errors
    /// When none does in time: with the last view's essence.
    pub(super) fn until<T>(
        &mut self,
        what: &str,
        deadline: Duration,
        mut ask: impl FnMut(&FleetView) -> Option<T>,
    ) -> anyhow::Result<T> {
        let begun = Instant::now();
        loop {
            if let Some(answer) = ask(&self.last) {
                return Ok(answer);
            }
            match self.views.recv_timeout(deadline.saturating_sub(begun.elapsed())) {
                Ok(view) => self.last = view,
                Err(RecvTimeoutError::Timeout) => bail!("not within {deadline:?}: {what}; {}", essence(&self.last)),
                Err(RecvTimeoutError::Disconnected) => bail!("the watcher is gone"),
            }
        }
    }

    #[must_use]
    pub(super) fn last(&self) -> &FleetView {
        &self.last
    }
}

async fn watch(coordinator: Host, tell: Sender<FleetView>) {
    loop {
        if let Some(leader) = coordinator.leader() {
            let socket = format!("/proc/{}/root/run/baton/coordinator.sock", leader.as_raw_nonzero());
            let mut control = ControlClient::new(local_channel(socket));
            if let Ok(reply) = control.watch(StatusRequest::default()).await {
                let mut views = reply.into_inner();
                while let Ok(Some(view)) = views.message().await {
                    if tell.send(view).is_err() {
                        return;
                    }
                }
            }
        }
        // Between two lives of the coordinator.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A view in a few words, for an error text.
fn essence(view: &FleetView) -> String {
    let services = view.services.iter().map(|service| {
        let rollout = service
            .rollout
            .as_ref()
            .map(|rollout| format!("{} {} of {}", rollout.state, rollout.hosts_done, rollout.hosts_total));
        let waiting = service.waiting.iter().map(|waiting| format!("{} {}", waiting.host, waiting.text)).collect::<Vec<_>>();
        format!("{}: {}, waiting for [{}]", service.name, rollout.unwrap_or_default(), waiting.join("; "))
    });
    let silent = view.hosts.iter().filter(|host| !host.connected).map(|host| format!("{} is not connected", host.name));
    services.chain(silent).collect::<Vec<_>>().join("; ")
}
