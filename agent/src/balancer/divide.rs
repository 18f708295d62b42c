//! How a pool divides its requests: when to change that, and what to say when it cannot be.

use super::driver::{Driver, Seen, SplitSeen};
use super::problem;
use baton_core::fleet::report::SplitReport;
use baton_core::fleet::spec::PoolSpec;
use baton_core::fleet::split::TrafficSplit;
use baton_core::name::PoolName;
use baton_core::problem::Problem;
use std::collections::BTreeMap;

/// Before the members change: a split has to be there before anybody on trial comes in, or a trial member would get the
/// share of a stable one. Comes back with the pools that cannot be divided so, and why.
pub(crate) async fn before<D: Driver>(
    driver: &mut D,
    pools: &BTreeMap<PoolName, PoolSpec>,
    seen: &Seen,
) -> Result<(bool, BTreeMap<PoolName, Problem>), Problem> {
    let mut changed = false;
    let mut problems = BTreeMap::new();
    for (name, spec) in pools.iter().filter(|(name, _)| matches!(seen.pools.get(*name), Some(Ok(_)))) {
        let Some(split) = &spec.split else { continue };
        if let Err(problem) = possible(driver, name, split) {
            problems.insert(name.clone(), problem);
        } else if !is_so(name, spec, seen) {
            driver.divide(name, Some(split)).await?;
            changed = true;
        }
    }
    Ok((changed, problems))
}

/// After the members changed: a split goes last, for the same reason. Says whether anything was changed.
pub(crate) async fn after<D: Driver>(
    driver: &mut D,
    pools: &BTreeMap<PoolName, PoolSpec>,
    seen: &Seen,
) -> Result<bool, Problem> {
    let mut changed = false;
    for (name, spec) in pools.iter().filter(|(_, spec)| spec.split.is_none()) {
        if matches!(seen.pools.get(name), Some(Ok(_))) && !is_so(name, spec, seen) {
            driver.divide(name, None).await?;
            changed = true;
        }
    }
    Ok(changed)
}

fn possible(driver: &impl Driver, pool: &PoolName, split: &TrafficSplit) -> Result<(), Problem> {
    let lacks = driver.lacks(pool, split);
    if lacks.is_empty() { Ok(()) } else { Err(problem::cannot_split(pool, &lacks)) }
}

/// Whether a pool divides its requests as it should.
pub(crate) fn is_so(pool: &PoolName, spec: &PoolSpec, seen: &Seen) -> bool {
    divides(seen.splits.get(pool), spec.split.as_ref())
}

fn divides(seen: Option<&SplitSeen>, wanted: Option<&TrafficSplit>) -> bool {
    seen.map_or((None, None), |seen| (seen.running.as_ref(), seen.on_disk.as_ref())) == (wanted, wanted)
}

/// What is said of the split, and why it is not the one asked for.
pub(crate) fn report(pool: &PoolName, spec: &PoolSpec, seen: Option<&SplitSeen>) -> (Option<SplitReport>, Option<Problem>) {
    let report = seen.and_then(|seen| {
        let split = seen.running.clone()?;
        let on_disk = seen.on_disk.as_ref() == Some(&split);
        Some(SplitReport { split, on_disk, stable: seen.stable, trial: seen.trial, ruled: seen.ruled })
    });
    let problem = (!divides(seen, spec.split.as_ref())).then(|| {
        let (running, on_disk) = seen.map_or((None, None), |seen| (seen.running.as_ref(), seen.on_disk.as_ref()));
        problem::split_not_taken(pool, &words(spec.split.as_ref()), &words(running), &words(on_disk))
    });
    (report, problem)
}

fn words(split: Option<&TrafficSplit>) -> String {
    split.map_or_else(|| "not divided".to_owned(), ToString::to_string)
}
