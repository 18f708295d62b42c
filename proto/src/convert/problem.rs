//! Problems and stamps: what both directions carry.

use super::InvalidMessage;
use crate::v1;
use baton_core::fleet::spec::Stamp;
use baton_core::name::{Epoch, Generation};
use baton_core::problem::{Code, Finding, Problem};

impl From<&Problem> for v1::Problem {
    fn from(problem: &Problem) -> Self {
        let seen =
            problem.seen.iter().map(|(label, evidence)| v1::Seen { label: label.clone(), evidence: evidence.clone() });
        Self {
            code: u32::from(problem.code.0),
            what: problem.what.clone(),
            seen: seen.collect(),
            help: problem.help.clone().unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::Problem> for Problem {
    type Error = InvalidMessage;
    fn try_from(message: v1::Problem) -> Result<Self, InvalidMessage> {
        let code = u16::try_from(message.code)
            .map_err(|_| InvalidMessage::new("code", format!("there is no B{}", message.code)))?;
        let finding = Finding {
            code: Code(code),
            what: message.what,
            seen: message.seen.into_iter().map(|seen| (seen.label, seen.evidence)).collect(),
            help: Some(message.help).filter(|help| !help.is_empty()),
        };
        Ok(finding.into())
    }
}

impl From<&Stamp> for v1::Stamp {
    fn from(stamp: &Stamp) -> Self {
        Self { epoch: stamp.epoch.0, generation: stamp.generation.0 }
    }
}

/// Any two numbers are a stamp. Fallible like the others, so that all messages read alike.
impl TryFrom<v1::Stamp> for Stamp {
    type Error = InvalidMessage;
    fn try_from(message: v1::Stamp) -> Result<Self, InvalidMessage> {
        Ok(Self { epoch: Epoch(message.epoch), generation: Generation(message.generation) })
    }
}
