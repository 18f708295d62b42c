//! The command line: one file per verb ([`verbs`]), what people see ([`render`]), and how it ends ([`exit`], [`errors`]).
//!
//! Answers go to stdout, progress and hints to stderr. Exit codes are an interface.

pub mod archive;
pub mod args;
pub mod ci;
pub mod connection;
pub mod demo;
pub mod doctor;
pub mod errors;
pub mod exit;
mod export;
pub mod follow;
pub mod junit;
pub mod manifest;
pub mod outcome;
pub mod output;
pub mod package;
pub mod render;
pub mod renewal;
pub mod screen;
pub mod scrub;
pub mod steps;
pub mod traffic;
pub mod upload;
pub mod verbs;

use args::{Cli, FormatArgs, Verb};
use baton_core::problem::Problem;
use baton_proto::token::masked;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use connection::ConnectArgs;
use errors::Failure;
use exit::Exit;
use output::Output;
use std::ffi::OsString;
use std::process::ExitCode;

/// Parses the arguments, runs the verb, prints what went wrong, and ends with the code that says how it went.
#[must_use]
pub fn main() -> ExitCode {
    main_from(std::env::args_os())
}

/// The same with these words, the program's name first: for executables that are this program among other things.
#[must_use]
pub fn main_from<W: Into<OsString> + Clone>(words: impl IntoIterator<Item = W>) -> ExitCode {
    let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
    let cli = Cli::try_parse_from(&words).unwrap_or_else(|error| usage(&error, &words));
    let output = Output::new(&cli.format);
    let exit = run(cli, &output).unwrap_or_else(|failure| failure.report(&output));
    match output.answers().failed() {
        Some(why) if exit == Exit::Done => Failure::from(unwritten(why)).report(&output).into(),
        _ => exit.into(),
    }
}

/// Ends with what is wrong with the command line, or the help that was asked for. A program that asked for JSON gets it.
fn usage(error: &clap::Error, words: &[OsString]) -> ! {
    let asked = |option: &str| words.iter().any(|word| word == option);
    if error.use_stderr() && (asked("--json") || asked("--json-lines")) {
        let output = Output::new(&FormatArgs { json: asked("--json"), json_lines: asked("--json-lines"), plain: true });
        let text = masked(&error.render().to_string());
        let what = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        let problem = Problem::new(baton_proto::problem::code::USAGE, what)
            .help("baton help shows the commands, and COMMAND --help one of them");
        output.json(&serde_json::json!({ "error": problem, "exit": Exit::Usage.code() }));
    }
    if error.kind() == ErrorKind::MissingSubcommand {
        // A list of bare names helps nobody.
        let help = command_of(words).render_help();
        output::Output::new(&FormatArgs::default()).progress().write(&help.to_string());
        std::process::exit(Exit::Usage.code().into());
    }
    let text = error.render().to_string();
    let shown = masked(&text);
    if shown != text {
        let help = "a token is read from its file: --token-file FILE. What was written here may stand in the shell's history and in logs: \
                    baton token revoke takes it away";
        output::Output::new(&FormatArgs::default()).progress().write(&format!("{shown}\nhelp: {help}\n"));
        std::process::exit(Exit::Usage.code().into());
    }
    error.exit()
}

/// The command that the words lead to, as far as they do.
fn command_of(words: &[OsString]) -> clap::Command {
    let mut command = Cli::command();
    command.build();
    for word in words.iter().skip(1) {
        if let Some(next) = command.find_subcommand(word) {
            command = next.clone();
        }
    }
    command
}

fn unwritten(why: std::io::ErrorKind) -> Problem {
    Problem::new(errors::code::ANSWER, "the answer could not be written")
        .saw("stdout", why.to_string())
        .help("what was asked for was done; free space where stdout leads")
}

/// What a verb needs to know besides its own arguments.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub connect: &'a ConnectArgs,
    pub output: &'a Output,
}

