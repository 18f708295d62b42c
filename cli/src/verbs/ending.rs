//! The end of a verb that followed a rollout: evidence, the two words, what was counted, the next command.

use crate::Context;
use crate::ci::Mark;
use crate::connection::Connection;
use crate::errors::{Failure, from_host, problem_page};
use crate::exit::Exit;
use crate::follow::{Ended, Follow, follow};
use crate::outcome;
use crate::output::Output;
use crate::render::page::{Line, Page, Tone};
use crate::render::units::{duration, millis};
use crate::screen::Screen;
use crate::traffic::Counted;
use baton_proto::v1::{RolloutView, ServiceView};
use serde_json::{Value, json};

/// Waits for a rollout that was accepted, and tells how it ended.
///
/// # Errors
/// When nothing more is heard of it. It goes on, so that never ends as "nothing changed".
pub async fn wait(connection: &Connection, what: Follow, context: Context<'_>) -> Result<Ended, Failure> {
    let mut screen = Screen::of_progress(context.output);
    let (service, title) = (what.service.clone(), format!("baton {}", what.service));
    context.output.open(&title);
    let followed = follow(connection, what, context.output, &mut screen).await;
    context.output.close(&title);
    let ended = followed.map_err(|problem| Failure::new(problem, Exit::TimedOut))?;
    tell(&service, &ended, context.output);
    Ok(ended)
}

/// Tells how it ended.
pub fn tell(name: &str, ended: &Ended, output: &Output) -> Exit {
    let Some(service) = &ended.service else {
        let mut page = Page::new();
        page.text(format!("{name}: {}", unseen(ended.exit)));
        output.answer(&page);
        output.json(&json!({ "event": "end", "service": name, "outcome": word(ended), "exit": ended.exit.code() }));
        output.next(&format!("baton status {name}"));
        return ended.exit;
    };
    if ended.exit != Exit::Done {
        output.note(&evidence(service));
        marks(service, ended).iter().for_each(|mark| output.mark(mark));
    }
    output.answer(&answer(service, ended));
    output.json(&document(service, ended));
    output.next(&outcome::next(service, ended.exit));
    ended.exit
}

/// What a pipeline shows beside the run: how it ended, and the first evidence.
fn marks(service: &ServiceView, ended: &Ended) -> Option<Mark> {
    if matches!(ended.exit, Exit::Interrupted) {
        return None;
    }
    let rollout = service.rollout.clone().unwrap_or_default();
    let seen = rollout.evidence.first().and_then(|it| Some((&it.host, it.problem.as_ref()?)));
    let seen = seen.map(|(host, problem)| format!("\n{host}: [B{:04}] {}", problem.code, problem.what));
    let text = sentence(service, ended) + &seen.unwrap_or_default();
    Some(Mark { title: format!("{} {}", service.name, rollout.to_version), text, place: None })
}

const fn unseen(exit: Exit) -> &'static str {
    match exit {
        Exit::Interrupted => "interrupted before anything was seen; what was asked for goes on",
        _ => "nothing was seen of the rollout in time; it goes on",
    }
}

fn evidence(service: &ServiceView) -> Page {
    let mut page = Page::new();
    let evidence = service.rollout.iter().flat_map(|rollout| &rollout.evidence);
    // What a hook wrote before it failed is the reason that somebody is asked now.
    let hooks = service.rollout.iter().flat_map(|rollout| &rollout.hooks).filter(|hook| hook.by.is_empty());
    let problems = evidence.map(|it| (&it.host, it.problem.as_ref())).chain(hooks.map(|it| (&it.host, it.problem.as_ref())));
    let mut told = Vec::new();
    for (host, problem) in problems.filter_map(|(host, problem)| Some((host, problem?))) {
        if !told.contains(&(host, problem)) {
            told.push((host, problem));
            page.extend(problem_page(&from_host(host, problem)));
        }
    }
    page
}

