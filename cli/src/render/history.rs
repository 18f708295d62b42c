//! Rollouts that were, as a table; one of them, with what the load balancers counted.

use super::hooks::hooks;
use super::page::{Line, Page, Tone};
use super::sources;
use super::table::Table;
use super::units::{count, counted as number_of, millis};
use crate::errors::{from_host, problem_page};
use crate::outcome::{is_active, state};
use crate::traffic::Counted;
use baton_proto::v1::{CutView, Notice, ProofView, RolloutList, RolloutRecord, RolloutView};

#[must_use]
pub fn table(list: &RolloutList) -> Page {
    if list.rollouts.is_empty() {
        let mut page = Page::new();
        page.text("no rollout yet");
        return page;
    }
    let mut table =
        Table::new(&["ROLLOUT", "SERVICE", "RELEASE", "OUTCOME", "ENDED", "TOOK", "REQUESTS", "FAILED", "CUT", "BY"]);
    for record in &list.rollouts {
        let rollout = record.rollout.clone().unwrap_or_default();
        let counted = rollout.proof.as_ref().and_then(Counted::of);
        let (tone, failed) = match counted {
            None | Some(Counted { failed: 0, complete: false, .. }) => (Tone::Plain, "–".to_owned()),
            Some(Counted { failed: 0, .. }) => (Tone::Plain, count(0)),
            Some(Counted { failed, complete: false, .. }) => (Tone::Bad, format!("≥ {}", count(failed))),
            Some(Counted { failed, .. }) => (Tone::Bad, count(failed)),
        };
        table.row(vec![
            Line::of(&rollout.id),
            Line::of(&record.service),
            Line::of(way(&rollout)),
            outcome(&rollout),
            Line::of(ended(record, &rollout)),
            Line::of(millis(rollout.elapsed_ms)),
            Line::of(counted.map_or_else(|| "not counted".to_owned(), |counted| count(counted.seen))),
            Line::default().span(tone, failed),
            cut(&rollout),
            Line::of(&rollout.by),
        ]);
    }
    table.page()
}

/// `: 2 at web1, the oldest open for 31 s, 1 at web2`.
fn cuts(proof: &ProofView) -> String {
    let each = |cut: &CutView| {
        let oldest = cut.oldest_ms.map_or_else(String::new, |oldest| format!(", the oldest open for {}", millis(oldest)));
        format!("{} at {}{oldest}", count(cut.requests), cut.host)
    };
    let all = proof.cuts.iter().map(each).collect::<Vec<_>>().join(" · ");
    if all.is_empty() { all } else { format!(": {all}") }
}

/// What was cut at the end of a drain, which is no failure and no success either.
fn cut(rollout: &RolloutView) -> Line {
    match rollout.proof.as_ref().filter(|proof| proof.cut > 0 || Counted::of(proof).is_some()) {
        None => Line::of("–"),
        Some(proof) if proof.cut > 0 => Line::default().span(Tone::Bad, count(proof.cut)),
        Some(_) => Line::of("0"),
    }
}

/// One rollout.
#[must_use]
pub fn one(record: &RolloutRecord) -> Page {
    let rollout = record.rollout.clone().unwrap_or_default();
    let mut page = Page::new();
    let title = format!("{} {}", record.service, rollout.id);
    let Line(words) = outcome(&rollout);
    let mut line = Line::default().span(Tone::Strong, title).plain(format!("  {}  ", way(&rollout)));
    line.0.extend(words);
    page.line(line);
    let facts = [rollout.strategy.clone(), rollout.by.clone(), millis(rollout.elapsed_ms), ended(record, &rollout)];
    page.text(format!("  {}", facts.into_iter().filter(|fact| !fact.is_empty()).collect::<Vec<_>>().join(" · ")));
    if !rollout.paused_why.is_empty() {
        page.text(format!("  paused by {}: {}", rollout.paused_by, rollout.paused_why));
    }
    page.extend(hooks(&rollout));
    page.extend(proof(&rollout));
    for evidence in &rollout.evidence {
        if let Some(problem) = &evidence.problem {
            page.extend(problem_page(&from_host(&evidence.host, problem)));
        }
    }
    page
}

