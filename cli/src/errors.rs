//! What went wrong, as people read it: a code, the sentence, what was seen, one thing that helps.

use crate::ci::Mark;
use crate::exit::Exit;
use crate::output::Output;
use crate::render::page::{Line, Page, Tone};
use crate::render::units::counted;
use baton_core::manifest::{Diagnostic, Severity};
use baton_core::problem::{Code, Finding, Problem};
use baton_proto::problem::{code as wire, from_status};
use serde_json::json;

/// The codes of what goes wrong in this program itself.
pub mod code {
    use baton_core::problem::Code;

    /// The manifest cannot be read.
    pub const MANIFEST_FILE: Code = Code(130);
    /// The manifest is of another service than the one asked for.
    pub const OTHER_SERVICE: Code = Code(131);
    /// `baton init` found a file where it would have written.
    pub const FILE_EXISTS: Code = Code(132);
    /// A name that nothing here has.
    pub const UNKNOWN_NAME: Code = Code(133);
    /// The report of a rollout cannot be written.
    pub const REPORT: Code = Code(138);
    /// A support bundle cannot be written.
    pub const NOT_WRITTEN: Code = Code(149);
    /// Only the service was named where its version belongs.
    pub const NO_VERSION: Code = Code(139);
    /// Two options that exclude each other.
    pub const CONTRADICTS: Code = Code(150);
    /// Stdout cannot be written to.
    pub const ANSWER: Code = Code(152);
    /// What cannot be taken back was not confirmed.
    pub const NOT_CONFIRMED: Code = Code(134);
    /// A file that is no package of the agent.
    pub const PACKAGE: Code = Code(652);
    /// Nobody would serve during the release, and nobody was asked.
    pub const INTERRUPTS: Code = Code(729);
    /// Neither a socket nor a login.
    pub const NOT_CONNECTED: Code = Code(520);
    /// A file that is to be an exported audit log.
    pub const EXPORT: Code = Code(153);
    /// The files of a login, or its token, cannot be used.
    pub const LOGIN: Code = Code(521);
    /// The coordinator fell silent while a rollout was watched.
    pub const LOST: Code = Code(522);
    /// The artifact cannot be read.
    pub const ARTIFACT_FILE: Code = Code(650);
    /// The coordinator did not take the artifact.
    pub const UPLOAD: Code = Code(651);
}

/// Why a command did not do what was asked, and how it ends because of it.
#[derive(Debug)]
pub struct Failure {
    pub problem: Problem,
    pub exit: Exit,
    /// What is wrong in a manifest, all of it; the problem is their sum, or the first of them.
    pub diagnostics: Box<[Diagnostic]>,
    /// What speaks against it beside that.
    pub others: Box<[Problem]>,
}

impl Failure {
    #[must_use]
    pub fn new(problem: Problem, exit: Exit) -> Self {
        Self { problem, exit, diagnostics: Box::default(), others: Box::default() }
    }

