//! Reboots of hosts, from the operator's side.

use super::{Api, orders, wrong};
use crate::audit::call;
use crate::reboots::{Shown, Wish};
use crate::upgrades::Steer;
use baton_core::name::HostName;
use baton_core::problem::{Code, Problem};
use baton_core::upgrade::{Paused, State};
use baton_proto::problem::to_status;
use baton_proto::v1::{RebootHostView, RebootRequest, RebootView, SteerRebootRequest};
use serde_json::{Value, json};
use std::time::Duration;
use tonic::Status;

/// A host that takes longer to come back is somebody's work.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

impl Api {
    pub(super) async fn begin_reboot(&self, request: RebootRequest, by: String) -> Result<RebootView, Status> {
        call::about("hosts");
        call::may_command(None).map_err(to_status)?;
        let dry_run = request.dry_run;
        let wish = self.wish(request, by)?;
        let before = state(&self.reboots.shown());
        let shown = self.reboots.begin(wish, dry_run).await.map_err(to_status)?;
        if !dry_run {
            call::changed(before, state(&shown));
        }
        Ok(self.reboot_view(&shown))
    }

    pub(super) async fn steer_reboot(&self, request: SteerRebootRequest, by: String) -> Result<RebootView, Status> {
        call::about("hosts");
        call::why(request.why);
        call::may_command(None).map_err(to_status)?;
        let steer = match request.to.as_str() {
            "pause" => Steer::Pause,
            "resume" => Steer::Resume,
            "cancel" => Steer::Abort,
            other => return Err(wrong("baton reboot", format!("`{other}` is none of pause, resume, cancel"))),
        };
        let before = state(&self.reboots.shown());
        let shown = self.reboots.steer(steer, by).await.map_err(to_status)?;
        call::changed(before, state(&shown));
        Ok(self.reboot_view(&shown))
    }

    /// The hosts that are meant: those that are named, those of a service, or, where neither is, all of them.
    fn wish(&self, request: RebootRequest, by: String) -> Result<Wish, Status> {
        call::why(request.why.as_str());
        let mut hosts = request.hosts.iter().map(|name| orders::host(name)).collect::<Result<Vec<HostName>, Status>>()?;
        if !request.service.is_empty() {
            let picture = self.access.picture();
            let service = request.service.parse().map_err(|error| wrong("--service", error))?;
            let known = picture.fleet.services.get(&service).ok_or_else(|| {
                to_status(Problem::new(Code(709), format!("there is no service {service}")).help("baton services"))
            })?;
            hosts.extend(known.hosts.iter().cloned());
        }
        let mut once = std::collections::BTreeSet::new();
        hosts.retain(|host| once.insert(host.clone()));
        let back_within = Duration::from_millis(request.back_within_ms);
        if back_within.is_zero() || back_within > LONGEST {
            return Err(wrong("--back-within", format!("it is more than nothing and {} s at most", LONGEST.as_secs())));
        }
        let at_once = usize::try_from(request.at_once).unwrap_or(usize::MAX).max(1);
        Ok(Wish { hosts, at_once, back_within, by, why: request.why })
    }

    pub(super) fn reboot_view(&self, shown: &Shown) -> RebootView {
        let Some(reboot) = &shown.reboot else { return RebootView::default() };
        let (failed, stopped_by) = match &reboot.state {
            State::Paused(Paused::Failure { host, problem }) => (Some((host, problem)), String::new()),
            State::Paused(Paused::By(by)) | State::Aborted { by } => (None, by.clone()),
            State::Active | State::Succeeded => (None, String::new()),
        };
        let until = reboot.ended.unwrap_or_else(|| self.access.now());
        let host = |name: &HostName| {
            let stand = shown.stands.get(name);
            RebootHostView {
                host: name.to_string(),
                state: stand.map(|stand| stand.word.to_owned()).unwrap_or_default(),
                why: stand.map(|stand| stand.why.clone()).unwrap_or_default(),
                problem: stand.and_then(|stand| stand.problem.as_ref()).map(Into::into),
            }
        };
        RebootView {
            id: reboot.id.to_string(),
            state: reboot.state.word().to_owned(),
            open: reboot.is_open(),
            by: reboot.by.clone(),
            why: reboot.why.clone(),
            for_ms: millis(until.since(reboot.begun)),
            at_once: u32::try_from(reboot.at_once).unwrap_or(u32::MAX),
            back_within_ms: millis(reboot.back_within),
            failed_host: failed.map(|(host, _)| host.to_string()).unwrap_or_default(),
            problem: failed.map(|(_, problem)| problem.into()),
            stopped_by,
            hosts: reboot.order.iter().map(host).collect(),
        }
    }
}

/// The reboots as the audit log compares them.
fn state(shown: &Shown) -> Value {
    let reboot = shown.reboot.as_ref().map(|reboot| {
        let mut value = serde_json::to_value(reboot).unwrap_or_default();
        if let Some(fields) = value.as_object_mut() {
            // What moves by itself is no command's doing.
            fields.remove("courses");
        }
        value
    });
    json!({ "reboot": reboot })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