/// `shop 2.1.0: live on 3 of 3 hosts · service healthy on 2.1.0 · 12 s`, and what the load balancer counted.
fn answer(service: &ServiceView, ended: &Ended) -> Page {
    let rollout = service.rollout.clone().unwrap_or_default();
    let tone = match ended.exit {
        Exit::Done => Tone::Good,
        Exit::Waiting | Exit::TimedOut | Exit::Interrupted => Tone::Busy,
        _ => Tone::Bad,
    };
    // Whoever set a time limit reads how long it was kept, not when the rollout last said something.
    let took = match ended.exit {
        Exit::TimedOut => format!("waited for {}", duration(ended.waited)),
        _ => millis(rollout.elapsed_ms),
    };
    let mut page = Page::new();
    page.line(
        Line::default()
            .span(tone, format!("{} {}", service.name, rollout.to_version))
            .plain(format!(": {} · {took}", sentence(service, ended))),
    );
    if let Some(counted) = rollout.proof.as_ref().and_then(Counted::of) {
        // What is answered later is not in it.
        let so_far = if outcome::is_active(&rollout) { ", so far" } else { "" };
        page.text(counted.sentence() + so_far);
    }
    page
}

fn sentence(service: &ServiceView, ended: &Ended) -> String {
    if !ended.superseded {
        return outcome::sentence(service, ended.exit);
    }
    let became =
        if ended.exit == Exit::Done { "live, and another rollout began" } else { "ended, and another rollout began" };
    format!("{became} · {}", outcome::health(service))
}

fn document(service: &ServiceView, ended: &Ended) -> Value {
    let rollout = service.rollout.clone().unwrap_or_default();
    json!({
        "event": "end",
        "service": service.name,
        "rollout": rollout.id,
        "version": rollout.to_version,
        "outcome": word(ended),
        "exit": ended.exit.code(),
        "health": service.health,
        "live_version": service.committed_version,
        "hosts_done": rollout.hosts_done,
        "hosts_total": rollout.hosts_total,
        "elapsed_ms": rollout.elapsed_ms,
        "waited_ms": u64::try_from(ended.waited.as_millis()).unwrap_or(u64::MAX),
        "turned_by": rollout.turned_by,
        "requests": rollout.proof.as_ref().and_then(Counted::of),
        "evidence": rollout.evidence,
    })
}

/// The outcome in one word, for programs.
fn word(ended: &Ended) -> &'static str {
    let reverted = ended.service.as_ref().and_then(|service| service.rollout.as_ref());
    let reverted = reverted.is_some_and(|rollout| rollout.state == outcome::state::REVERTED);
    match ended.exit {
        Exit::Done if reverted => "rolled_back",
        Exit::Done => "live",
        Exit::RolledBack => "rolled_back",
        Exit::NeedsPerson => "needs_person",
        Exit::Aborted => "aborted",
        Exit::Waiting => "paused",
        Exit::Interrupted => "interrupted",
        _ => "timed_out",
    }
}

/// Tells that a request was accepted, for whoever does not wait.
#[must_use]
pub fn accepted(service: &str, rollout: &str, output: &Output) -> Exit {
    let mut page = Page::new();
    page.text(format!("{service}: {rollout} accepted"));
    output.answer(&page);
    output.json(&json!({ "service": service, "rollout": rollout, "outcome": "accepted", "exit": Exit::Done.code() }));
    output.next(&format!("baton watch {service}"));
    Exit::Done
}

/// Tells that there was nothing to do.
#[must_use]
pub fn nothing_to_do(service: &str, version: &str, output: &Output) -> Exit {
    let mut page = Page::new();
    page.text(format!("{service} {version} is already live: nothing to do"));
    output.answer(&page);
    output.json(&json!({ "service": service, "version": version, "outcome": "already_live", "exit": Exit::Done.code() }));
    output.next(&format!("baton status {service}"));
    Exit::Done
}

/// Tells that the way back was gone already.
#[must_use]
pub fn taken_back(service: &ServiceView, last: &RolloutView, output: &Output) -> Exit {
    let (name, version) = (&service.name, &service.committed_version);
    let mut page = Page::new();
    page.text(format!("{name} is on {version} again already: {} to {} was taken back", last.id, last.to_version));
    output.answer(&page);
    output.json(&json!({ "service": name, "version": version, "outcome": "already_live", "exit": Exit::Done.code() }));
    output.next(&format!("baton releases {name}   and, to go further back: baton rollback {name} --to VERSION"));
    Exit::Done
}

