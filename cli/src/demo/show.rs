//! `baton demo` from the first process to the last line.

use super::acts::{self, Theatre};
use super::document::Document;
use super::part::runtime;
use super::stage::{BROKEN_STAGE, Front, Place, Setup, Stage, look};
use super::{DemoArgs, prompt};
use crate::errors::{Failure, code};
use crate::exit::Exit;
use crate::output::Output;
use crate::render::page::{Line, Page, Tone};
use baton_core::problem::Problem;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

/// Time for three looks at the balancer's counters.
const WATCHED: Duration = Duration::from_secs(6);

pub(super) fn run(args: DemoArgs, output: &Output) -> Result<Exit, Failure> {
    if args.placement == Place::Handover && args.balancer != Front::Builtin {
        let problem =
            Problem::new(code::CONTRADICTS, "a hand-over has no balancer: the host holds the service's socket itself")
                .saw("asked", format!("--placement handover --balancer {}", args.balancer.name()))
                .help("leave out one of the two");
        return Err(Failure::new(problem, Exit::Usage));
    }
    let shown = runtime().and_then(|runtime| runtime.block_on(guarded(args, output)));
    shown.map_err(|error| {
        let problem = error.downcast::<Problem>().unwrap_or_else(|error| {
            let problem = Problem::new(BROKEN_STAGE, "the demo could not go on").saw("cause", format!("{error:#}"));
            problem.help("nothing was left behind; `baton demo` starts afresh")
        });
        problem.into()
    })
}

/// Runs the show until it ends or a signal ends it. Either way everything is gone when this returns: the stage's warden
/// sees to it when the stage is dropped.
async fn guarded(args: DemoArgs, output: &Output) -> anyhow::Result<Exit> {
    let asked = asked_to_end()?;
    tokio::select! {
        exit = show(args, output) => exit,
        () = asked => Ok(Exit::Interrupted),
    }
}

async fn show(args: DemoArgs, output: &Output) -> anyhow::Result<Exit> {
    let begun = Instant::now();
    let ends_by_itself = args.ci || output.is_json();
    let program = std::env::current_exe()?;
    let mut setup = Setup::new(vec![program.display().to_string(), "demo-part".to_owned()]);
    (setup.hosts, setup.front, setup.place) = (args.hosts, args.balancer, args.placement);
    if args.placement != Place::Handover {
        setup.watched = WATCHED;
    }
    let parts = match args.placement {
        Place::Handover => {
            // Every host has its own address, and clients of the demo go to one.
            setup.hosts = 1;
            "a host with a socket of its own".to_owned()
        }
        Place::InPlace | Place::SideBySide => format!("{} hosts and a load balancer", args.hosts),
    };

    if let Some(known) = look(&setup)? {
        say(output, &known);
    }
    let stage = Stage::raise(setup).await?;
    say(output, &format!("a coordinator, {parts} are up, in {:.1} s", begun.elapsed().as_secs_f64()));
    say(output, "they speak mutual TLS on loopback, as they would between machines");
    let theatre = Theatre::open(stage, program, args.rate, output).await?;

    headline(output, "1  a rolling release");
    let rolling = acts::rolling(&theatre, output).await?;
    headline(output, "2  a broken release");
    let broken = acts::broken(&theatre, output).await?;

    let document = Document::new(&args, rolling, broken, begun.elapsed());
    output.json(&document);
    output.answer(&document.page());
    if !ends_by_itself {
        headline(output, "3  yours");
        prompt::run(&theatre, output).await?;
    }
    Ok(document.exit())
}

/// Ctrl-C is the prompt's business while one of its commands runs; a plain demo ends with it.
fn asked_to_end() -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut term = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => if prompt::takes_interrupts() { continue },
                _ = term.recv() => {}
                _ = hangup.recv() => {}
            }
            return;
        }
    })
}

pub(super) fn say(output: &Output, text: &str) {
    output.note(Page::new().text(text));
}

fn headline(output: &Output, text: &str) {
    output.note(Page::new().text("").line(Line::default().span(Tone::Strong, text)));
}

/// The folder of whoever runs the demo does not matter: this is where its commands run.
pub(super) fn operator(theatre: &Theatre) -> (PathBuf, PathBuf) {
    (theatre.stage.workplace(), theatre.stage.socket())
}
