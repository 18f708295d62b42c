//! What nobody should do by mistake is asked about.

use crate::Context;
use crate::errors::{Failure, code};
use crate::render::page::Page;
use baton_core::problem::Problem;
use std::io::IsTerminal as _;

/// Asks on a terminal whether nobody may serve for a while; elsewhere nobody can be asked, and `help` says what does it.
///
/// # Errors
/// When nobody can be asked.
pub(super) fn interrupts(what: &str, why: &str, help: &str, context: Context<'_>) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Problem::new(code::INTERRUPTS, what).saw("rollout", why).help(help).into());
    }
    context.output.note(Page::new().text(format!("{what}. Go on? [y/N]")));
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    Ok(read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes"))
}
