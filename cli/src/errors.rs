//! What went wrong, as people read it: a code, the sentence, what was seen, one thing that helps.

use crate::exit::Exit;
use crate::output::Output;
use crate::render::page::{Line, Page, Tone};
use baton_core::problem::{Code, Problem};
use serde_json::json;

/// Why a command did not do what was asked, and how it ends because of it.
#[derive(Debug)]
pub struct Failure {
    pub problem: Problem,
    pub exit: Exit,
}

impl Failure {
    #[must_use]
    pub const fn new(problem: Problem, exit: Exit) -> Self {
        Self { problem, exit }
    }

    /// Prints it and says how to end.
    #[must_use]
    pub fn report(&self, output: &Output) -> Exit {
        output.note(&problem_page(&self.problem));
        output.json(&json!({ "error": &self.problem, "exit": self.exit.code() }));
        self.exit
    }
}

/// Refusals have a code of their own; every other problem that reaches here came before anything changed.
impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let exit = if problem.code.0 / 100 == 7 { Exit::Refused } else { Exit::Error };
        Self { problem, exit }
    }
}

/// A problem as it came over the wire. Shown as it is: a code this program does not know is shown all the same.
#[must_use]
pub fn from_wire(problem: &baton_proto::v1::Problem) -> Problem {
    Problem {
        code: Code(u16::try_from(problem.code).unwrap_or(u16::MAX)),
        what: problem.what.clone(),
        seen: problem.seen.iter().map(|seen| (seen.label.clone(), seen.evidence.clone())).collect(),
        help: (!problem.help.is_empty()).then(|| problem.help.clone()),
    }
}

/// A problem in the shape of a compiler's error.
#[must_use]
pub fn problem_page(problem: &Problem) -> Page {
    let mut page = Page::new();
    page.line(
        Line::default()
            .span(Tone::Bad, format!("error[{}]", problem.code))
            .span(Tone::Strong, format!(": {}", problem.what)),
    );
    let widest = problem.seen.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
    for (label, evidence) in &problem.seen {
        // Evidence of several lines (a log's last words) stays under its label.
        for (nth, text) in evidence.lines().enumerate() {
            let label = if nth == 0 { label.as_str() } else { "" };
            page.line(Line::default().span(Tone::Quiet, format!("  {label:<widest$}  ")).plain(text));
        }
    }
    if let Some(help) = &problem.help {
        page.line(Line::default().span(Tone::Good, "help").plain(format!(": {help}")));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::{Failure, problem_page};
    use crate::exit::Exit;
    use crate::render::page::Look;
    use baton_core::problem::{Code, Problem};

    #[test]
    fn a_problem_reads_like_a_compilers_error() {
        let problem = Problem::new(Code(210), "shop 2.1.0 did not become ready on web2 within 60 s")
            .saw("process", "running, pid 4121, listening on 127.0.0.1:3000")
            .saw("probe", "GET http://127.0.0.1:8104/healthz   60 tries: connection refused")
            .saw("last log", "INFO shop: listening\nWARN \u{1b}[31mshop: bye")
            .help("the app ignores {port} (8104). Check run.command in baton.toml:9");
        assert_eq!(
            problem_page(&problem).to_text(Look::default()),
            r"error[B0210]: shop 2.1.0 did not become ready on web2 within 60 s
  process   running, pid 4121, listening on 127.0.0.1:3000
  probe     GET http://127.0.0.1:8104/healthz   60 tries: connection refused
  last log  INFO shop: listening
            WARN \u{1b}[31mshop: bye
help: the app ignores {port} (8104). Check run.command in baton.toml:9
"
        );
    }

    #[test]
    fn a_refusal_ends_with_its_own_code() {
        assert_eq!(Failure::from(Problem::new(Code(701), "another rollout")).exit, Exit::Refused);
        assert_eq!(Failure::from(Problem::new(Code(501), "no answer")).exit, Exit::Error);
    }
}
