//! Whatever a load balancer says, nothing is passed without evidence, nothing is proven that was not counted, and nothing breaks.

use super::super::judgement::{Judgement, Settings};
use super::super::meters::{Meters, Whose};
use super::super::settings::{GateSettings, GuardSettings, NotEnough, Sources};
use crate::fleet::MemberKey;
use crate::fleet::report::{MemberReport, PoolReport};
use crate::fleet::spec::MemberState;
use crate::problem::{Code, Problem};
use crate::time::Moment;
use std::time::Duration;

const GUARD: GuardSettings =
    GuardSettings { alpha_ppm: 10_000, ratio_percent: 120, margin_ppm: 1_000, memory: true, sources: Sources::NONE };
const GATE: GateSettings =
    GateSettings { rule_out_ppm: 10_000, max_wait: Duration::ZERO, on_not_enough_data: NotEnough::Pause };

/// What a balancer says at a look: its process, and requests and failures of each member. No process: it cannot be asked.
type Said = (String, Vec<(&'static str, u64, u64)>);
type Says = fn(u64) -> Said;

const NEW: &str = "web1/1";
const OLD: &str = "web2/0";
const LOOKS: u64 = 300;

fn one(requests: fn(u64) -> u64) -> impl Fn(u64) -> Said {
    move |look| ("p".into(), vec![(NEW, requests(look), 0), (OLD, requests(look), 0)])
}

fn judged(says: impl Fn(u64) -> Said, at: fn(u64) -> u64) -> Judgement {
    let (mut meters, mut judgement) = (Meters::default(), Judgement::default());
    let whose = |member: &MemberKey| Some(if member.to_string() == NEW { Whose::New } else { Whose::Old });
    for look in 0..LOOKS {
        let (balancer, members) = says(look);
        let problem = balancer.is_empty().then(|| Problem::new(Code(1), "the balancer cannot be asked"));
        let member = |(key, requests, errors): (&str, u64, u64)| {
            (key.parse().unwrap(), MemberReport { requests, errors, ..MemberReport::quiet(MemberState::Ready) })
        };
        let members = members.into_iter().map(member).collect();
        meters.read(
            &"lb1".parse().unwrap(),
            &PoolReport { balancer, problem, members, ..PoolReport::default() },
            Moment(at(look)),
            whose,
        );
        let settings = Settings { guard: &GUARD, gate: Some(&GATE), on_trial: true, alone: false };
        judgement.look(settings, &meters.take(), Moment(at(look)));
        assert_eq!(judgement.verdict("2", "1"), None, "look {look}");
    }
    judgement
}

const fn steadily(look: u64) -> u64 {
    look * 2000
}

#[test]
fn what_a_balancer_counts_well_passes() {
    let judgement = judged(one(|look| look * 40), steadily);
    assert_eq!((judgement.missing(&GATE), judgement.proof.restarts), (None, 0));
    assert_eq!(judgement.proof.all().map(|all| all.errors), Some(0));
}

#[test]
fn nothing_that_a_balancer_counts_badly_passes_or_proves_anything() {
    let cases: [(&str, Says, bool); 9] = [
        // Who says so: nothing is counted of the new release; or that counters began anew.
        ("no traffic", |_| ("p".into(), vec![(NEW, 9, 0), (OLD, 9, 0)]), false),
        ("no traffic of the new release", |look| ("p".into(), vec![(NEW, 9, 0), (OLD, look * 40, 0)]), false),
        ("counters go back", |look| ("p".into(), vec![(NEW, 90_000 - look * 40, 0), (OLD, look * 40, 0)]), true),
        ("failures go back", |look| ("p".into(), vec![(NEW, look * 40, 900 - look), (OLD, look * 40, 0)]), true),
        ("it restarts all the time", |look| (look.to_string(), vec![(NEW, look * 40, 0), (OLD, look * 40, 0)]), true),
        ("it cannot be asked", |look| (String::new(), vec![(NEW, look * 40, 0), (OLD, look * 40, 0)]), false),
        ("its members are gone", |look| ("p".into(), if look > 0 { vec![] } else { vec![(NEW, 9, 0), (OLD, 9, 0)] }), false),
        (
            "the new member is gone",
            |look| ("p".into(), if look > 0 { vec![(OLD, look * 40, 0)] } else { vec![(NEW, 9, 0), (OLD, 9, 0)] }),
            false,
        ),
        (
            "the new member comes and goes, and begins anew each time",
            |look| {
                let both = vec![(NEW, 90_000 - look * 40, 0), (OLD, look * 40, 0)];
                ("p".into(), if look.is_multiple_of(2) { both } else { vec![(OLD, look * 40, 0)] })
            },
            true,
        ),
    ];
    let mut wrong = Vec::new();
    for (name, says, anew) in cases {
        let judgement = judged(says, steadily);
        let (has, needs) = judgement.missing(&GATE).unwrap_or_default();
        let said = if anew { judgement.proof.restarts > 0 } else { judgement.proof.restarts == 0 };
        let claims = judgement.proof.unproven().is_none() && name != "no traffic of the new release";
        if (has, needs > 0, judgement.proof.new.requests, said, claims) != (0, true, 0, true, false) {
            wrong.push(format!("{name}: {has} of {needs}, {:?}", judgement.proof));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_member_that_comes_and_goes_is_counted_whole() {
    let judgement = judged(
        |look| {
            let both = vec![(NEW, look * 40, 0), (OLD, look * 40, 0)];
            ("p".into(), if look.is_multiple_of(2) { both } else { vec![(OLD, look * 40, 0)] })
        },
        steadily,
    );
    assert_eq!((judgement.missing(&GATE), judgement.proof.new.requests), (None, (LOOKS - 2) * 40));
}

#[test]
fn a_clock_that_jumps_is_neither_traffic_nor_a_look_that_breaks() {
    let jumps: fn(u64) -> u64 = |look| [u64::MAX, 0, 5000, u64::MAX - 1][look as usize % 4];
    let nothing = judged(one(|_| 9), jumps);
    assert_eq!((nothing.missing(&GATE).map(|(has, _)| has), nothing.proof.all()), (Some(0), None));
    let counted = judged(one(|look| look * 40), jumps);
    assert_eq!(counted.proof.new.requests, (LOOKS - 1) * 40, "what was counted is counted, whenever that was");
}

#[test]
fn numbers_that_cannot_be_break_nothing_and_pass_nothing() {
    let absurd = judged(|look| ("p".into(), vec![(NEW, look, u64::MAX), (OLD, u64::MAX - look, 0)]), steadily);
    assert!(absurd.missing(&GATE).is_some(), "{:?}", absurd.proof);
}