    /// A manifest that cannot be used.
    #[must_use]
    pub fn manifest(diagnostics: Vec<Diagnostic>) -> Self {
        let errors = diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error);
        let mut problem = errors.clone().next().map_or_else(|| Problem::new(code::MANIFEST_FILE, ""), Problem::from);
        let path = diagnostics.first().map_or("the manifest", |diagnostic| &diagnostic.path);
        problem.what = format!("{} in {path}", counted(errors.count() as u64, "error", "errors"));
        problem.seen.clear();
        Self { diagnostics: diagnostics.into(), ..Self::new(problem, Exit::Error) }
    }

    /// Everything the coordinator has against a request, with what of it stands at a line of the manifest; None: nothing.
    #[must_use]
    pub fn conflicts(problems: Vec<Problem>, at_its_line: impl Fn(&Problem) -> Option<Diagnostic>) -> Option<Self> {
        let exits: Vec<Exit> = problems.iter().map(|problem| Self::from(problem.clone()).exit).collect();
        // A mistake is one although there is a refusal, too: it would not go away by itself.
        let exit = exits.into_iter().find(|exit| *exit != Exit::Refused).unwrap_or(Exit::Refused);
        let (mut placed, mut diagnostics, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for problem in problems {
            match at_its_line(&problem) {
                Some(diagnostic) => {
                    placed.push(problem);
                    diagnostics.push(diagnostic);
                }
                None => others.push(problem),
            }
        }
        let problem =
            if placed.is_empty() { (!others.is_empty()).then(|| others.remove(0))? } else { placed.swap_remove(0) };
        Some(Self { problem, exit, diagnostics: diagnostics.into(), others: others.into() })
    }

    /// What a pipeline shows of it: each mistake of a manifest at its line.
    fn marks(&self) -> Vec<Mark> {
        let plain = |it: &Problem| Mark { title: format!("baton {}", it.code), text: it.what.clone(), place: None };
        let errors = self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error);
        let placed = errors.map(|it: &Diagnostic| Mark {
            title: format!("baton {}", it.code),
            text: it.what.clone(),
            place: Some((it.path.clone(), it.line, it.column)),
        });
        let whole = self.diagnostics.is_empty().then(|| plain(&self.problem));
        whole.into_iter().chain(placed).chain(self.others.iter().map(plain)).collect()
    }

    /// As people read it.
    #[must_use]
    pub fn page(&self) -> Page {
        let mut page = diagnostics_page(&self.diagnostics);
        if self.diagnostics.is_empty() {
            page = problem_page(&self.problem);
        } else if self.diagnostics.iter().all(|it| it.what != self.problem.what) {
            page.line(Line::default().span(Tone::Bad, self.problem.what.clone()));
        }
        for other in &self.others {
            page.extend(problem_page(other));
        }
        page
    }

    /// Prints it and says how to end.
    #[must_use]
    pub fn report(&self, output: &Output) -> Exit {
        output.note(&self.page());
        self.marks().iter().for_each(|mark| output.mark(mark));
        let mut document = json!({ "error": &self.problem, "exit": self.exit.code() });
        if !self.diagnostics.is_empty() {
            document["diagnostics"] = json!(self.diagnostics);
        }
        if !self.others.is_empty() {
            document["others"] = json!(self.others);
        }
        output.json(&document);
        self.exit
    }
}

/// Refusals have a code of their own; every other problem that reaches here came before anything changed.
impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let exit = match problem.code {
            wire::USAGE => Exit::Usage,
            code if is_refusal(code) => Exit::Refused,
            _ => Exit::Error,
        };
        Self::new(problem, exit)
    }
}

/// A call that was answered with a problem, or not at all.
impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        from_status(&status).into()
    }
}

/// Whether the same request may be welcome at another time or from somebody else. Of the range of locks and policies, these
/// are mistakes instead: no host, a host that never joined, a port or a pool in use, no release to go back to, no rollout, no
/// service, no balancer, no upgrade of agents, no reboots. That a host does not let itself be rebooted is its policy.
const fn is_refusal(code: Code) -> bool {
    code.0 == wire::NOT_ALLOWED.0
        || matches!(code.0, 567 | 805 | 1032..=1034)
        || matches!(code.0, 700..800)
            && !matches!(code.0, 702..=704 | 706 | 708..=710 | 714..=716 | 721 | 722 | 733 | 741 | 743 | 745)
}

/// Everything found in a manifest, as its own renderer shows it.
#[must_use]
pub fn diagnostics_page(diagnostics: &[Diagnostic]) -> Page {
    let mut page = Page::new();
    for diagnostic in diagnostics {
        let tone = if diagnostic.severity == Severity::Error { Tone::Bad } else { Tone::Busy };
        for (nth, line) in diagnostic.render().lines().enumerate() {
            page.line(Line::default().span(if nth == 0 { tone } else { Tone::Plain }, line));
        }
        page.line(Line::default());
    }
    page
}

/// A problem as it came over the wire. Shown as it is: a code this program does not know is shown all the same.
#[must_use]
pub fn from_wire(problem: &baton_proto::v1::Problem) -> Problem {
    let finding = Finding {
        code: Code(u16::try_from(problem.code).unwrap_or(u16::MAX)),
        what: problem.what.clone(),
        seen: problem.seen.iter().map(|seen| (seen.label.clone(), seen.evidence.clone())).collect(),
        help: (!problem.help.is_empty()).then(|| problem.help.clone()),
    };
    finding.into()
}

