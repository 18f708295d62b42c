//! Orders on the wire, as what is asked of the driver.

use super::control::only;
use super::wrong;
use crate::audit::call;
use crate::driver::{Ask, Picture};
use baton_core::hook::Point;
use baton_core::name::{HostName, InvalidName, RolloutId, ServiceName, Version};
use baton_core::problem::{Code, Problem};
use baton_core::rollout::command::{Accepted, Command};
use baton_proto::problem::to_status;
use baton_proto::v1::{
    AbortRequest, DeployReply, FreezeRequest, HostRequest, LabelRequest, PlaceRequest, RecoverRequest, RollbackRequest,
    ServiceRequest,
};
use std::time::Duration;
use tonic::Status;

/// What people write as a reason, at most.
const WHY_MAX: usize = 500;

/// The longest freeze with an end: whoever means longer means for ever.
const FREEZE_MAX: u64 = 366 * 24 * 3600 * 1000;

type Asked = Result<Ask, Status>;

pub(super) fn rollback(picture: &Picture, request: &RollbackRequest, by: String) -> Asked {
    why(&request.why);
    let service = service(picture, &request.service)?;
    if request.version.is_empty() {
        return Ok(Ask::Rollback { service, by, force: request.force });
    }
    let version = Version::new(request.version.clone()).map_err(|error| wrong("--to", error))?;
    Ok(Ask::RollbackTo { service, version, by, force: request.force })
}

pub(super) fn pause(picture: &Picture, request: &ServiceRequest, by: String) -> Asked {
    Ok(Ask::Pause { service: service(picture, &request.service)?, by, why: why(&request.why) })
}

pub(super) fn resume(picture: &Picture, request: &ServiceRequest, by: String) -> Asked {
    why(&request.why);
    Ok(Ask::Resume { service: service(picture, &request.service)?, by })
}

pub(super) fn promote(picture: &Picture, request: &ServiceRequest, by: String) -> Asked {
    why(&request.why);
    Ok(Ask::Promote { service: service(picture, &request.service)?, by })
}

pub(super) fn abort(picture: &Picture, request: &AbortRequest, by: String) -> Asked {
    why(&request.why);
    let service = service(picture, &request.service)?;
    match (request.cancel, request.keep) {
        (true, true) => Err(wrong("--keep", "a deploy that waits its turn has changed nothing that could be kept")),
        (true, false) => {
            let id = |text: &str| text.parse::<RolloutId>().map_err(|error| wrong("--queued", error));
            let queued = Some(&request.queued).filter(|text| !text.is_empty()).map(|text| id(text)).transpose()?;
            Ok(order(Command::Cancel { service, queued, by }))
        }
        (false, true) => Ok(order(Command::Keep { service, by })),
        (false, false) => Ok(Ask::Abort { service, by }),
    }
}

pub(super) fn retry(picture: &Picture, request: &PlaceRequest, by: String) -> Asked {
    why(&request.why);
    Ok(Ask::Retry { service: service(picture, &request.service)?, host: optional(&request.host)?, by })
}

pub(super) fn skip(picture: &Picture, request: &PlaceRequest, by: String) -> Asked {
    let (service, why) = (service(picture, &request.service)?, why(&request.why));
    if request.hook.is_empty() {
        return Ok(order(Command::Skip { service, host: host(&request.host)?, by, why }));
    }
    let points = || Point::ALL.map(Point::word).join(", ");
    let point = Point::ALL.into_iter().find(|point| point.word() == request.hook);
    let point = point.ok_or_else(|| wrong("--hook", format!("hooks are {}", points())))?;
    Ok(order(Command::Vouch { service, point, host: optional(&request.host)?, by, why }))
}

pub(super) fn restart(picture: &Picture, request: &ServiceRequest, by: String) -> Asked {
    why(&request.why);
    Ok(Ask::Restart { service: service(picture, &request.service)?, by })
}

pub(super) fn rehearse(picture: &Picture, request: &PlaceRequest, by: String) -> Asked {
    why(&request.why);
    Ok(Ask::Rehearse { service: service(picture, &request.service)?, host: optional(&request.host)?, by })
}

pub(super) fn freeze(_: &Picture, request: &FreezeRequest, by: String) -> Asked {
    if request.lasts_ms > FREEZE_MAX {
        return Err(wrong("--for", "at most a year; without an end it lasts until somebody ends it"));
    }
    let lasts = (request.lasts_ms > 0).then(|| Duration::from_millis(request.lasts_ms));
    Ok(order(Command::Freeze { service: only(&request.service)?, lasts, by, why: why(&request.why) }))
}

