//! A change: the file, nginx's judgement of it, the reload, and how it is known that it happened.

use super::observe::Echo;
use super::page::{Page, Pools, Splits};
use super::processes::{Master, Worker};
use super::{Nginx, program};
use crate::balancer::{durable, problem};
use baton_core::problem::Problem;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// For a reload to be over within the pass that asked for it: new workers are there after 10 to 40 ms, and 100 ms later the
/// old ones take no more connections.
const AT_ONCE: Duration = Duration::from_millis(500);

/// After that, a reload that is not seen is one that was refused, and a worker that still takes connections hangs.
const PATIENCE: Duration = Duration::from_secs(3);

/// Between two tries of something nginx refused.
const REFUSED_FOR: Duration = Duration::from_secs(2);

/// Between two looks at a reload.
const LOOK: Duration = Duration::from_millis(4);

/// Workers of one reload start together; before those of the next one, nginx waits for 100 ms. That tells them apart after
/// reloads by others than this agent.
const TOGETHER_TICKS: u64 = 5;

/// A reload that was asked for and is not seen yet.
#[derive(Debug)]
pub(super) struct Pending {
    generation: u64,
    since: Instant,
    /// The file's text before.
    before: String,
    content: Content,
}

/// What a file is to say, whatever its number.
type Content = (Pools, Splits);

/// What nginx would not do.
#[derive(Debug)]
pub(super) struct Refused {
    content: Content,
    at: Instant,
    problem: Problem,
}

/// What a reload has come to, as far as can be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Settled {
    Yes,
    /// What is missing.
    NotYet(String),
}

impl Nginx {
    /// Writes the file, has nginx judge it, reloads, and waits a moment to see it done; says whether it was.
    pub(super) async fn put(&mut self, content: Content) -> Result<bool, Problem> {
        let again = |refused: &&Refused| refused.content == content && refused.at.elapsed() < REFUSED_FOR;
        if let Some(refused) = self.refused.as_ref().filter(again) {
            return Err(refused.problem.clone());
        }
        self.refused = None;
        let master = Master::find(&self.config.pid_file)?;
        let before = std::fs::read_to_string(&self.config.include).unwrap_or_default();
        // Once: a generation is never written twice, also when this one is never seen.
        self.now.generation += 1;
        let mut page = Page {
            generation: self.now.generation,
            pools: content.0.clone(),
            splits: content.1.clone(),
            logged: self.may_log.unwrap_or(self.now.logged),
        };
        self.expect_requests(&page.pools);
        let accepted = loop {
            self.write(page.render(&self.config)).await?;
            let accepted = match program::test(&self.config).await {
                Ok(accepted) if accepted.includes(&self.config) => accepted,
                Ok(_) => return self.refuse(content, before, problem::not_included(&self.config.include)).await,
                Err(problem) => return self.refuse(content, before, problem).await,
            };
            self.learn(&accepted);
            let logged = accepted.logs.may_listen();
            if logged == page.logged {
                break accepted;
            }
            // Somebody changed nginx.conf since: what stands in Baton's own file changes nothing of that.
            page.logged = logged;
        };
        tracing::info!(generation = page.generation, "nginx is reloaded");
        self.before = master.workers();
        let told = i32::try_from(master.pid).ok().and_then(Pid::from_raw).map(|pid| kill_process(pid, Signal::HUP));
        if let Some(Err(error)) = told {
            return Err(problem::nginx_not_running(&self.config.pid_file, &error.to_string()));
        }
        let since = Instant::now();
        self.pending = Some(Pending { generation: page.generation, since, before, content });
        while since.elapsed() < AT_ONCE {
            tokio::time::sleep(LOOK).await;
            let Ok(echo) = Echo::ask(&self.status).await else { continue };
            self.note(&echo);
            if echo.page.generation == self.now.generation && self.mixed(master).is_empty() {
                self.notes = accepted.notes(echo.version.as_deref(), &self.config);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether what was asked for is what every worker does that takes connections.
    ///
    /// A reload that nobody saw within its time was refused in silence: the file goes back to what nginx would start with.
    pub(super) async fn settle(&mut self, master: Master, echo: Option<&Echo>) -> Result<Settled, Problem> {
        let generation = echo.map(|echo| echo.page.generation);
        if let Some(pending) = self.pending.take_if(|pending| generation.is_none_or(|seen| seen < pending.generation)) {
            if pending.since.elapsed() < PATIENCE {
                let seen = format!("nginx does not serve version {} of its file yet", pending.generation);
                self.pending = Some(pending);
                return Ok(Settled::NotYet(seen));
            }
            let seen = generation.map_or_else(
                || format!("nobody answers on {}", self.status),
                |seen| format!("it serves version {seen}, not {}", pending.generation),
            );
            let problem = problem::not_taken_over("nginx", &seen);
            self.write(pending.before).await?;
            self.before.clear();
            self.refused = Some(Refused { content: pending.content, at: Instant::now(), problem });
            return Ok(Settled::Yes);
        }
        self.pending = None;
        let mixed = if echo.is_some() { self.mixed(master) } else { BTreeSet::new() };
        if mixed.is_empty() {
            self.mixed = None;
        } else if self.mixed.get_or_insert_with(Instant::now).elapsed() < PATIENCE {
            return Ok(Settled::NotYet(format!("workers of another version still take connections: {}", listed(&mixed))));
        }
        Ok(Settled::Yes)
    }

    /// Remembers who said what it serves.
    pub(super) fn note(&mut self, echo: &Echo) {
        if echo.page.generation > self.said {
            self.current.clear();
            self.said = echo.page.generation;
        }
        if echo.page.generation == self.said {
            self.current.extend(echo.pid.and_then(Worker::of));
        }
    }

    /// Whether a worker serves what was said last.
    pub(super) fn is_current(&self, worker: Worker) -> bool {
        if self.before.contains(&worker) {
            return false;
        }
        let oldest = self.current.iter().map(|worker| worker.started).min();
        self.current.contains(&worker) || oldest.is_some_and(|oldest| worker.started + TOGETHER_TICKS >= oldest)
    }

    /// Workers of another version that still take connections.
    fn mixed(&self, master: Master) -> BTreeSet<Worker> {
        master.workers().into_iter().filter(|worker| !worker.is_leaving() && !self.is_current(*worker)).collect()
    }

    /// Puts back the file that nginx would still start with.
    async fn refuse(&mut self, content: Content, before: String, problem: Problem) -> Result<bool, Problem> {
        self.write(before).await?;
        self.refused = Some(Refused { content, at: Instant::now(), problem: problem.clone() });
        Err(problem)
    }

    pub(super) async fn write(&self, text: String) -> Result<(), Problem> {
        let path = &self.config.include;
        durable::replace_readable(path, text).await.map_err(|error| problem::state_file(path, &error))
    }
}

fn listed(workers: &BTreeSet<Worker>) -> String {
    workers.iter().map(|worker| worker.pid.to_string()).collect::<Vec<_>>().join(", ")
}