/// What the load balancers counted; never "0 failed" where nobody counted.
fn proof(rollout: &RolloutView) -> Page {
    let mut page = Page::new();
    let Some((proof, counted)) = rollout.proof.as_ref().and_then(|proof| Some((proof, Counted::of(proof)?))) else {
        page.text("  no request was counted by a load balancer, so nothing is known of failures");
        memory(&mut page, rollout);
        sources::counted(&mut page, rollout);
        prober(&mut page, rollout);
        return page;
    };
    page.text(format!("  {}", counted.sentence()));
    let side = |version: &str, failed: u64, requests: u64| {
        format!(
            "  {:<12}{} of {} failed",
            if version.is_empty() { "nothing" } else { version },
            count(failed),
            count(requests)
        )
    };
    page.text(side(&rollout.to_version, proof.new_failed, proof.new_requests));
    if !rollout.from_version.is_empty() {
        page.text(side(&rollout.from_version, proof.old_failed, proof.old_requests));
    }
    if proof.other_requests > 0 {
        page.text(side("others", proof.other_failed, proof.other_requests));
    }
    page.text(format!("  {:<12}{} at the end of a drain{}", "cut", count(proof.cut), cuts(proof)));
    page.text(format!("  {:<12}both releases answered for {}", "mixed", millis(proof.mixed_ms)));
    if proof.least_of > 0 {
        let missed = if proof.missed_ms > 0 {
            format!(", {} of one host's time were missing", millis(proof.missed_ms))
        } else {
            String::new()
        };
        let hosts = number_of(proof.least_of.into(), "host", "hosts");
        page.text(format!("  {:<12}at least {} of {hosts} served{missed}", "capacity", proof.least_serving));
    }
    if proof.quiet_ms > 0 {
        page.text(format!("  {:<12}no request was counted for {} at most", "quiet", millis(proof.quiet_ms)));
    }
    if !proof.not_counted.is_empty() {
        page.text(format!("  {:<12}{}", "not counted", proof.not_counted));
    } else if proof.restarts > 0 {
        page.text(format!("  {:<12}the counters began anew {} times", "restarts", count(proof.restarts.into())));
    }
    memory(&mut page, rollout);
    let caught = caught(proof);
    if !caught.is_empty() {
        page.text(format!("  {:<12}{caught}", "guard"));
    }
    sources::counted(&mut page, rollout);
    prober(&mut page, rollout);
    if !proof.unit.is_empty() {
        page.text(format!("  {:<12}{}; {}", "judged by", proof.unit, proof.chance));
    }
    page
}

/// What the memory of the instances did: it needs no load balancer.
fn memory(page: &mut Page, rollout: &RolloutView) {
    if let Some(proof) = rollout.proof.as_ref().filter(|proof| !proof.memory.is_empty()) {
        page.text(format!("  {:<12}{}", "memory", proof.memory));
    }
}

/// What was seen from outside; never "0 failed" where nothing was asked.
fn prober(page: &mut Page, rollout: &RolloutView) {
    let Some(seen) = rollout.proof.as_ref().and_then(|proof| proof.prober.as_ref()) else { return };
    let url = &seen.url;
    if seen.asked == 0 {
        page.text(format!("  {:<12}nothing was asked of {url}, so nothing is known of its answers", "prober"));
    } else {
        let (failed, asked, gap) = (count(seen.failed), count(seen.asked), millis(seen.longest_gap_ms));
        page.text(format!("  {:<12}{failed} of {asked} failed, {gap} at most without a good answer, at {url}", "prober"));
    }
    if !seen.last_failure.is_empty() {
        page.text(format!("  {:<12}{}", "failure", seen.last_failure));
    }
    if seen.unasked > 0 {
        page.text(format!("  {:<12}{} times: {}", "not asked", count(seen.unasked), seen.last_trouble));
    }
    if seen.restarts > 0 {
        page.text(format!("  {:<12}the prober began anew {} times", "restarts", count(seen.restarts.into())));
    }
}

fn way(rollout: &RolloutView) -> String {
    match rollout.from_version.as_str() {
        "" => format!("→ {}", rollout.to_version),
        from => format!("{from} → {}", rollout.to_version),
    }
}

fn outcome(rollout: &RolloutView) -> Line {
    let (tone, word) = match rollout.state.as_str() {
        state::SUCCEEDED => (Tone::Good, "succeeded"),
        state::REVERTED => (Tone::Bad, "rolled back"),
        state::FAILED => (Tone::Bad, "failed"),
        other => (Tone::Busy, other),
    };
    Line::default().span(tone, word)
}

fn ended(record: &RolloutRecord, rollout: &RolloutView) -> String {
    if is_active(rollout) { "under way".to_owned() } else { format!("{} ago", millis(record.ended_ago_ms)) }
}

