//! Artifacts that nobody comes back to: they go, so that the disk does not fill with every release there ever was.
//!
//! What something runs, or may be brought to without a new deploy, stays whatever its age; of the others each service keeps the
//! newest. A file that was uploaded or asked for lately stays, too: a deploy may be about to name it.

use super::Folder;
use crate::driver::Access;
use crate::upgrades::Upgrades;
use baton_core::fleet::Fleet;
use baton_core::name::{Digest, ReleaseId, ServiceName};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

/// Between two looks, and before the first one: until then every host that is there was heard, and a store that is older than
/// its fleet has been found out.
const EVERY: Duration = Duration::from_secs(3600);
/// What was uploaded or asked for since then stays.
const YOUNG: Duration = Duration::from_secs(24 * 3600);

/// Looks after the folder for ever.
pub async fn tend(access: Access, folder: Folder, keep: usize, upgrades: Upgrades) {
    loop {
        tokio::time::sleep(EVERY).await;
        let (picture, folder) = (access.picture(), folder.clone());
        let package = upgrades.needs();
        let swept = tokio::task::spawn_blocking(move || sweep(&picture.fleet, &folder, keep, package, SystemTime::now()));
        if let Ok(Err(error)) = swept.await {
            tracing::warn!(%error, "artifacts that are not needed any more cannot be removed");
        }
    }
}

/// Removes what is not needed; returns what it was.
fn sweep(
    fleet: &Fleet,
    folder: &Folder,
    keep: usize,
    package: Option<Digest>,
    now: SystemTime,
) -> std::io::Result<Vec<Digest>> {
    // A restored coordinator does not know yet what is needed.
    if fleet.fenced().is_some() {
        return Ok(Vec::new());
    }
    let ages = folder.ages(now)?;
    let mut kept = kept(fleet, &ages, keep);
    kept.extend(package);
    let old = ages.into_iter().filter(|(digest, age)| *age > YOUNG && !kept.contains(digest));
    let mut removed = Vec::new();
    for (digest, _) in old {
        folder.forget(digest)?;
        tracing::info!(artifact = %digest.short(), "removed: nothing needs it any more");
        removed.push(digest);
    }
    Ok(removed)
}

/// The artifacts that stay: those in use, and of each service the newest others.
fn kept(fleet: &Fleet, ages: &BTreeMap<Digest, Duration>, keep: usize) -> BTreeSet<Digest> {
    let artifact = |id: &ReleaseId| Some(fleet.releases.get(id)?.artifact.digest);
    let mut kept: BTreeSet<Digest> = in_use(fleet).iter().filter_map(artifact).collect();
    let mut others: BTreeMap<&ServiceName, BTreeSet<(Duration, Digest)>> = BTreeMap::new();
    for release in fleet.releases.values().filter(|release| !kept.contains(&release.artifact.digest)) {
        if let Some(age) = ages.get(&release.artifact.digest) {
            others.entry(&release.service).or_default().insert((*age, release.artifact.digest));
        }
    }
    kept.extend(others.into_values().flat_map(|of_service| of_service.into_iter().take(keep)).map(|(_, digest)| digest));
    kept
}

/// Every release that something runs, is told to run, or is brought back to by itself or with a word.
fn in_use(fleet: &Fleet) -> BTreeSet<ReleaseId> {
    let services = fleet.services.values().flat_map(|service| {
        let orders = &service.orders;
        let kept = orders.kept.values().map(|kept| kept.release);
        let queued = orders.queue.iter().map(|queued| queued.release);
        let warm = service.warm.as_ref().map(|warm| warm.release);
        service.committed.into_iter().chain(service.previous).chain(warm).chain(kept).chain(queued)
    });
    let rollouts = fleet.rollouts.values().flat_map(|rollout| rollout.from.into_iter().chain([rollout.to]));
    let hosts = fleet.hosts.values().flat_map(|host| {
        let told = host.issued.instances.values().map(|instance| instance.release);
        host.issued.releases.keys().copied().chain(told)
    });
    services.chain(rollouts).chain(hosts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use baton_core::release::Release;
    use std::fs::File;

    fn day(days: u64) -> Duration {
        Duration::from_secs(days * 24 * 3600)
    }

    /// A folder with an artifact for each release, the first the oldest: as many days as there are releases.
    fn stored(releases: &[Release]) -> (tempfile::TempDir, Folder) {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::open(&temporary.path().join("artifacts")).unwrap();
        for (nth, release) in releases.iter().enumerate() {
            let file = File::create(folder.whole(release.artifact.digest)).unwrap();
            file.set_modified(SystemTime::now() - day((releases.len() - nth) as u64) - day(1)).unwrap();
        }
        (temporary, folder)
    }

    fn releases(service: &str, count: usize) -> Vec<Release> {
        let release = |nth: usize| {
            let mut release = samples::release(service, &format!("{nth}.0"));
            release.artifact.digest = Digest::of(format!("{service} {nth}").as_bytes());
            release
        };
        (0..count).map(release).collect()
    }

    fn swept(fleet: &Fleet, folder: &Folder, keep: usize) -> BTreeSet<Digest> {
        sweep(fleet, folder, keep, None, SystemTime::now()).unwrap().into_iter().collect()
    }

    #[test]
    fn what_is_live_or_a_way_back_stays_however_old_and_of_the_others_the_newest() {
        let releases = releases("shop", 6);
        let (_temporary, folder) = stored(&releases);
        let mut fleet = Fleet::default();
        let mut service = samples::service(&["web1"]);
        (service.previous, service.committed) = (Some(releases[0].id()), Some(releases[1].id()));
        fleet.services.insert("shop".parse().unwrap(), service);
        fleet.releases.extend(releases.iter().map(|release| (release.id(), release.clone().into())));
        let digests = |which: &[usize]| which.iter().map(|nth| releases[*nth].artifact.digest).collect::<BTreeSet<_>>();
        assert_eq!(swept(&fleet, &folder, 2), digests(&[2, 3]));
        assert_eq!(swept(&fleet, &folder, 2), BTreeSet::new(), "once is enough");
        assert_eq!(swept(&fleet, &folder, 0), digests(&[4, 5]));
        assert!(folder.stat(releases[0].artifact.digest).unwrap().complete);
    }

    #[test]
    fn what_is_of_no_release_goes_when_it_is_old_and_what_was_just_asked_for_stays() {
        let releases = releases("shop", 2);
        let (_temporary, folder) = stored(&releases);
        File::options()
            .append(true)
            .open(folder.whole(releases[0].artifact.digest))
            .unwrap()
            .set_modified(SystemTime::now())
            .unwrap();
        assert_eq!(swept(&Fleet::default(), &folder, 10), BTreeSet::from([releases[1].artifact.digest]));
    }

    #[test]
    fn behind_a_fence_nothing_goes() {
        let releases = releases("shop", 2);
        let (_temporary, folder) = stored(&releases);
        let fence = baton_core::fleet::fence::Fence { stands: true, ..Default::default() };
        let fleet = Fleet { fence: Some(fence), ..Fleet::default() };
        assert_eq!(swept(&fleet, &folder, 0), BTreeSet::new());
    }
}