/// A host's problem: names the host, unless the sentence does.
#[must_use]
pub fn from_host(host: &str, problem: &baton_proto::v1::Problem) -> Problem {
    let mut problem = from_wire(problem);
    if !problem.what.split(' ').any(|word| word.trim_end_matches([':', ',']) == host) {
        problem.seen.insert(0, ("host".to_owned(), host.to_owned()));
    }
    problem
}

/// A problem in the shape of a compiler's error.
#[must_use]
pub fn problem_page(problem: &Problem) -> Page {
    headed("error", Tone::Bad, problem)
}

/// The same for what is not refused.
#[must_use]
pub fn warning_page(problem: &Problem) -> Page {
    headed("warning", Tone::Busy, problem)
}

fn headed(word: &str, tone: Tone, problem: &Problem) -> Page {
    let mut page = Page::new();
    page.line(
        Line::default().span(tone, format!("{word}[{}]", problem.code)).span(Tone::Strong, format!(": {}", problem.what)),
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
    use super::{Failure, diagnostics_page, from_host, problem_page};
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
    fn a_hosts_problem_names_the_host_once() {
        let named = baton_proto::v1::Problem { what: "shop is not ready on web2".into(), ..Default::default() };
        assert!(from_host("web2", &named).seen.is_empty());
        assert_eq!(from_host("web", &named).seen, [("host".to_owned(), "web".to_owned())]);
    }

    #[test]
    fn a_refusal_ends_with_its_own_code() {
        let exit = |code| Failure::from(Problem::new(Code(code), "another rollout")).exit;
        assert_eq!([701, 705, 707].map(exit), [Exit::Refused; 3]);
        assert_eq!([501, 703, 709, 1001].map(exit), [Exit::Error; 4], "mistakes and failures are no refusals");
    }

    #[test]
    fn everything_the_fleet_has_against_a_manifest_is_told_at_once_and_at_its_line() {
        let text = "service = \"shop\"\nhosts = [\"web1\", \"web9\"]\n";
        let at_its_line = |problem: &Problem| baton_core::manifest::at_its_line("baton.toml", text, problem);
        let problem = |code, what: &str| Problem::new(Code(code), what);
        assert!(Failure::conflicts(Vec::new(), at_its_line).is_none());
        let both = vec![problem(711, "shop is frozen"), problem(703, "web9 never joined")];
        let failure = Failure::conflicts(both, at_its_line).unwrap();
        assert_eq!((failure.exit, failure.problem.code), (Exit::Error, Code(703)), "a mistake is no refusal");
        assert_eq!(
            failure.page().to_text(Look::default()),
            r#"error[B0703]: web9 never joined
 --> baton.toml:2:18
  |
2 | hosts = ["web1", "web9"]
  |                  ^^^^^^

error[B0711]: shop is frozen
"#
        );
        let usage = Failure::conflicts(vec![problem(151, "--if-plan cannot be that")], at_its_line).unwrap();
        assert_eq!(usage.exit, Exit::Usage);
        let frozen = Failure::conflicts(vec![problem(711, "shop is frozen")], at_its_line).unwrap();
        assert_eq!((frozen.exit, frozen.diagnostics.len(), frozen.others.len()), (Exit::Refused, 0, 0));
    }

    #[test]
    fn everything_wrong_in_a_manifest_is_shown_and_summed_up() {
        let diagnostics =
            baton_core::manifest::parse("baton.toml", "service = 1\nhosts = []\nfoo = \"\\u001b[2J\"\n").unwrap_err();
        let shown = diagnostics_page(&diagnostics).to_text(Look::default());
        assert!(shown.contains(" --> baton.toml:1:11"), "{shown}");
        assert!(shown.contains("error[B0102]") && shown.contains("error[B0106]"), "{shown}");
        let failure = Failure::manifest(diagnostics);
        assert_eq!(failure.exit, Exit::Error);
        assert!(failure.problem.what.ends_with("errors in baton.toml"), "{}", failure.problem.what);
    }
}
