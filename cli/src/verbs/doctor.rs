//! `baton doctor`.

use crate::Context;
use crate::connection::config_folder;
use crate::doctor::{Check, Places, State, examine};
use crate::errors::Failure;
use crate::exit::Exit;
use crate::render::page::{Line, Page, Tone};
use crate::render::units::counted;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// `baton doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Show the checks that found nothing to look at, too
    #[arg(long)]
    pub all: bool,
    /// Where this machine's files are
    #[arg(long, value_name = "FOLDER", default_value = "/", hide = true)]
    pub root: PathBuf,
}

/// Asks every question and shows the answers; what is wrong comes with what mends it.
///
/// # Errors
/// None: what cannot be asked is an answer too. Exit code 1 when a check came out badly.
pub async fn run(args: DoctorArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let places = Places { root: args.root, login: config_folder().ok(), manifest: PathBuf::from("baton.toml") };
    let checks = examine(&places, context.connect).await;
    let output = context.output;
    output.answer(&page(&checks, args.all));
    let bad = checks.iter().filter(|check| check.state == State::Bad).count();
    output.json(&json!({ "checks": checks, "bad": bad }));
    Ok(if bad == 0 { Exit::Done } else { Exit::Error })
}

fn page(checks: &[Check], all: bool) -> Page {
    let mut page = Page::new();
    for check in checks.iter().filter(|check| all || check.state != State::Skipped) {
        let (mark, tone) = match check.state {
            State::Skipped => ("-", Tone::Quiet),
            State::Good => ("ok", Tone::Good),
            State::Warning => ("warning", Tone::Busy),
            State::Bad => ("bad", Tone::Bad),
        };
        page.line(
            Line::default().span(tone, format!("{mark:<8}")).plain(format!("{:<26}", check.name)).plain(check.seen.as_str()),
        );
        if let Some(fix) = &check.fix {
            page.line(Line::default().span(Tone::Quiet, format!("{:<34}fix: ", "")).plain(fix.as_str()));
        }
    }
    let count = |state| checks.iter().filter(|check| check.state == state).count() as u64;
    page.text(format!(
        "{}, {} bad, {}, {} with nothing to look at here",
        counted(checks.len() as u64, "check", "checks"),
        count(State::Bad),
        counted(count(State::Warning), "warning", "warnings"),
        count(State::Skipped)
    ));
    page
}
