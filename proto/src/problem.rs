//! A problem as a gRPC status, and back.

use crate::convert::InvalidMessage;
use crate::tls::find_problem;
use crate::v1;
use baton_core::problem::{Code as ProblemCode, Problem};
use prost::Message;
use tonic::{Code, Status};

/// The codes that talking to each other can end in: B0501 to B0519, and what a program may have been told wrong.
pub mod code {
    use baton_core::problem::Code;

    /// A word or an option that cannot be what people wrote there.
    pub const USAGE: Code = Code(151);
    /// No connection: refused, no route, no such name, no such socket.
    pub const UNREACHABLE: Code = Code(501);
    /// Nothing came back in time.
    pub const NO_ANSWER: Code = Code(502);
    /// The other side's certificate is signed by an authority that is not ours.
    pub const UNKNOWN_AUTHORITY: Code = Code(503);
    /// A certificate has expired or is not valid yet: or a clock is off.
    pub const CERTIFICATE_TIME: Code = Code(504);
    /// The authority is not the one the join token pins.
    pub const WRONG_PIN: Code = Code(505);
    /// A genuine certificate, of somebody who is no coordinator.
    pub const NOT_A_COORDINATOR: Code = Code(506);
    /// The coordinator refused our certificate.
    pub const REFUSED: Code = Code(507);
    /// Any other failure of TLS.
    pub const TLS_FAILED: Code = Code(508);
    /// The connection broke during a call.
    pub const BROKEN: Code = Code(509);
    /// The call needs a certificate and the peer showed none.
    pub const WHO_ARE_YOU: Code = Code(510);
    /// The peer's role does not allow the call.
    pub const NOT_ALLOWED: Code = Code(511);
    /// The other side sent what cannot be understood, or does not know the call: versions differ too much.
    pub const NOT_UNDERSTOOD: Code = Code(512);
    /// Certificate, key or authority on disk cannot be used.
    pub const CREDENTIALS: Code = Code(513);
    /// A join token that is unknown, used up or expired.
    pub const TOKEN: Code = Code(514);
    /// A name that cannot be had: taken, not the token's, or no name at all.
    pub const NAME: Code = Code(515);
    /// No certificate of that name or number that could be revoked.
    pub const NO_CERTIFICATE: Code = Code(516);
    /// Something else a call ended with.
    pub const CALL_FAILED: Code = Code(519);
}

/// How much of a problem a status may carry: it travels in HTTP/2 trailers, base64-encoded, beside the sentence.
const DETAILS_MAX: usize = 12 * 1024;

/// How much of one piece of evidence is kept when a problem is too big: logs, above all.
const EVIDENCE_MAX: usize = 512;

const SENTENCE_MAX: usize = 1024;

/// Puts a problem into a status: the sentence for those who know no better, the whole in the details.
///
/// Evidence that would not fit is shortened, the last pieces first: a status that is too big is no status at all.
#[must_use]
pub fn to_status(problem: Problem) -> Status {
    let kind = status_code(problem.code);
    let problem = bounded(problem);
    Status::with_details(kind, problem.what.clone(), v1::Problem::from(&problem).encode_to_vec().into())
}

/// Reads the problem out of a status, whoever made it: our own side, the network in between, or tonic.
#[must_use]
pub fn from_status(status: &Status) -> Problem {
    carried(status)
        .or_else(|| std::error::Error::source(status).and_then(find_problem))
        .unwrap_or_else(|| guessed(status.code(), status.message(), std::error::Error::source(status)))
}

impl From<InvalidMessage> for Problem {
    fn from(error: InvalidMessage) -> Self {
        Self::new(code::NOT_UNDERSTOOD, "the other side sent a message that cannot be right")
            .saw(error.field, error.what)
            .help("the versions of the two programs may be too far apart")
    }
}

fn carried(status: &Status) -> Option<Problem> {
    let message = v1::Problem::decode(status.details()).ok()?;
    // Anybody's details decode as something; ours name a code.
    let problem = Problem::try_from(message).ok()?;
    (problem.code != ProblemCode(0)).then_some(problem)
}

const LOOK: &str = "does it run? on its machine: systemctl status baton-coordinator, journalctl -u baton-coordinator";

fn guessed(status: Code, message: &str, source: Option<&(dyn std::error::Error + 'static)>) -> Problem {
    let chain = std::iter::successors(source, |error| (*error).source()).map(ToString::to_string);
    let (code, what, help) = match status {
        Code::Unauthenticated => {
            (code::WHO_ARE_YOU, "the coordinator does not know who this is", Some("join or log in first"))
        }
        Code::PermissionDenied => (code::NOT_ALLOWED, "the coordinator does not allow this", None),
        Code::Unimplemented => {
            (code::NOT_UNDERSTOOD, "the coordinator does not know this call", Some("is its version older?"))
        }
        Code::DeadlineExceeded => (code::NO_ANSWER, "no answer from the coordinator in time", Some(LOOK)),
        Code::Unavailable => (code::BROKEN, "the connection to the coordinator broke", Some(LOOK)),
        Code::Unknown if source.is_some() => (code::BROKEN, "the connection to the coordinator broke", Some(LOOK)),
        _ => (code::CALL_FAILED, "the coordinator could not do this", None),
    };
    let mut problem = Problem::new(code, what).saw("status", format!("{status:?}: {message}"));
    if let Some(cause) = chain.last().filter(|cause| cause != message) {
        problem = problem.saw("cause", cause);
    }
    match help {
        Some(help) => problem.help(help),
        None => problem,
    }
}

fn status_code(code: ProblemCode) -> Code {
    match code {
        code::WHO_ARE_YOU => Code::Unauthenticated,
        code::NOT_ALLOWED | code::TOKEN | code::NAME | code::REFUSED => Code::PermissionDenied,
        code::NO_CERTIFICATE => Code::NotFound,
        code::NOT_UNDERSTOOD => Code::InvalidArgument,
        ProblemCode(500..600) => Code::Unavailable,
        ProblemCode(100..200) => Code::InvalidArgument,
        ProblemCode(200..500 | 600..1000) => Code::FailedPrecondition,
        ProblemCode(1000..1100) => Code::Internal,
        _ => Code::Unknown,
    }
}

fn bounded(mut problem: Problem) -> Problem {
    shorten(&mut problem.what, SENTENCE_MAX);
    if let Some(help) = &mut problem.help {
        shorten(help, SENTENCE_MAX);
    }
    let size = |problem: &Problem| v1::Problem::from(problem).encoded_len();
    if size(&problem) > DETAILS_MAX {
        for (label, evidence) in &mut problem.seen {
            shorten(label, EVIDENCE_MAX);
            shorten(evidence, EVIDENCE_MAX);
        }
    }
    while size(&problem) > DETAILS_MAX && problem.seen.pop().is_some() {}
    problem
}

fn shorten(text: &mut String, max: usize) {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
        text.push('…');
    }
}
