//! The strict client: sends requests at a fixed rate, whatever comes back, and counts everything that is not a whole 200.
//!
//! Open loop: a slow answer does not slow the requests after it, so an outage of a second costs a second's worth of requests
//! instead of one. There is no retry, ever: what Baton promises is measured here, at the client.

pub mod executions;
mod histogram;
mod request;
pub(super) mod tally;
#[cfg(test)]
mod tests;

pub use request::Kind;
use request::Target;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tally::Tally;
pub use tally::{Failure, KindReport, Posts, Report};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// What is sent, where, how often.
#[derive(Debug, Clone)]
pub struct Config {
    pub target: SocketAddr,
    /// Requests a second.
    pub rate: u32,
    /// Begins every order's id: two generators never send the same.
    pub tag: String,
    /// A request that takes longer has failed.
    pub timeout: Duration,
    /// Requests under way at once; one more has failed unsent.
    pub max_open: usize,
    /// One after the other, and again from the first; never empty.
    pub clients: &'static [Kind],
}

impl Config {
    #[must_use]
    pub fn new(target: SocketAddr, rate: u32) -> Self {
        static GENERATORS: AtomicU64 = AtomicU64::new(0);
        let tag = format!("{:x}.{}", std::process::id(), GENERATORS.fetch_add(1, Ordering::Relaxed));
        Self { target, rate: rate.max(1), tag, timeout: Duration::from_secs(5), max_open: 1500, clients: &Kind::MIX }
    }
}

/// A generator that runs on a thread of its own, so that nothing else delays its clock.
#[derive(Debug)]
pub struct Load {
    marks: mpsc::UnboundedSender<oneshot::Sender<Report>>,
    thread: Option<JoinHandle<()>>,
}

/// The generator's thread is gone.
#[derive(Debug, thiserror::Error)]
#[error("the load generator ended unexpectedly")]
pub struct Ended;

impl Load {
    /// Begins to send.
    ///
    /// # Errors
    /// When the thread or its runtime cannot be made.
    pub fn start(config: Config) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (marks, requested) = mpsc::unbounded_channel();
        let thread =
            std::thread::Builder::new().name("load".into()).spawn(move || runtime.block_on(generate(config, requested)))?;
        Ok(Self { marks, thread: Some(thread) })
    }

    /// Ends a phase and begins the next without a gap: reports every request that was started since the mark before.
    ///
    /// Waits for those under way, at most for the timeout of a request.
    ///
    /// # Errors
    /// When the generator is gone.
    pub async fn mark(&self) -> Result<Report, Ended> {
        let (reply, report) = oneshot::channel();
        self.marks.send(reply).map_err(|_| Ended)?;
        report.await.map_err(|_| Ended)
    }

    /// Reports the last phase and stops sending.
    ///
    /// # Errors
    /// When the generator is gone.
    pub async fn stop(self) -> Result<Report, Ended> {
        self.mark().await
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let (closed, _) = mpsc::unbounded_channel();
        self.marks = closed;
        if let Some(thread) = self.thread.take() {
            // It ends by itself once nobody can mark; a panic there was reported by its own hook.
            let _ = thread.join();
        }
    }
}

async fn generate(config: Config, mut marks: mpsc::UnboundedReceiver<oneshot::Sender<Report>>) {
    let interval = Duration::from_secs(1) / config.rate;
    let target = Arc::new(Target::new(config.target));
    let mut tally = Arc::new(Tally::new(&config.tag, 0));
    let mut due = Instant::now();
    for tick in 0usize.. {
        loop {
            tokio::select! {
                biased;
                mark = marks.recv() => match mark {
                    Some(reply) => {
                        let next = Arc::new(Tally::new(&config.tag, tally.next_post()));
                        let ended = std::mem::replace(&mut tally, next);
                        drop(tokio::spawn(async move { reply.send(ended.finish().await) }));
                    }
                    None => return,
                },
                () = tokio::time::sleep_until(due) => break,
            }
        }
        let Some(kind) = config.clients.get(tick % config.clients.len().max(1)).copied() else { return };
        if tally.begin(kind, config.max_open) {
            drop(tokio::spawn(one(Arc::clone(&target), Arc::clone(&tally), kind, due, config.timeout)));
        }
        due += interval;
    }
}

/// One request, from the moment it was due to its verdict.
async fn one(target: Arc<Target>, tally: Arc<Tally>, kind: Kind, due: Instant, timeout: Duration) {
    let order = kind.is_post().then(|| tally.order());
    let id = order.as_ref().map(tally::Order::text);
    let answer = match tokio::time::timeout(timeout, target.request(kind, id.as_deref())).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no whole answer within {timeout:?}").into()),
    };
    tally.end(kind, due, order, answer);
}
