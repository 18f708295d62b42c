//! Where words go: answers to stdout, progress and hints to stderr, in the shape that was asked for.

use crate::args::FormatArgs;
use crate::ci::{Mark, Pipeline};
use crate::render::live::columns;
use crate::render::narrow::narrow;
use crate::render::page::{Look, Page};
use anstream::ColorChoice;
use baton_core::problem::Code;
use serde::Serialize;
use serde_json::{Value, json};
use std::cell::Cell;
use std::io::{self, IsTerminal, Write};

/// What stdout carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text for people.
    Text,
    /// One JSON document.
    Json,
    /// One JSON document a line, as things happen.
    JsonLines,
}

/// The two streams of a command and what they are connected to.
#[derive(Debug)]
pub struct Output {
    pub format: Format,
    /// No colour, no symbols beyond ASCII words, no redrawing.
    pub plain: bool,
    answer: Stream,
    progress: Stream,
    /// The pipeline that reads along, if it understands marks.
    pipeline: Option<Pipeline>,
}

/// One of the two streams.
#[derive(Debug)]
pub struct Stream {
    kind: Kind,
    terminal: bool,
    colour: bool,
    /// Nothing more is written.
    closed: Cell<bool>,
    /// Not because whoever read it is gone (`| head`), which fails nothing, but because it could not be written (a full disk).
    failed: Cell<Option<io::ErrorKind>>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Stdout,
    Stderr,
}

impl Output {
    #[must_use]
    pub fn new(args: &FormatArgs) -> Self {
        let format = match (args.json, args.json_lines) {
            (true, _) => Format::Json,
            (_, true) => Format::JsonLines,
            _ => Format::Text,
        };
        let (stdout, stderr) = (io::stdout(), io::stderr());
        Self {
            format,
            plain: args.plain,
            answer: Stream::new(Kind::Stdout, stdout.is_terminal(), !args.plain && colours(&stdout)),
            progress: Stream::new(Kind::Stderr, stderr.is_terminal(), !args.plain && colours(&stderr)),
            pipeline: if stderr.is_terminal() { None } else { Pipeline::here() },
        }
    }

    #[must_use]
    pub fn is_json(&self) -> bool {
        self.format != Format::Text
    }

    /// Stdout.
    #[must_use]
    pub const fn answers(&self) -> &Stream {
        &self.answer
    }

    /// Stderr.
    #[must_use]
    pub const fn progress(&self) -> &Stream {
        &self.progress
    }

    /// Whether frames may be drawn over each other there.
    #[must_use]
    pub fn redraws(&self, stream: &Stream) -> bool {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        stream.terminal && !dumb && !self.plain && !self.is_json()
    }

    /// Writes the answer for people; nothing when JSON was asked for.
    pub fn answer(&self, page: &Page) {
        if !self.is_json() {
            self.answer.page(page);
        }
    }

    /// Writes something that is not the answer: progress, a hint, an error.
    pub fn note(&self, page: &Page) {
        self.progress.page(page);
    }

    /// Begins progress that a pipeline may fold.
    pub fn open(&self, title: &str) {
        self.pipeline.iter().for_each(|pipeline| self.progress.write(&pipeline.open(title)));
    }

    /// Ends it.
    pub fn close(&self, title: &str) {
        self.pipeline.iter().for_each(|pipeline| self.progress.write(&pipeline.close(title)));
    }

    /// Marks the run in a pipeline.
    pub fn mark(&self, mark: &Mark) {
        self.pipeline.iter().for_each(|pipeline| self.progress.write(&pipeline.mark(mark)));
    }

    /// The last line of a command: the next command.
    pub fn next(&self, command: &str) {
        if !self.is_json() {
            self.progress.page(Page::new().text(format!("next: {command}")));
        }
    }

    /// Writes one JSON document: indented for `--json`, one line for `--json-lines`; nothing when text was asked for.
    pub fn json(&self, document: &impl Serialize) {
        let Ok(mut document) = serde_json::to_value(document) else { return };
        write_codes_out(&mut document);
        let text = match self.format {
            Format::Text => return,
            Format::Json => format!("{document:#}\n"),
            Format::JsonLines => format!("{document}\n"),
        };
        self.answer.write(&printable_json(&text));
    }
}

