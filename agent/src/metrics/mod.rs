//! `/metrics` of one host: off unless the configuration says where. Everything is looked at when somebody asks, and not before.

mod counters;
mod host;
mod measured;
mod store;
#[cfg(test)]
mod tests;
mod usage;

pub use counters::{Counters, ServiceCounters};
pub use host::{Seen, metrics};
pub(crate) use measured::Measured;
pub use store::Store;
pub use usage::Usage;

use crate::condition::Condition;
use crate::reconciler::{Event, Obstacle, View};
use baton_core::problem::{Code, Problem};
use baton_proto::metrics::Exposition;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

/// Where the numbers come from.
#[derive(Debug, Clone)]
pub struct Sources {
    pub view: watch::Receiver<Arc<View>>,
    pub counters: Arc<Counters>,
    pub condition: Condition,
    pub store: Arc<Store>,
}

/// Answers for ever. An address that cannot be had is a problem this host tells, and tried again: what serves depends on nothing
/// here.
pub(crate) async fn serve(address: Option<SocketAddr>, sources: Sources, events: UnboundedSender<Event>) {
    let Some(address) = address else { return std::future::pending().await };
    let listener = listen(address, &events).await;
    tracing::info!(%address, "metrics");
    baton_proto::metrics::serve(listener, move || text(sources.clone()), std::future::pending()).await;
}

async fn listen(address: SocketAddr, events: &UnboundedSender<Event>) -> TcpListener {
    let mut told = None;
    let mut waits = crate::session::backoff();
    loop {
        let problem = match TcpListener::bind(address).await {
            Ok(listener) => {
                let _ = events.send(Event::Obstacle { what: Obstacle::Metrics, problem: None });
                return listener;
            }
            Err(error) => cannot_listen(address, &error),
        };
        if told.as_ref() != Some(&problem) {
            let _ = events.send(Event::Obstacle { what: Obstacle::Metrics, problem: Some(problem.clone()) });
            told = Some(problem);
        }
        tokio::time::sleep(waits.next().unwrap_or(crate::session::WAIT_MAX)).await;
    }
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> Problem {
    Problem::new(Code(545), format!("the agent cannot answer for its metrics at {address}"))
        .saw("network", crate::text::io_error(error))
        .help("choose another address (`metrics` in agent.toml), or stop what listens there; it is tried again by itself")
}

async fn text(sources: Sources) -> String {
    let Sources { view, counters, condition, store } = sources;
    let view = Arc::clone(&view.borrow());
    let shown = Arc::clone(&view);
    let look = move || (store.bytes(), usage::of_all(&shown));
    let (artifact_bytes, usage) = tokio::task::spawn_blocking(look).await.unwrap_or_default();
    let troubles = condition.troubles();
    let mut out = Exposition::default();
    let certificate = condition.certificate();
    metrics(&mut out, &Seen { view: &view, counters: &counters, troubles, artifact_bytes, certificate, usage: &usage });
    out.text()
}
