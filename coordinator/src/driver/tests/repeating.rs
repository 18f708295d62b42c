//! Hosts repeat themselves: that makes no plan, but for what people see.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

static PLANS: AtomicUsize = AtomicUsize::new(0);

/// The planner, counted.
fn counted(fleet: &Fleet, now: Moment) -> Plan {
    PLANS.fetch_add(1, Ordering::SeqCst);
    plan(fleet, now)
}

#[tokio::test(start_paused = true)]
async fn a_report_that_says_nothing_new_makes_no_plan_and_one_that_does_makes_one_at_once() {
    let stage = Stage::on(Arc::default(), counted).await;
    stage.admit(&["web1"]).await;
    let (link, _specs) = stage.access.links().connect(&samples::host("web1"), Hello::default());
    let said = obeyed(&HostSpec::default());
    let plans_after = async |report: &HostReport| {
        let before = PLANS.load(Ordering::SeqCst);
        assert!(stage.access.links().report(&samples::host("web1"), link, report.clone()));
        tokio::time::sleep(Duration::from_millis(100)).await;
        PLANS.load(Ordering::SeqCst) - before
    };
    plans_after(&said).await;
    let mut plans = 0;
    for _ in 0..100 {
        plans += plans_after(&said).await;
    }
    assert!((8..=11).contains(&plans), "{plans} plans for a hundred repetitions in ten seconds");
    while plans_after(&said).await == 0 {}
    assert_eq!(plans_after(&said).await, 0, "what people see is fresh");
    assert_eq!(plans_after(&HostReport { boot: "another".into(), ..said.clone() }).await, 1);
}
