//! How much memory the instances have, for the reports: looked at every few seconds, since a look walks through `/proc`.

use super::usage;
use crate::reconciler::View;
use baton_core::fleet::InstanceKey;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Several looks in each of the steps that the coordinator thinks in, which are half a minute.
const EVERY: Duration = Duration::from_secs(8);

/// The last look.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    at: Option<Instant>,
    bytes: BTreeMap<InstanceKey, (Option<u32>, u64)>,
}

impl Measured {
    /// Bytes by instance: of the very process that was looked at, and of none that has begun since.
    pub(crate) async fn of(&mut self, view: &Arc<View>) -> BTreeMap<InstanceKey, u64> {
        if self.at.is_none_or(|at| at.elapsed() >= EVERY) {
            self.look(view).await;
        }
        let known = self.bytes.iter().filter(|(key, (pid, _))| pid.is_some() && pid_of(view, key) == *pid);
        known.map(|(key, (_, bytes))| (key.clone(), *bytes)).collect()
    }

    async fn look(&mut self, view: &Arc<View>) {
        let shown = Arc::clone(view);
        let looked = tokio::task::spawn_blocking(move || usage::of_all(&shown)).await.unwrap_or_default();
        self.at = Some(Instant::now());
        let of = |(key, usage): (InstanceKey, usage::Usage)| {
            let pid = pid_of(view, &key);
            (key, (pid, usage.own_bytes))
        };
        self.bytes = looked.into_iter().map(of).collect();
    }
}

fn pid_of(view: &View, key: &InstanceKey) -> Option<u32> {
    view.instances.get(key).and_then(|instance| instance.pid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconciler::{InstanceView, Phase};
    use baton_core::name::{Digest, ReleaseId};

    fn view(pid: Option<u32>) -> Arc<View> {
        let instance = InstanceView {
            release: ReleaseId(Digest::of(b"shop")),
            incarnation: "1".into(),
            start: 0,
            pid,
            phase: Phase::Ready { at: Instant::now() },
            proven: true,
        };
        Arc::new(View { instances: [("shop/0".parse().unwrap(), instance)].into(), ..View::default() })
    }

    #[tokio::test]
    async fn a_process_is_measured_and_another_in_its_place_is_not_given_its_memory() {
        let own = Some(std::process::id());
        let mut measured = Measured::default();
        let seen = measured.of(&view(own)).await;
        assert!(seen.values().all(|bytes| *bytes > 1 << 16) && seen.len() == 1, "{seen:?}");
        // It ended, and another is there.
        assert!(measured.of(&view(None)).await.is_empty() && measured.of(&view(Some(1))).await.is_empty());
        measured.at = None;
        assert_eq!(measured.of(&view(own)).await.len(), 1);
    }
}
