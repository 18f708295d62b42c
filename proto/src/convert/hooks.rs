//! Hooks: of releases, in specs, in reports.

use super::release::command;
use super::{InvalidMessage, bytes, duration, millis, parse, present, release_id, required};
use crate::v1;
use baton_core::fleet::hooks::{HookOutcome, HookReport, HookSpec};
use baton_core::hook::{Hook, HookKey, Hooks, Point};
use baton_core::name::Slot;

pub(super) fn write(hooks: &Hooks) -> Vec<v1::Hook> {
    let hook = |(point, hook): (&Point, &Hook)| v1::Hook {
        point: point.word().to_owned(),
        command: hook.command.clone(),
        timeout_ms: millis(hook.timeout),
        no_way_back: hook.no_way_back,
    };
    hooks.0.iter().map(hook).collect()
}

pub(super) fn read(messages: Vec<v1::Hook>) -> Result<Hooks, InvalidMessage> {
    super::keyed("hooks", messages, |message| {
        let point = Point::ALL.into_iter().find(|point| point.word() == message.point);
        let hook = Hook {
            command: command("command", message.command)?,
            timeout: duration("timeout_ms", message.timeout_ms)?,
            no_way_back: message.no_way_back,
        };
        Ok((point.ok_or_else(|| InvalidMessage::new("point", "no point of a rollout"))?, hook))
    })
    .map(Hooks)
}

pub(super) fn write_spec((key, hook): (&HookKey, &HookSpec)) -> v1::HookSpec {
    v1::HookSpec {
        key: key.to_string(),
        attempt: hook.attempt,
        release_id: bytes(hook.release.0),
        address: hook.address.to_string(),
        instance: hook.instance.map(|(slot, port)| v1::HookInstance { slot: slot.0.into(), port: port.into() }),
    }
}

pub(super) fn read_spec(message: &v1::HookSpec) -> Result<(HookKey, HookSpec), InvalidMessage> {
    let instance = |it: &v1::HookInstance| match (u8::try_from(it.slot), u16::try_from(it.port)) {
        (Ok(slot), Ok(port)) => Ok((Slot(slot), port)),
        _ => Err(InvalidMessage::new("instance", "neither a slot nor a port is so large")),
    };
    let hook = HookSpec {
        attempt: message.attempt,
        release: release_id("release_id", &message.release_id)?,
        address: parse("address", &message.address)?,
        instance: message.instance.as_ref().map(instance).transpose()?,
    };
    Ok((parse("key", &message.key)?, hook))
}

pub(super) fn write_report((key, report): (&HookKey, &HookReport)) -> v1::HookReport {
    use v1::hook_report::State;
    let state = match &report.state {
        HookOutcome::Running { since } => State::Running(v1::HookRunning { since_ms: millis(*since) }),
        HookOutcome::Succeeded { output } => State::Succeeded(v1::HookSucceeded { output: output.clone() }),
        HookOutcome::Failed { problem } => State::Failed(v1::HookFailed { problem: Some(problem.into()) }),
        HookOutcome::Unknown { problem } => State::Unknown(v1::HookUnknown { problem: Some(problem.into()) }),
    };
    v1::HookReport { key: key.to_string(), attempt: report.attempt, state: Some(state) }
}

pub(super) fn read_report(message: v1::HookReport) -> Result<(HookKey, HookReport), InvalidMessage> {
    use v1::hook_report::State;
    let state = match present("state", message.state)? {
        State::Running(running) => HookOutcome::Running { since: duration("running.since_ms", running.since_ms)? },
        State::Succeeded(succeeded) => HookOutcome::Succeeded { output: succeeded.output },
        State::Failed(failed) => HookOutcome::Failed { problem: required("failed.problem", failed.problem)? },
        State::Unknown(unknown) => HookOutcome::Unknown { problem: required("unknown.problem", unknown.problem)? },
    };
    Ok((parse("key", &message.key)?, HookReport { attempt: message.attempt, state }))
}
