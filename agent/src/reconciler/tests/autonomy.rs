//! What a host decides by itself, without a coordinator.

use super::host::{self, Host, ready};
use baton_core::fleet::report::HostReport;
use baton_core::fleet::spec::{HostSpec, Restart};
use baton_core::release::Release;

/// A spec that wants `release`, and allows `fallback`.
fn spec(host: &Host, generation: u64, release: &Release, fallback: &Release) -> HostSpec {
    let mut spec = host.spec(generation, &[(release, Restart::Always)]);
    spec.releases.insert(fallback.id(), fallback.clone().into());
    spec.instances.iter_mut().for_each(|(_, instance)| instance.fallback = Some(fallback.id()));
    spec
}

fn serves(report: &HostReport, release: &Release) -> bool {
    ready(report) && report.instances.values().all(|instance| instance.release == release.id())
}

fn codes(report: &HostReport) -> Vec<u16> {
    report.problems.iter().map(|problem| problem.code.0).collect()
}

#[tokio::test]
async fn a_person_on_the_host_takes_a_release_back_and_that_outlives_the_agent() {
    let mut host = Host::new();
    let (v1, v2) = (host.release("v1", ""), host.release("v2", ""));
    let told = spec(&host, 1, &v2, &v1);
    host.send(&told);
    host.until("both held", |report| serves(report, &v2) && report.releases.len() == 2).await;
    assert_eq!(host.go_back("other").await.unwrap_err().code.0, 540);
    assert_eq!(host.go_back("shop").await.unwrap(), "v1");
    let back = host.until("v1", |report| serves(report, &v1)).await;
    assert_eq!(codes(&back), [216]);
    host.kill_agent();
    host.start_agent();
    let still = host.until("v1 again", |report| serves(report, &v1)).await;
    assert_eq!(host.instance(&still).incarnation, host.instance(&back).incarnation, "nothing was restarted");
    assert_eq!(codes(&still), [216]);
    // The same words again change nothing; another start is another matter.
    host.send(&HostSpec { generation: told.generation.next(), ..told.clone() });
    host.until("generation 2", |report| report.observed.generation.0 == 2 && serves(report, &v1)).await;
    let mut anew = HostSpec { generation: told.generation.next().next(), ..told };
    anew.instances.iter_mut().for_each(|(_, instance)| instance.start = 1);
    host.send(&anew);
    let after = host.until("v2", |report| serves(report, &v2)).await;
    assert!(codes(&after).is_empty());
}

#[tokio::test]
async fn a_committed_release_that_crash_loops_gives_way_to_the_one_before() {
    let mut host = Host::new();
    let (v1, bad) = (host.release("v1", ""), host.release("bad", "exit=1"));
    host.send(&spec(&host, 1, &bad, &v1));
    host.until("failed", host::failed).await;
    let report = host.until("v1", |report| serves(report, &v1)).await;
    assert_eq!(codes(&report), [216]);
    assert!(report.problems[0].seen[0].1.contains("exited"), "{report:?}");
}
