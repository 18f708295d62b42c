//! `explore` looks at every state of every scope, says how many there were, and fails at the first that breaks an invariant,
//! with what leads there. With a number, of that scope alone; `explore list` names them.

use baton_model::{Exploration, Happening, Scope, explore, scopes};
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

/// All of them together take less than a third of it on two cores.
const LIMIT: Duration = Duration::from_secs(900);

fn main() -> ExitCode {
    let chosen = std::env::args().nth(1);
    let mut out = std::io::stdout().lock();
    let threads = std::thread::available_parallelism().map_or(1, |it| it.get());
    let (mut left, mut happened, mut sound) = (LIMIT, Vec::new(), true);
    for (number, scope) in scopes::all().into_iter().enumerate() {
        if chosen.as_deref() == Some("list") {
            let _ = writeln!(out, "{number:>2} {}", title(&scope));
        }
        if chosen.as_ref().is_some_and(|chosen| *chosen != number.to_string()) {
            continue;
        }
        let title = title(&scope);
        let found = explore(scope, threads, left);
        let _ = tell(&mut out, &title, &found);
        left = left.saturating_sub(found.took);
        sound &= found.complete;
        happened.extend(found.happened);
    }
    let missing: Vec<_> = Happening::ALL.into_iter().filter(|it| !happened.contains(it)).collect();
    if chosen.is_none() && sound {
        let _ = writeln!(out, "everything within {:.0} s; never happened: {missing:?}", (LIMIT - left).as_secs_f64());
        sound &= missing.is_empty();
    }
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn title(scope: &Scope) -> String {
    format!("{} hosts, {} balancers, {}", scope.hosts, scope.balancers, scope.name)
}

fn tell(out: &mut impl std::io::Write, title: &str, found: &Exploration) -> std::io::Result<()> {
    let Exploration { states, transitions, depth, took, asked, .. } = found;
    let seconds = took.as_secs_f64();
    writeln!(out, "{title}: {states} states, {transitions} transitions, depth {depth}, {asked} questions, {seconds:.1} s")?;
    if let Some((property, actions)) = &found.broken {
        writeln!(out, "  does not hold: {property}")?;
        actions.iter().try_for_each(|action| writeln!(out, "    {action:?}"))?;
        found.refusal.iter().try_for_each(|refusal| writeln!(out, "  the interlock: {refusal}"))?;
    } else if !found.complete {
        writeln!(out, "  cut short: not every state was looked at")?;
    }
    Ok(())
}