/// `guard  2.1.0: 0 of 812 failed · 2.0.4: 1 of 2 204 · would have caught 1.8 %`; None where nothing can be compared.
#[must_use]
pub fn guard(rollout: &RolloutView) -> Option<String> {
    let proof = rollout.proof.as_ref().filter(|proof| proof.new_requests > 0 && !rollout.from_version.is_empty())?;
    let mut line = format!(
        "{}: {} of {} failed · {}: {} of {}",
        rollout.to_version,
        count(proof.new_failed),
        count(proof.new_requests),
        rollout.from_version,
        count(proof.old_failed),
        count(proof.old_requests)
    );
    let caught = caught(proof);
    if !caught.is_empty() {
        line.push_str(&format!(" · {caught}"));
    }
    Some(line)
}

/// `would have caught 1.8 %, 5 % within 40 s`: what the traffic so far was enough for, and what it is enough for in time.
fn caught(proof: &ProofView) -> String {
    let so_far = Some(&proof.would_have_caught).filter(|share| !share.is_empty());
    let so_far = so_far.map(|share| format!("would have caught {share}"));
    let soon = notices(&proof.would_notice);
    let soon = (!soon.is_empty()).then(|| format!("notices {soon}"));
    so_far.into_iter().chain(soon).collect::<Vec<_>>().join(" · ")
}

