//! How long each step of a rollout took on the one host it is about, as seen from here.

use crate::connection::Connection;
use baton_proto::v1::{FleetView, StatusRequest};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Steps that are being noted down.
#[derive(Debug)]
pub struct Steps {
    notes: Arc<Mutex<Notes>>,
    watching: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Notes {
    host: String,
    now: Option<(String, Instant)>,
    took: Vec<(String, Duration)>,
}

impl Steps {
    /// Watches a rollout in a task of its own. What breaks the watching leaves the notes short, and nothing else.
    #[must_use]
    pub fn of(mut connection: Connection, service: &str, rollout: &str) -> Self {
        let notes = Arc::new(Mutex::new(Notes::default()));
        let (kept, service, rollout) = (Arc::clone(&notes), service.to_owned(), rollout.to_owned());
        let watching = tokio::spawn(async move {
            let request = StatusRequest { service: service.clone() };
            let Ok(reply) = connection.control.watch(request).await else { return };
            let mut views = reply.into_inner();
            while let Ok(Some(view)) = views.message().await {
                kept.lock().unwrap_or_else(PoisonError::into_inner).see(&view, &service, &rollout, Instant::now());
            }
        });
        Self { notes, watching }
    }

    /// The host, and its steps in their order.
    #[must_use]
    pub fn end(self) -> (String, Vec<(String, Duration)>) {
        self.watching.abort();
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut notes.host), std::mem::take(&mut notes.took))
    }
}

impl Notes {
    fn see(&mut self, view: &FleetView, service: &str, rollout: &str, at: Instant) {
        let Some(service) = view.services.iter().find(|it| it.name == service) else { return };
        let Some(active) = service.rollout.as_ref().filter(|it| it.id == rollout) else { return };
        let Some(host) = active.renews.first() else { return };
        let Some(step) = service.hosts.iter().find(|it| it.host == *host).map(|it| it.step.as_str()) else { return };
        self.host.clone_from(host);
        match &mut self.now {
            Some((now, _)) if now == step => {}
            // What serves before it begins and after it came back is no step of it.
            Some((now, since)) => {
                let took = at.saturating_duration_since(*since);
                let before = std::mem::replace(now, step.to_owned());
                *since = at;
                if before != "serving" {
                    self.took.push((before, took));
                }
            }
            None => self.now = Some((step.to_owned(), at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Notes;
    use crate::render::example;
    use baton_proto::v1::{FleetView, RolloutView, ServiceView};
    use std::time::{Duration, Instant};

    #[test]
    fn steps_are_timed_from_one_to_the_next_and_serving_is_none() {
        let (mut notes, began) = (Notes::default(), Instant::now());
        for (step, second) in [("serving", 0), ("draining", 1), ("draining", 2), ("probe", 4), ("serving", 9)] {
            let mut service = example::service();
            service.hosts[1].step = step.into();
            service.rollout = Some(RolloutView { renews: vec!["web3".into()], ..example::rollout() });
            let view = FleetView { services: vec![service], ..FleetView::default() };
            notes.see(&view, "shop", "r-7f3", began + Duration::from_secs(second));
        }
        let seconds = |text: &str, seconds| (text.to_owned(), Duration::from_secs(seconds));
        assert_eq!(notes.took, [seconds("draining", 3), seconds("probe", 5)]);
        assert_eq!(notes.host, "web3");
    }

    #[test]
    fn another_rollout_is_not_timed() {
        let mut notes = Notes::default();
        let view = FleetView { services: vec![ServiceView { ..example::service() }], ..FleetView::default() };
        notes.see(&view, "shop", "r-1", Instant::now());
        assert!(notes.now.is_none());
    }
}