#[cfg(test)]
mod tests {
    use super::{answer, document, evidence};
    use crate::exit::Exit;
    use crate::follow::Ended;
    use crate::render::example;
    use crate::render::page::Look;
    use baton_proto::v1::{HookView, Problem, ProofView, RolloutView, Seen, ServiceView};
    use std::time::Duration;

    fn live() -> ServiceView {
        let rollout = RolloutView { state: "succeeded".into(), hosts_done: 3, elapsed_ms: 12_400, ..example::rollout() };
        ServiceView { committed_version: "2.1.0".into(), rollout: Some(rollout), ..example::service() }
    }

    #[test]
    fn success_says_where_it_is_live_and_what_was_measured() {
        let mut measured = live();
        let proof = ProofView { new_requests: 41_208, ..ProofView::default() };
        measured.rollout.as_mut().unwrap().proof = Some(proof);
        let ended =
            Ended { exit: Exit::Done, service: Some(measured.clone()), superseded: false, waited: Duration::from_secs(30) };
        assert_eq!(
            answer(&measured, &ended).to_text(Look::default()),
            "shop 2.1.0: live on 3 of 3 hosts · service healthy on 2.1.0 · 12 s\n\
             0 failed of 41 208 requests seen by the load balancer\n"
        );
        let late = Ended { exit: Exit::TimedOut, service: Some(example::service()), ..ended };
        measured.rollout.as_mut().unwrap().state = "paused".into();
        let held = answer(&measured, &late).to_text(Look::default());
        assert!(held.ends_with("0 failed of 41 208 requests seen by the load balancer, so far\n"), "{held}");
        let text = answer(&example::service(), &late).to_text(Look::default());
        assert!(
            text.ends_with(
                "not done in time, the rollout goes on · service healthy, 1 of 3 hosts on 2.1.0 · waited for 30 s\n"
            ),
            "{text}"
        );
        let unmeasured = Ended { exit: Exit::Done, ..late };
        assert!(!answer(&live(), &unmeasured).to_text(Look::default()).contains("failed"));
    }

    #[test]
    fn what_a_failed_hook_wrote_is_shown_once() {
        let failed = Problem {
            code: 801,
            what: "migrate failed with status 1".into(),
            seen: vec![Seen { label: "output".into(), evidence: "no such table".into() }],
            ..Problem::default()
        };
        let hook =
            |by: &str| HookView { host: "web1".into(), problem: Some(failed.clone()), by: by.into(), ..HookView::default() };
        let of =
            |hooks| ServiceView { rollout: Some(RolloutView { hooks, ..RolloutView::default() }), ..ServiceView::default() };
        let text = evidence(&of(vec![hook(""), hook("")])).to_text(Look::default());
        assert_eq!(text.matches("no such table").count(), 1, "{text}");
        assert_eq!(evidence(&of(vec![hook("ana")])).to_text(Look::default()), "", "somebody vouched for it");
    }

    #[test]
    fn a_release_taken_back_says_both_words_and_shows_its_evidence() {
        let service = example::taken_back();
        let ended = Ended {
            exit: Exit::RolledBack,
            service: Some(service.clone()),
            superseded: false,
            waited: Duration::from_secs(30),
        };
        assert_eq!(
            answer(&service, &ended).to_text(Look::default()),
            "shop 2.1.0: rolled back · service healthy on 2.0.4 · 1 min 48 s\n"
        );
        assert!(evidence(&service).to_text(Look::default()).starts_with("error[B0210]: shop 2.1.0 did not become ready"));
        let document = document(&service, &ended);
        assert_eq!(document["outcome"], "rolled_back");
        assert_eq!(document["exit"], 4);
        assert_eq!(document["health"], "healthy");
        assert_eq!(document["live_version"], "2.0.4");
        assert_eq!(document["evidence"][0]["host"], "web2");
    }
}