/// `5 % within 40 s, 20 % within 6.0 s`.
pub(super) fn notices(notices: &[Notice]) -> String {
    let one = |notice: &Notice| format!("{} within {}", notice.share, millis(notice.within_ms));
    notices.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::{guard, one, table};
    use crate::render::page::Look;
    use baton_proto::v1::{CutView, Notice, ProberView, ProofView, RolloutList, RolloutRecord, RolloutView};

    fn record(proof: Option<ProofView>) -> RolloutRecord {
        let rollout = RolloutView {
            id: "r-7f3".into(),
            state: "reverted".into(),
            from_version: "2.0.4".into(),
            to_version: "2.1.0".into(),
            by: "ana".into(),
            elapsed_ms: 108_000,
            proof,
            ..RolloutView::default()
        };
        RolloutRecord { service: "shop".into(), rollout: Some(rollout), ended_ago_ms: 7_200_000 }
    }

    fn counted() -> ProofView {
        ProofView {
            new_requests: 812,
            new_failed: 52,
            old_requests: 2_204,
            old_failed: 1,
            mixed_ms: 12_000,
            least_serving: 2,
            least_of: 3,
            missed_ms: 1_300,
            would_have_caught: "1.8 %".into(),
            would_notice: vec![Notice { share: "5 %".into(), within_ms: 40_000 }],
            ..ProofView::default()
        }
    }

    #[test]
    fn what_was_counted_stands_beside_the_outcome() {
        let text = one(&record(Some(counted()))).to_text(Look::default());
        assert_eq!(
            text,
            "shop r-7f3  2.0.4 → 2.1.0  rolled back
  ana · 1 min 48 s · 2 h ago
  53 failed of 3 016 requests seen by the load balancer
  2.1.0       52 of 812 failed
  2.0.4       1 of 2 204 failed
  cut         0 at the end of a drain
  mixed       both releases answered for 12 s
  capacity    at least 2 of 3 hosts served, 1.3 s of one host's time were missing
  guard       would have caught 1.8 % · notices 5 % within 40 s
"
        );
    }

    #[test]
    fn what_was_cut_is_named_with_its_host_and_its_age_where_that_is_known() {
        let cut = |host: &str, requests, oldest_ms| CutView { host: host.into(), requests, oldest_ms };
        let cuts = |cuts| super::cuts(&ProofView { cuts, ..counted() });
        assert_eq!(cuts(vec![]), "");
        let text = cuts(vec![cut("web1", 2, Some(31_000)), cut("web2", 1, None)]);
        assert_eq!(text, ": 2 at web1, the oldest open for 31 s · 1 at web2");
    }

    #[test]
    fn the_table_has_what_was_cut_beside_what_failed() {
        let of = |proof| table(&RolloutList { rollouts: vec![record(proof)] }).to_text(Look::default());
        let cells =
            |text: String| text.lines().nth(1).unwrap().split("   ").map(|it| it.trim().to_owned()).collect::<Vec<_>>();
        let counts = |text: String| cells(text).into_iter().filter(|it| !it.is_empty()).skip(6).take(3).collect::<Vec<_>>();
        assert_eq!(counts(of(Some(ProofView { cut: 2, ..counted() }))), ["3 016", "53", "2"]);
        assert_eq!(counts(of(Some(counted()))), ["3 016", "53", "0"]);
        assert_eq!(counts(of(None)), ["not counted", "–", "–"]);
    }

    #[test]
    fn what_was_seen_from_outside_is_said_and_so_is_what_could_not_be_asked() {
        let prober = ProberView {
            url: "http://shop/".into(),
            asked: 118,
            failed: 2,
            longest_gap_ms: 1_400,
            last_failure: "answered 502 Bad Gateway".into(),
            ..ProberView::default()
        };
        let seen = |prober| one(&record(Some(ProofView { prober: Some(prober), ..counted() }))).to_text(Look::default());
        let text = seen(prober.clone());
        let said = "  prober      2 of 118 failed, 1.4 s at most without a good answer, at http://shop/\n";
        assert!(text.contains(said) && text.contains("  failure     answered 502 Bad Gateway\n"), "{text}");
        let (unasked, last_trouble) = (3, "shop:80: no such host".into());
        let text = seen(ProberView { asked: 0, failed: 0, unasked, last_trouble, restarts: 1, ..prober });
        assert!(text.contains("nothing was asked of http://shop/, so nothing is known of its answers\n"), "{text}");
        assert!(text.contains("  not asked   3 times: shop:80: no such host\n"), "{text}");
        assert!(text.contains("  restarts    the prober began anew 1 times\n") && !text.contains("0 of 0"), "{text}");
    }

    #[test]
    fn what_needs_no_load_balancer_is_said_without_one() {
        let memory = "grew 2.0 MiB/min at most".to_owned();
        let text = one(&record(Some(ProofView { memory, ..ProofView::default() }))).to_text(Look::default());
        assert!(text.contains("no request was counted") && text.contains("  memory      grew 2.0 MiB/min"), "{text}");
    }

    #[test]
    fn nothing_counted_is_never_zero_failed() {
        for proof in [None, Some(ProofView::default())] {
            let list = RolloutList { rollouts: vec![record(proof.clone())] };
            let texts = [one(&record(proof)).to_text(Look::default()), table(&list).to_text(Look::default())];
            for text in texts {
                assert!(text.contains("no request was counted") || text.contains("not counted"), "{text}");
                assert!(!text.contains("0 failed"), "{text}");
            }
        }
    }

    #[test]
    fn what_nobody_counted_after_a_restart_is_named_and_nothing_is_said_to_have_no_failures() {
        let not_counted = "the counters of lb1 began anew once, and for up to 2s nobody counted".to_owned();
        let holed = |proof: ProofView, new_failed| {
            let record = record(Some(ProofView { new_requests: 812, new_failed, old_requests: 2_204, ..proof }));
            let list = table(&RolloutList { rollouts: vec![record.clone()] }).to_text(Look::default());
            (one(&record).to_text(Look::default()), list)
        };
        let told = ProofView { restarts: 1, not_counted: not_counted.clone(), ..ProofView::default() };
        // Of a coordinator that cannot tell which, and of a load balancer that could not be read at last.
        let untold = ProofView { restarts: 1, ..ProofView::default() };
        let unread = ProofView { not_counted: "the counters of lb1 could not be read at last".into(), ..untold.clone() };
        for proof in [told.clone(), untold.clone(), ProofView { restarts: 0, ..unread }] {
            let (text, list) = holed(proof.clone(), 0);
            assert!(text.contains("  3 016 requests seen by the load balancer, and more that nobody counted\n"), "{text}");
            assert!(!text.contains("0 failed"), "{text}");
            assert!(list.lines().nth(1).unwrap().contains("3 016      –        0"), "{list}");
            let (text, list) = holed(proof, 52);
            let said = "  at least 52 failed of at least 3 016 requests, and some that nobody counted\n";
            assert!(text.contains(said), "{text}");
            assert!(list.lines().nth(1).unwrap().contains("3 016      ≥ 52     0"), "{list}");
        }
        assert!(holed(told, 0).0.contains(&format!("  not counted {not_counted}\n")));
        assert!(holed(untold, 0).0.contains("  restarts    the counters began anew 1 times\n"));
    }

    #[test]
    fn the_guard_says_what_it_saw_and_what_it_would_have_caught() {
        let record = record(Some(counted()));
        let line = guard(record.rollout.as_ref().unwrap()).unwrap();
        assert_eq!(line, "2.1.0: 52 of 812 failed · 2.0.4: 1 of 2 204 · would have caught 1.8 % · notices 5 % within 40 s");
        assert_eq!(guard(&RolloutView { proof: Some(ProofView::default()), ..RolloutView::default() }), None);
    }
}
