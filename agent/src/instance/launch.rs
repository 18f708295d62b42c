//! Starting: the slot's port must be free, then the program must run.

use super::{Life, Wanted, evidence};
use crate::connections::listeners_at;
use crate::runtime::{Launch, Running, command};
use baton_core::problem::Problem;
use baton_core::release::Probe;
use std::collections::BTreeMap;
use std::time::Duration;

/// How often, and how far apart, a taken port is looked at again: the kernel may still be closing what has just ended.
const LOOKS: u32 = 5;
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

impl Life {
    pub(super) async fn start(&self) -> Result<Running, Problem> {
        let Some(wanted) = &self.wanted else { return Err(evidence::unknown(self)) };
        self.probe_is_there(wanted)?;
        self.port_is_free(wanted).await?;
        let run = &wanted.release.run;
        let launch = Launch {
            key: self.key.clone(),
            release: self.release_id,
            start: wanted.start,
            folder: wanted.folder.clone(),
            command: wanted.fill(&self.key, &run.command),
            user: run.user.clone(),
            env: self.environment(wanted),
            secrets: crate::secrets::find(&run.secrets, &self.allow.files_of(&self.key.service)).await?,
            stop: run.stop.clone(),
            listen: run.listen.clone(),
        };
        self.runtime.start(launch).await.map_err(|problem| evidence::not_started(self, problem))
    }

    /// A probe's program that is not there would be missed at every question, until the start's time is over.
    fn probe_is_there(&self, wanted: &Wanted) -> Result<(), Problem> {
        let Probe::Exec { command } = &wanted.release.health.probe else { return Ok(()) };
        match command::resolve(&wanted.fill(&self.key, command), &wanted.folder) {
            Ok(_) => Ok(()),
            Err(problem) => {
                let problem = problem.help("check health.exec in baton.toml, and what the archive holds");
                Err(evidence::not_started(self, problem))
            }
        }
    }

    /// A port somebody else listens on can only end in a wrong answer or an exit: said before anything is started.
    async fn port_is_free(&self, wanted: &Wanted) -> Result<(), Problem> {
        if matches!(wanted.release.health.probe, Probe::Exec { .. }) {
            // Such a release need not listen at all.
            return Ok(());
        }
        let mut taken = Vec::new();
        for _ in 0..LOOKS {
            taken = listeners_at(wanted.address).unwrap_or_default();
            if taken.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Err(evidence::port_taken(self, wanted, &taken))
    }

    fn environment(&self, wanted: &Wanted) -> BTreeMap<String, String> {
        let mut env = wanted.release.run.env.clone();
        let ours = [
            ("BATON_SERVICE", self.key.service.to_string()),
            ("BATON_SLOT", self.key.slot.to_string()),
            ("BATON_VERSION", wanted.release.version.to_string()),
            ("BATON_RELEASE", self.release_id.to_string()),
            ("BATON_ADDRESS", wanted.address.ip().to_string()),
            ("BATON_PORT", wanted.address.port().to_string()),
        ];
        env.extend(ours.map(|(name, value)| (name.to_owned(), value)));
        env
    }
}
