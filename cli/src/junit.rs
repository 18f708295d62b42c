//! A rollout as a JUnit report: what every pipeline can show as a table.

use crate::errors::code;
use crate::exit::Exit;
use crate::follow::Ended;
use crate::outcome;
use baton_core::problem::Problem;
use std::fmt::Write;
use std::path::Path;

/// One line of the report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Case {
    pub name: String,
    /// None: nobody measured it.
    pub millis: Option<u64>,
    /// None: passed.
    pub wrong: Option<Wrong>,
}

/// Why a case did not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    Failed {
        what: String,
        text: String,
    },
    /// It never came to it.
    Skipped {
        why: String,
    },
}

/// The cases of a rollout that was followed: one for the whole, one for each host.
#[must_use]
pub fn cases(ended: &Ended) -> Vec<Case> {
    let Some(service) = &ended.service else { return vec![whole(ended.exit, "nothing was seen of it", 0)] };
    let rollout = service.rollout.clone().unwrap_or_default();
    let mut cases = vec![whole(ended.exit, &outcome::sentence(service, ended.exit), rollout.elapsed_ms)];
    for host in &service.hosts {
        let evidence = rollout.evidence.iter().find(|it| it.host == host.host).and_then(|it| it.problem.as_ref());
        let wrong = match evidence {
            Some(problem) => Some(Wrong::Failed {
                what: format!("[B{:04}] {}", problem.code, problem.what),
                text: problem
                    .seen
                    .iter()
                    .fold(String::new(), |text, seen| text + &seen.label + ": " + &seen.evidence + "\n"),
            }),
            None if ended.exit == Exit::Done => None,
            None => Some(Wrong::Skipped { why: format!("{} when it ended", host.step) }),
        };
        cases.push(Case { name: host.host.clone(), millis: None, wrong });
    }
    cases
}

/// The case of everything together.
#[must_use]
pub fn whole(exit: Exit, sentence: &str, millis: u64) -> Case {
    let failed = || Wrong::Failed { what: sentence.to_owned(), text: format!("exit code {}", exit.code()) };
    Case { name: "rollout".to_owned(), millis: Some(millis), wrong: (exit != Exit::Done).then(failed) }
}

/// Makes sure that a report can be written there later; what is there already stays as it is.
///
/// # Errors
/// When it cannot.
pub fn may_write(path: &Path) -> Result<(), Problem> {
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(path);
    opened.map(drop).map_err(|error| {
        Problem::new(code::REPORT, format!("the report {} cannot be written", path.display()))
            .saw("write", error.to_string())
            .help("correct --junit; nothing was deployed")
    })
}

/// Writes the report.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, suite: &str, cases: &[Case]) -> Result<(), Problem> {
    std::fs::write(path, report(suite, cases)).map_err(|error| {
        Problem::new(code::REPORT, format!("the report {} cannot be written", path.display()))
            .saw("write", error.to_string())
            .help("the rollout itself is not concerned: baton status")
    })
}

fn report(suite: &str, cases: &[Case]) -> String {
    let count = |of: fn(&Wrong) -> bool| cases.iter().filter(|case| case.wrong.as_ref().is_some_and(of)).count();
    let (failed, skipped) =
        (count(|wrong| matches!(wrong, Wrong::Failed { .. })), count(|wrong| matches!(wrong, Wrong::Skipped { .. })));
    let time = seconds(cases.iter().filter_map(|case| case.millis).sum());
    let suite = text(suite);
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"{suite}\" tests=\"{}\" failures=\"{failed}\" \
         errors=\"0\" skipped=\"{skipped}\" time=\"{time}\">\n",
        cases.len()
    );
    for case in cases {
        let name = text(&case.name);
        let time = case.millis.map(|millis| format!(" time=\"{}\"", seconds(millis))).unwrap_or_default();
        let inner = match &case.wrong {
            None => String::new(),
            Some(Wrong::Failed { what, text: more }) => {
                format!("<failure message=\"{}\">{}</failure>", text(what), text(more))
            }
            Some(Wrong::Skipped { why }) => format!("<skipped message=\"{}\"/>", text(why)),
        };
        let _ = writeln!(xml, "    <testcase classname=\"{suite}\" name=\"{name}\"{time}>{inner}</testcase>");
    }
    xml + "  </testsuite>\n</testsuites>\n"
}

fn seconds(millis: u64) -> String {
    format!("{}.{:03}", millis / 1000, millis % 1000)
}

/// Text that XML may carry: evidence comes from applications, and may hold anything.
fn text(raw: &str) -> String {
    raw.chars().fold(String::with_capacity(raw.len()), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            // Neither as it is nor as a reference: XML has no way to say it.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::{Case, Wrong, cases, report, whole};
    use crate::exit::Exit;
    use crate::follow::Ended;
    use crate::render::example;
    use std::time::Duration;

    #[test]
    fn a_release_taken_back_fails_where_its_evidence_is_and_skips_the_rest() {
        let ended = Ended {
            exit: Exit::RolledBack,
            service: Some(example::taken_back()),
            superseded: false,
            waited: Duration::ZERO,
        };
        let cases = cases(&ended);
        let names: Vec<_> = cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names, ["rollout", "web2", "web3", "web4"]);
        assert!(matches!(&cases[0].wrong, Some(Wrong::Failed { what, .. }) if what.starts_with("rolled back")), "{cases:?}");
        assert!(matches!(&cases[1].wrong, Some(Wrong::Failed { what, .. }) if what.starts_with("[B0210]")), "{cases:?}");
        assert!(matches!(&cases[2].wrong, Some(Wrong::Skipped { .. })), "{cases:?}");
        let xml = report("baton deploy shop 2.1.0", &cases);
        assert!(xml.contains("tests=\"4\" failures=\"2\" errors=\"0\" skipped=\"2\""), "{xml}");
        assert!(xml.contains("name=\"web2\"><failure"), "how long a host took is not known: {xml}");
        assert!(xml.chars().all(|c| c == '\n' || !c.is_control()), "{xml:?}");
    }

    #[test]
    fn hostile_text_stays_text() {
        let wrong = Some(Wrong::Failed { what: "<b a=\"1\">&\u{1b}[2J".into(), text: "]]>\0".into() });
        let xml = report("s", &[Case { name: "web<1>".into(), millis: Some(1_500), wrong }]);
        assert!(xml.contains("name=\"web&lt;1&gt;\" time=\"1.500\""), "{xml}");
        assert!(xml.contains("message=\"&lt;b a=&quot;1&quot;&gt;&amp;\\u{1b}[2J\">]]&gt;\\u{0}</failure>"), "{xml}");
    }

    #[test]
    fn what_went_well_has_nothing_to_say() {
        assert_eq!(whole(Exit::Done, "live", 2), Case { name: "rollout".into(), millis: Some(2), wrong: None });
    }
}