pub(super) fn unfreeze(_: &Picture, request: &FreezeRequest, by: String) -> Asked {
    Ok(order(Command::Unfreeze { service: only(&request.service)?, by }))
}

/// Never guessed: the name of what is removed is written out.
pub(super) fn remove_service(_: &Picture, request: &ServiceRequest, by: String) -> Asked {
    let service = only(&request.service)?.ok_or_else(|| wrong("SERVICE", "which one?"))?;
    Ok(order(Command::RemoveService { service, by }))
}

pub(super) fn drain_host(_: &Picture, request: &HostRequest, by: String) -> Asked {
    let (host, why) = (host(&request.host)?, why(&request.why));
    Ok(order(Command::Drain { host, stop: request.stop, reboot: false, by, why }))
}

pub(super) fn undrain_host(_: &Picture, request: &HostRequest, by: String) -> Asked {
    Ok(order(Command::Undrain { host: host(&request.host)?, by }))
}

pub(super) fn declare_dead(_: &Picture, request: &HostRequest, by: String) -> Asked {
    Ok(order(Command::DeclareDead { host: host(&request.host)?, by, why: why(&request.why) }))
}

pub(super) fn revive(_: &Picture, request: &HostRequest, by: String) -> Asked {
    Ok(order(Command::Revive { host: host(&request.host)?, by }))
}

pub(super) fn label_host(_: &Picture, request: &LabelRequest, by: String) -> Asked {
    let odd = |error: InvalidName| wrong("LABEL", error);
    let pair = |(label, value): (&String, &String)| Ok((label.parse().map_err(odd)?, value.parse().map_err(odd)?));
    let set = request.set.iter().map(pair).collect::<Result<_, Status>>()?;
    let unset = request.unset.iter().map(|label| label.parse().map_err(odd)).collect::<Result<_, Status>>()?;
    Ok(order(Command::Label { host: host(&request.host)?, set, unset, by }))
}

pub(super) fn accept_host(_: &Picture, request: &HostRequest, by: String) -> Asked {
    Ok(order(Command::Accept { host: host(&request.host)?, by }))
}

pub(super) fn remove_host(_: &Picture, request: &HostRequest, by: String) -> Asked {
    Ok(order(Command::RemoveHost { host: host(&request.host)?, force: request.force, by }))
}

pub(super) fn recover(_: &Picture, request: &RecoverRequest, by: String) -> Asked {
    why(&request.why);
    let without = request.without.iter().map(|name| host(name)).collect::<Result<_, _>>()?;
    Ok(order(Command::Recover { without, by }))
}

/// What became of it, on the wire.
pub(super) fn reply(accepted: Accepted) -> DeployReply {
    match accepted {
        Accepted::Rollout(id) => DeployReply { rollout: id.to_string(), ..DeployReply::default() },
        Accepted::Queued(id) => DeployReply { rollout: id.to_string(), queued: true, ..DeployReply::default() },
        Accepted::AlreadyLive | Accepted::Noted => DeployReply::default(),
        Accepted::Unchanged => DeployReply { unchanged: true, ..DeployReply::default() },
    }
}

pub(super) fn host(name: &str) -> Result<HostName, Status> {
    name.parse().map_err(|error: InvalidName| wrong("HOST", error))
}

fn optional(name: &str) -> Result<Option<HostName>, Status> {
    if name.is_empty() { Ok(None) } else { host(name).map(Some) }
}

/// What people say as a reason, for whoever finds it and for the log.
fn why(text: &str) -> String {
    let why: String = text.chars().take(WHY_MAX).collect();
    call::why(why.as_str());
    why
}

fn order(command: Command) -> Ask {
    Ask::Order(Box::new(command))
}

/// The service a request is about: the one it names, or the only one.
fn service(picture: &Picture, name: &str) -> Result<ServiceName, Status> {
    match only(name)? {
        Some(service) => Ok(service),
        None => the_only_one(picture),
    }
}

fn the_only_one(picture: &Picture) -> Result<ServiceName, Status> {
    let mut names = picture.fleet.services.keys();
    match (names.next(), names.next()) {
        (Some(name), None) => Ok(name.clone()),
        (None, _) => {
            Err(to_status(Problem::new(Code(709), "there is no service yet").help("baton deploy brings the first release")))
        }
        _ => {
            let all: Vec<_> = picture.fleet.services.keys().map(ServiceName::as_str).collect();
            Err(to_status(
                Problem::new(Code(709), "which service?").saw("services", all.join(", ")).help("name one of them"),
            ))
        }
    }
}
