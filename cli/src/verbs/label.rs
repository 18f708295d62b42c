//! `baton hosts label HOST rack=a`: what operators say of a host.

use crate::Context;
use crate::connection::Connection;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::render::page::Page;
use baton_core::name::{LabelKey, LabelValue};
use baton_proto::v1::LabelRequest;
use clap::Args;
use serde_json::json;
use std::collections::BTreeMap;
use std::str::FromStr;

/// `baton hosts label`.
#[derive(Debug, Args)]
pub struct LabelArgs {
    pub host: String,
    /// `rack=a` gives a label, `rack-` takes it back
    #[arg(required = true, value_name = "LABEL=VALUE")]
    pub changes: Vec<Change>,
}

/// One word of the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Set(LabelKey, LabelValue),
    Unset(LabelKey),
}

impl FromStr for Change {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text.split_once('='), text.strip_suffix('-')) {
            (Some((label, value)), _) => {
                let label = label.parse().map_err(|error| format!("{error}"))?;
                Ok(Self::Set(label, value.parse().map_err(|error| format!("{error}"))?))
            }
            (None, Some(label)) => Ok(Self::Unset(label.parse().map_err(|error| format!("{error}"))?)),
            (None, None) => Err("write LABEL=VALUE, or LABEL- to take it back".to_owned()),
        }
    }
}

/// Gives a host labels, and takes them back.
///
/// # Errors
/// When it is refused, or the coordinator cannot be asked.
pub async fn run(args: LabelArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let mut connection = Connection::open(context.connect)?;
    let LabelArgs { host, changes } = args;
    let mut request = LabelRequest { host: host.clone(), set: BTreeMap::new(), unset: Vec::new() };
    for change in changes {
        match change {
            Change::Set(label, value) => drop(request.set.insert(label.into(), value.into())),
            Change::Unset(label) => request.unset.push(label.into()),
        }
    }
    let unchanged = connection.control.label_host(request).await?.into_inner().unchanged;
    let became = if unchanged { "it was so before" } else { "labelled" };
    context.output.answer(Page::new().text(format!("{host}: {became}")));
    context.output.json(&json!({ "host": host, "outcome": if unchanged { "unchanged" } else { "labelled" }, "exit": 0 }));
    context.output.next(&format!("baton hosts show {host}"));
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_gives_a_label_or_takes_it_back() {
        let set = |label: &str, value: &str| Ok(Change::Set(label.parse().unwrap(), value.parse().unwrap()));
        assert_eq!("rack=a-1".parse(), set("rack", "a-1"));
        assert_eq!("rack-".parse(), Ok(Change::Unset("rack".parse().unwrap())));
        for wrong in ["rack", "=a", "rack=", "-", "rack=a b"] {
            assert!(wrong.parse::<Change>().is_err(), "{wrong}");
        }
    }
}