fn run(cli: Cli, output: &Output) -> Result<Exit, Failure> {
    let context = Context { connect: &cli.connect, output };
    match cli.verb {
        // Nobody is asked.
        Verb::Init(args) => verbs::init::run(&args, output),
        Verb::Config(args) => verbs::config::run(&args, output),
        Verb::Explain(args) => verbs::explain::run(&args, output),
        Verb::Completions(args) => Ok(verbs::completions::run(&args, output)),
        Verb::Version => Ok(verbs::version::run(output)),
        // The demo and its parts are processes with a runtime of their own.
        Verb::Demo(args) => demo::run(args, output),
        Verb::DemoPart(args) => demo::part(args, output),
        verb => runtime()?.block_on(ask(verb, context)),
    }
}

/// The verbs that talk to the coordinator.
async fn ask(verb: Verb, context: Context<'_>) -> Result<Exit, Failure> {
    renewal::when_due(context.connect, context.output).await;
    let exit = carry_out(verb, context).await;
    renewal::when_noticed(context.connect, context.output).await;
    exit
}

async fn carry_out(verb: Verb, context: Context<'_>) -> Result<Exit, Failure> {
    match verb {
        Verb::Deploy(args) => verbs::deploy::run(args, context).await,
        Verb::Plan(args) => verbs::plan::run(args, context).await,
        Verb::Status(args) => verbs::status::run(args, context).await,
        Verb::Watch(args) => verbs::watch::run(args, context).await,
        Verb::History(args) => verbs::history::history(args, context).await,
        Verb::Show(args) => verbs::history::show(args, context).await,
        Verb::Why(args) => verbs::why::run(args, context).await,
        Verb::Rollback(args) => verbs::rollback::rollback(args, context).await,
        Verb::Abort(args) => verbs::rollback::abort(args, context).await,
        Verb::Promote(args) => verbs::steer::promote(args, context).await,
        Verb::Pause(args) => verbs::steer::pause(args, context).await,
        Verb::Resume(args) => verbs::steer::resume(args, context).await,
        Verb::Retry(args) => verbs::retry::retry(args, context).await,
        Verb::Skip(args) => verbs::retry::skip(args, context).await,
        Verb::Restart(args) => verbs::renew::restart(args, context).await,
        Verb::Rehearse(args) => verbs::renew::rehearse(args, context).await,
        Verb::Freeze(args) => verbs::freeze::freeze(args, context).await,
        Verb::Unfreeze(args) => verbs::freeze::unfreeze(args, context).await,
        Verb::Recover(args) => verbs::recover::run(args, context).await,
        Verb::Services(args) => verbs::services::run(args, context).await,
        Verb::Reboot(args) => verbs::reboot::run(args, context).await,
        Verb::Agents(args) => verbs::agents::run(args, context).await,
        Verb::Hosts(args) => verbs::hosts::run(args, context).await,
        Verb::Balancers(args) => verbs::balancers::run(args, context).await,
        Verb::Releases(args) => verbs::releases::run(args, context).await,
        Verb::Doctor(args) => verbs::doctor::run(args, context).await,
        Verb::SupportBundle(args) => verbs::support_bundle::run(args, context).await,
        Verb::Audit(args) => verbs::audit::run(args, context).await,
        Verb::Certificates(args) => verbs::certificates::run(args, context).await,
        Verb::Authority(args) => verbs::authority::run(args, context).await,
        Verb::Token(args) => verbs::token::run(args, context).await,
        Verb::Login(args) => verbs::login::run(args, context).await,
        Verb::Init(_)
        | Verb::Config(_)
        | Verb::Explain(_)
        | Verb::Completions(_)
        | Verb::Version
        | Verb::Demo(_)
        | Verb::DemoPart(_) => Ok(Exit::Usage),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        let what = "this process cannot run: no runtime for input and output";
        Problem::new(errors::code::NOT_CONNECTED, what).saw("system", error.to_string()).into()
    })
}
