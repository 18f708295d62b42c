//! `kill -9` of the balancer at instants drawn by chance, over every strategy that keeps a service up.

use super::chance::Chance;
use super::{KillsArgs, Measured, part};
use crate::crash::Strategy;
use crate::crash::instants::{Death, Lived, Series};
use anyhow::{Context as _, ensure};
use baton_cli::demo::stage::{Front, Setup};
use futures_util::StreamExt as _;
use serde_json::json;
use std::io::Write as _;
use std::time::Duration;

const STRATEGIES: [Strategy; 4] = [Strategy::InPlace, Strategy::SideBySide, Strategy::BlueGreen, Strategy::Canary];

pub(super) async fn run(args: KillsArgs) -> anyhow::Result<Measured> {
    let fronts = if args.balancers.is_empty() { vec![Front::Haproxy, Front::Builtin] } else { args.balancers.clone() };
    let strategies = if args.strategies.is_empty() { STRATEGIES.to_vec() } else { args.strategies.clone() };
    ensure!(strategies.iter().all(|it| it.serves_throughout()), "that strategy stops the service by itself");
    let mut chance = Chance::new(args.seed);
    let mut all = Vec::new();
    for front in &fronts {
        for (index, strategy) in strategies.iter().enumerate() {
            let (shares, kills) = (strategies.len(), usize::from(args.kills));
            let mine = kills / shares + usize::from(index < kills % shares);
            let instants = (0..mine).map(|_| chance.unit()).collect();
            all.push(Series { front: *front, strategy: *strategy, instants });
        }
    }
    let series = all.into_iter().enumerate().map(|(index, series)| {
        // A network of its own: they run at once.
        lived(series, [127, 101, u8::try_from(index + 1).unwrap_or(u8::MAX)])
    });
    let series = futures_util::stream::iter(series).buffered(usize::from(args.jobs));
    let (mut done, mut broken) = (Vec::new(), Vec::new());
    for series in series.collect::<Vec<_>>().await {
        match series {
            Ok(lived) => done.push(lived),
            Err(error) => broken.push(format!("{error:#}")),
        }
    }
    Ok(measured(args.seed, &done, &broken))
}

async fn lived(series: Series, network: [u8; 3]) -> anyhow::Result<Lived> {
    let whose = format!("{} behind {}", series.strategy, series.front.name());
    let setup = Setup {
        network,
        healthy_for: Duration::from_millis(50),
        start_timeout: Duration::from_secs(10),
        drain: Duration::from_secs(10),
        ..Setup::new(part()?)
    };
    series.run(setup, told).await.context(whose)
}

/// A line for each death: a run takes many minutes.
fn told(series: &Series, death: &Death) {
    let state = death.ended.as_ref().map_or("no end", |ended| ended.state.as_str());
    let (front, strategy) = (series.front.name(), series.strategy);
    let mut line = format!("{front} · {strategy} · at {} ms · {state}, {} cut\n", death.at_ms, death.cut);
    death.violations.iter().for_each(|violation| line.push_str(&format!("  VIOLATION {violation}\n")));
    // Nobody reads it: nothing to do about it.
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

fn measured(seed: u64, series: &[Lived], broken: &[String]) -> Measured {
    let mut summary = "BALANCER  STRATEGY               DEATHS REQUESTS    CUT  OUT S STRAYS VIOLATIONS\n".to_owned();
    let (mut deaths, mut wrong, mut strays) = (0, 0, 0);
    for Lived { balancer, strategy, deaths: mine, requests, cut, out_seconds, strays: stray, .. } in series {
        let violations = mine.iter().filter(|death| !death.violations.is_empty()).count();
        let strategy = strategy.to_string();
        summary.push_str(&format!(
            "{balancer:<9} {strategy:<22} {:>6} {requests:>8} {cut:>6} {out_seconds:>6.1} {:>6} {violations:>10}\n",
            mine.len(),
            stray.len()
        ));
        deaths += mine.len();
        wrong += violations;
        strays += stray.len();
    }
    summary.push_str(&format!(
        "\nseed {seed}: {deaths} deaths of the balancer, {strays} requests at an instance that was out, \
         {wrong} deaths with something else that must not happen\n"
    ));
    broken.iter().for_each(|why| summary.push_str(&format!("error: {why}\n")));
    let document = json!({
        "seed": seed,
        "deaths": deaths,
        "strays": strays,
        "violations": wrong,
        "errors": broken,
        "series": series,
    });
    // Where no member was ever out, nobody could have met one.
    let watched = series.iter().all(|lived| lived.out_seconds > 0.0);
    Measured { document, summary, good: deaths > 0 && (wrong, strays) == (0, 0) && broken.is_empty() && watched }
}