impl Stream {
    const fn new(kind: Kind, terminal: bool, colour: bool) -> Self {
        Self { kind, terminal, colour, closed: Cell::new(false), failed: Cell::new(None) }
    }

    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        self.terminal
    }

    #[must_use]
    pub const fn has_colour(&self) -> bool {
        self.colour
    }

    /// Whether its reader is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Why something that was written did not arrive.
    #[must_use]
    pub fn failed(&self) -> Option<io::ErrorKind> {
        self.failed.get()
    }

    pub fn page(&self, page: &Page) {
        let look = Look { colour: self.colour, width: None };
        match self.terminal {
            true => self.write(&narrow(page, columns()).to_text(look)),
            false => self.write(&page.to_text(look)),
        }
    }

    /// Writes text that is already safe to write.
    pub(crate) fn write(&self, text: &str) {
        if self.closed.get() {
            return;
        }
        let written = match self.kind {
            Kind::Stdout => write_all(&mut io::stdout().lock(), text),
            Kind::Stderr => write_all(&mut io::stderr().lock(), text),
        };
        if let Err(error) = written {
            self.closed.set(true);
            // A pipe nobody reads is the reader's choice.
            self.failed.set(Some(error.kind()).filter(|kind| *kind != io::ErrorKind::BrokenPipe));
        }
    }
}

fn write_all(stream: &mut impl Write, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes())?;
    stream.flush()
}

/// `NO_COLOR`, `CLICOLOR_FORCE`, `TERM=dumb`, pipelines that show colours: as everywhere else.
fn colours(stream: &impl anstream::stream::RawStream) -> bool {
    anstream::AutoStream::choice(stream) != ColorChoice::Never
}

/// Writes the codes of problems the way people and `baton explain` do, and evidence with the names of its parts.
fn write_codes_out(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(write_codes_out),
        Value::Object(fields) => {
            let code = fields.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
            if let (Some(code), true) = (code, fields.contains_key("what")) {
                fields.insert("code".to_owned(), Code(code).to_string().into());
                fields.get_mut("seen").and_then(Value::as_array_mut).into_iter().flatten().for_each(name_parts);
            }
            fields.values_mut().for_each(write_codes_out);
        }
        _ => {}
    }
}

/// `["probe", "refused"]` as `{"label": "probe", "evidence": "refused"}`: as it is on the wire.
fn name_parts(seen: &mut Value) {
    if let Some([label, evidence]) = seen.as_array().map(Vec::as_slice) {
        *seen = json!({ "label": label, "evidence": evidence });
    }
}

/// JSON leaves DEL and the C1 controls raw in strings; some terminals obey those.
fn printable_json(json: &str) -> String {
    use std::fmt::Write;
    json.chars().fold(String::with_capacity(json.len()), |mut out, c| {
        match c {
            '\u{7f}'..='\u{9f}' => write!(out, "\\u{:04x}", u32::from(c)).unwrap_or_default(),
            c => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::{printable_json, write_codes_out};
    use baton_core::problem::{Code, Problem};
    use serde_json::json;

    #[test]
    fn problems_look_alike_wherever_they_come_from() {
        let own = Problem::new(Code(210), "not ready").saw("probe", "refused").help("look");
        let wire = baton_proto::v1::Problem::from(&own);
        let expected = json!({ "code": "B0210", "what": "not ready", "seen": [{ "label": "probe", "evidence": "refused" }], "help": "look" });
        for problem in [json!(own), json!(wire)] {
            let mut document = json!({ "deep": [problem], "code": 7 });
            write_codes_out(&mut document);
            assert_eq!(document, json!({ "deep": [expected], "code": 7 }));
        }
    }

    #[test]
    fn json_for_a_terminal_carries_no_control_sequence_and_still_says_the_same() {
        let text = "a\u{1b}[2J\u{9b}31m\u{7f}";
        let json = printable_json(&serde_json::to_string(text).unwrap());
        assert!(json.chars().all(|c| !c.is_control()), "{json:?}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
