//! What every driver promises, whichever balancer is behind it.

use crate::rig::app;
use crate::rig::bench::{Bench, codes, member, places};
use crate::rig::front::Make;
use crate::rig::load::{self, Load};
use baton_core::fleet::report::MemberReport;
use baton_core::fleet::spec::MemberState::{Out, Ready};
use baton_core::name::PoolName;
use procfs::net::{TcpNetEntry, TcpState};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

/// Take-outs in one run: enough for a wrong condition to show, few enough for a test.
const CYCLES: usize = 12;

/// A pass that waits for something has many: the first ones are those that change something.
const MOST_TURNS: usize = 16;

/// Out, nothing in flight, `kill -9`, start, in again: and no client ever notices.
pub(crate) async fn no_request_fails_when_drained_members_are_killed(make: Make) {
    let places = places();
    let Some(front) = make(&places) else { return };
    let mut bench = Bench::serving(front, &places).await;
    let load = Load::start(bench.front.listen);
    for cycle in 0..CYCLES {
        let index = cycle % 2;
        bench.want(index, Out);
        bench.until("drained", |pool| member(pool, index).is_drained(Duration::from_secs(30))).await;
        bench.apps[index].kill();
        bench.apps[index].start();
        bench.want(index, Ready);
        bench.until("in again", |pool| member(pool, index).is_in()).await;
        let before = bench.apps[index].served();
        while bench.apps[index].served() < before + 5 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let report = bench.until("settled", |_| true).await;
    let tally = if bench.front.abilities.keeps_idle { load.stop().await } else { load.end().await };
    let failures = tally.failures.lock().expect("the tally").clone();
    // What a balancer that closes kept connections costs, and nothing beyond that.
    assert!(failures.iter().all(|failure| failure.contains(load::CLOSED_WHILE_KEPT)), "{failures:#?}");
    let in_hand: u64 = bench.apps.iter().map(|app| app.log.killed_with.load(Ordering::SeqCst)).sum();
    assert_eq!(in_hand, 0, "requests were in the hands of an application that was killed");
    let posts: Vec<u32> = bench
        .apps
        .iter()
        .flat_map(|app| app.log.posts.lock().expect("the log").values().copied().collect::<Vec<_>>())
        .collect();
    let executed =
        posts.iter().sum::<u32>() as u64 + failures.iter().filter(|failure| failure.contains("/post")).count() as u64;
    assert_eq!(executed, tally.posts.load(Ordering::SeqCst), "each POST once");
    assert!(posts.iter().all(|times| *times == 1));
    assert_eq!(report.members.values().map(|member| member.errors).sum::<u64>(), 0, "{report:#?}");
    assert!(report.members.values().all(|member| member.cut == 0), "{report:#?}");
    let enough = if bench.front.abilities.counts { 51 } else { 0 };
    assert!(report.members.values().all(|member| member.requests >= enough), "{report:#?}");
}

/// `kill -9` of the balancer with both in, with one out, with one out and killed, and right after it came in again: what comes
/// back serves what was served.
pub(crate) async fn killed_at_any_step_the_balancer_comes_back_as_it_was(make: Make) {
    let places = places();
    let Some(front) = make(&places) else { return };
    let mut bench = Bench::serving(front, &places).await;
    for (state, alive) in [(Ready, true), (Out, true), (Out, false), (Ready, true)] {
        if alive && state == Ready {
            bench.apps[0].start_again();
        }
        bench.want(0, state);
        let settled =
            |pool: &_| if state == Out { member(pool, 0).is_drained(Duration::MAX) } else { member(pool, 0).is_in() };
        let before = bench.until("settled", |pool| settled(pool) && member(pool, 1).is_in()).await;
        if !alive {
            bench.apps[0].kill();
        }
        bench.front.kill(&before.balancer);
        let served = bench.apps[0].served();
        bench.front.start();
        if bench.front.abilities.starts_itself {
            // By a driver that knows nothing of the past: the proxy comes with its file.
            bench.restart_agent();
            bench.until("started", |pool| pool.problem.is_none()).await;
        }
        for _ in 0..30 {
            load::get(&mut None, bench.front.listen, "/", None).await.expect("a member serves");
        }
        let got = bench.apps[0].served() - served;
        assert!(if state == Out { got == 0 } else { got > 0 }, "{state:?}, and it got {got} requests");
        let after = bench.until("as it was", |pool| settled(pool) && member(pool, 1).is_in()).await;
        assert_ne!(before.balancer, after.balancer);
        assert_eq!(codes(&after), Vec::<u16>::new());
    }
}

/// The pass that takes a member out, or puts it in, ends after each of its turns, and another agent goes on: between what is on disk and
/// what was told, for example. Who is out by its word gets nothing.
pub(crate) async fn an_agent_that_ends_in_the_middle_of_a_pass_leaves_nothing_that_is_not_so(make: Make) {
    let places = places();
    let Some(front) = make(&places) else { return };
    let mut bench = Bench::serving(front, &places).await;
    let load = Load::start(bench.front.listen);
    for turns in 1..=MOST_TURNS {
        bench.want(0, Out);
        let mut through = bench.ends_after(turns).await;
        bench.until("drained", |pool| member(pool, 0).is_drained(Duration::MAX)).await;
        bench.apps[0].kill();
        bench.apps[0].start();
        bench.want(0, Ready);
        through &= bench.ends_after(turns).await;
        let after = bench.until("in again", |pool| member(pool, 0).is_in() && member(pool, 1).is_in()).await;
        assert_eq!(codes(&after), Vec::<u16>::new());
        if through {
            break;
        }
    }
    let tally = if bench.front.abilities.keeps_idle { load.stop().await } else { load.end().await };
    let failures = tally.failures.lock().expect("the tally").clone();
    assert!(failures.iter().all(|failure| failure.contains(load::CLOSED_WHILE_KEPT)), "{failures:#?}");
    let in_hand: u64 = bench.apps.iter().map(|app| app.log.killed_with.load(Ordering::SeqCst)).sum();
    assert_eq!(in_hand, 0, "requests were in the hands of an application that was killed");
}

/// A member whose application does not answer stays out, says why, and comes in as soon as it does.
pub(crate) async fn a_member_that_does_not_answer_is_never_put_in(make: Make) {
    let places = places();
    let Some(front) = make(&places) else { return };
    let mut bench = Bench::new(front, &places);
    bench.apps[0].kill();
    bench.want(0, Ready);
    bench.want(1, Ready);
    let report = bench.until_problem(409).await;
    assert!(member(&report, 0).is_out() && member(&report, 1).is_in(), "{report:#?}");
    for _ in 0..20 {
        load::get(&mut None, bench.front.listen, "/", None).await.expect("the other member serves");
    }
    bench.apps[0].start();
    let report = bench.until("in", |pool| member(pool, 0).is_in()).await;
    assert_eq!(codes(&report), Vec::<u16>::new());
}

/// Who is asked to go stays as long as the one who is to come does not answer.
pub(crate) async fn nobody_goes_out_when_nobody_would_be_left(make: Make) {
    let places = places();
    let Some(front) = make(&places) else { return };
    let mut bench = Bench::new(front, &places);
    bench.want(0, Ready);
    bench.until("in", |pool| member(pool, 0).is_in()).await;
    bench.apps[1].kill();
    bench.want(0, Out);
    bench.want(1, Ready);
    let report = bench.until_problem(418).await;
    assert!(member(&report, 0).is_in() && member(&report, 1).is_out(), "{report:#?}");
    load::get(&mut None, bench.front.listen, "/", None).await.expect("an answer");
    bench.apps[1].start();
    bench.until("exchanged", |pool| member(pool, 0).is_drained(Duration::MAX) && member(pool, 1).is_in()).await;
}

/// A stream that never ends holds a drain until its deadline; then it is cut, and counted.
pub(crate) async fn the_deadline_of_a_drain_cuts_and_counts(make: Make) {
    let places = places();
    let Some(front) = make(&places) else { return };
    let mut bench = Bench::new(front, &places);
    let deadline = Duration::from_millis(700);
    bench.pool().drain_deadline = deadline;
    bench.want(0, Ready);
    bench.until("in", |pool| member(pool, 0).is_in()).await;
    let mut first = load::open_tunnel(bench.front.listen).await.expect("a tunnel");
    let mut second = load::open_tunnel(bench.front.listen).await.expect("a tunnel");
    bench.want(0, Out);
    let held = bench.until("out", |pool| member(pool, 0).is_out()).await;
    assert_eq!(member(&held, 0).cut, 0);
    let began = Instant::now();
    bench.until("both are held", |pool| member(pool, 0).in_flight == 2 && member(pool, 0).cut == 0).await;
    let cut = bench.until("cut", |pool| member(pool, 0).cut > 0 && member(pool, 0).in_flight == 0).await;
    assert!(began.elapsed() + Duration::from_millis(100) >= deadline, "cut after {:?}", began.elapsed());
    assert_eq!(member(&cut, 0).cut, 2);
    assert!(first.read_u8().await.is_err() && second.read_u8().await.is_err(), "the streams are over");
    // The next time out it starts from zero.
    bench.want(0, Ready);
    bench.until("in", |pool| member(pool, 0).is_in()).await;
    bench.want(0, Out);
    let again = bench.until("out", |pool| member(pool, 0).is_out()).await;
    assert_eq!(member(&again, 0).cut, 0);
}

/// A member that is no longer in the spec is not routed to, by an agent that knows of it from its own notes only.
pub(crate) async fn a_member_that_vanished_from_the_spec_goes_out(make: Make) {
    let places = places();
    let Some(front) = make(&places) else { return };
    let mut bench = Bench::serving(front, &places).await;
    bench.restart_agent();
    let gone = "web0/0".parse().expect("a key");
    bench.pool().members.remove(&gone);
    bench.until("settled", |pool| pool.problem.is_none()).await;
    let served = bench.apps[0].served();
    for _ in 0..20 {
        load::get(&mut None, bench.front.listen, "/", None).await.expect("the other member serves");
    }
    assert_eq!(bench.apps[0].served(), served);
}

/// Put in by hand, taken out by hand: neither lasts, and neither is believed.
pub(crate) async fn what_somebody_changes_by_hand_is_seen_and_set_right(make: Make) {
    let places = places();
    let Some(front) = make(&places) else { return };
    let mut bench = Bench::serving(front, &places).await;
    bench.want(0, Out);
    bench.until("out", |pool| member(pool, 0).is_out()).await;
    bench.front.program.by_hand(places[0], Ready);
    bench.front.program.by_hand(places[1], Out);
    bench.apps[0].until_served(bench.front.listen).await;
    let right = |pool: &_| member(pool, 0).is_drained(Duration::MAX) && member(pool, 1).is_in() && codes(pool).is_empty();
    let report = bench.until("set right", right).await;
    let times = |index| member(&report, index).corrected.as_deref().map(|it| it.times);
    assert_eq!([times(0), times(1)], [Some(1), Some(1)], "{report:#?}");
    let served = bench.apps[0].served();
    for _ in 0..20 {
        load::get(&mut None, bench.front.listen, "/", None).await.expect("the other member serves");
    }
    assert_eq!(bench.apps[0].served(), served);
}

/// Where the agent is to leave it, it stays, is said, and outlives the agent; until something else is asked of that member.
pub(crate) async fn what_somebody_changes_by_hand_is_left_alone_where_that_is_the_policy(make: Make) {
    let places = places();
    let Some(mut front) = make(&places) else { return };
    front.leaves_drift();
    let mut bench = Bench::serving(front, &places).await;
    bench.front.program.by_hand(places[1], Out);
    let is_left = |pool: &_| codes(pool) == [450] && member(pool, 1).running != Ready && member(pool, 0).is_in();
    bench.until("left out", is_left).await;
    bench.restart_agent();
    for _ in 0..5 {
        bench.until("still left out", is_left).await;
    }
    let served = bench.apps[1].served();
    for _ in 0..20 {
        load::get(&mut None, bench.front.listen, "/", None).await.expect("the other member serves");
    }
    assert_eq!(bench.apps[1].served(), served);

    // The fleet asks something else of it: that is done.
    bench.want(1, Out);
    bench.until("out", |pool| member(pool, 1).is_out() && codes(pool).is_empty()).await;
    bench.want(1, Ready);
    bench.until("in", |pool| member(pool, 1).is_in() && codes(pool).is_empty()).await;

    // One that was put in by hand is no drained one.
    bench.want(0, Out);
    bench.until("drained", |pool| member(pool, 0).is_drained(Duration::MAX) && codes(pool).is_empty()).await;
    bench.front.program.by_hand(places[0], Ready);
    let pool = bench.until("left in", |pool| codes(pool) == [450] && member(pool, 0).running == Ready).await;
    assert!(!member(&pool, 0).is_drained(Duration::MAX), "{pool:?}");
}

/// What is asked of one pool changes nothing in another, and each is served by its own members.
pub(crate) async fn two_pools_do_not_meet(make: Make) {
    let places = places();
    let Some(front) = make(&places) else { return };
    let mut bench = Bench::serving(front, &places[..2]).await;
    let till: PoolName = "till".parse().expect("a name");
    let mut second = bench.pool().clone();
    let keys: Vec<_> = second.members.keys().cloned().collect();
    second.members.remove(&keys[0]);
    bench.pools.insert(till.clone(), second);
    bench.until_both("till serves", |shop, till| shop.members.len() == 2 && member(till, 1).is_in()).await;
    bench.want(1, Out);
    let pools = bench.until_both("out of one", |shop, till| member(shop, 1).is_out() && member(till, 1).is_in()).await;
    assert!(pools.values().all(|pool| codes(pool).is_empty()), "{pools:#?}");
    let served = [bench.apps[0].served(), bench.apps[1].served()];
    for _ in 0..10 {
        load::get(&mut None, bench.front.listen, "/", None).await.expect("shop serves");
        load::get(&mut None, bench.front.till, "/", None).await.expect("till serves");
    }
    assert_eq!([bench.apps[0].served(), bench.apps[1].served()], [served[0] + 10, served[1] + 10]);
}

/// A connection kept for later that the application closed meanwhile costs nobody a request, POSTs least of all.
pub(crate) async fn a_connection_the_application_closed_while_idle_is_not_used(make: Make) {
    let places = places();
    let Some(front) = make(&places) else { return };
    let mut bench = Bench::new(front, &places);
    bench.apps[0].kill();
    let closing = app::closing_idle_connections(places[0]).await;
    bench.want(0, Ready);
    bench.until("in", |pool| member(pool, 0).is_in()).await;
    let mut connection = None;
    for turn in 0..30u32 {
        let post = (turn % 2 == 0).then(|| turn.to_string());
        load::get(&mut connection, bench.front.listen, "/", post).await.expect("an answer");
        let closed = closing.connections_closed(turn + 1).await;
        assert!(closed > turn, "the application closes each connection once it is idle");
        // A balancer that was told a microsecond ago may still have another thread send on it: no driver's doing.
        until_nobody_keeps_one_to(places[0]).await;
    }
    let requests = if bench.front.abilities.counts { 30 } else { 0 };
    // Some balancers count only after they have answered.
    let report = bench.until("counted", |pool| member(pool, 0).requests >= requests).await;
    assert_eq!((member(&report, 0).requests, member(&report, 0).errors), (requests, 0));
}

/// Waits until the balancer has let go of every connection that the other end closed.
async fn until_nobody_keeps_one_to(address: SocketAddr) {
    // That one is closed may still be on its way to the balancer.
    let kept = [TcpState::Established, TcpState::CloseWait];
    let closed = |entry: &TcpNetEntry| entry.remote_address == address && kept.contains(&entry.state);
    let deadline = Instant::now() + Duration::from_secs(5);
    while procfs::net::tcp().expect("the socket table").iter().any(closed) {
        assert!(Instant::now() < deadline, "a closed connection is kept");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A member that died is found out by a refused connection, with nothing sent: the request goes to another.
pub(crate) async fn a_request_that_was_not_sent_goes_to_another_member(make: Make) {
    let places = places();
    let Some(front) = make(&places) else { return };
    let mut bench = Bench::serving(front, &places).await;
    let mut connection = None;
    for turn in 0..40u32 {
        if turn == 10 {
            bench.apps[0].kill();
            // What is kept from before is gone: a request that finds it closed only while it is sent is another matter.
            until_nobody_keeps_one_to(places[0]).await;
        }
        let post = (turn % 2 == 0).then(|| turn.to_string());
        load::get(&mut connection, bench.front.listen, "/", post).await.expect("an answer");
    }
}

/// A megabyte each way arrives as it was sent, with its length told before and without.
pub(crate) async fn bodies_pass_whole(make: Make) {
    let places = places();
    let Some(front) = make(&places) else { return };
    let mut bench = Bench::new(front, &places);
    bench.want(0, Ready);
    bench.until("in", |pool| member(pool, 0).is_in()).await;
    let body: Vec<u8> = (0..1_000_003u32).map(|index| (index % 251) as u8).collect();
    let told = load::echo(bench.front.listen, body.clone(), load::Length::Told).await.expect("an answer");
    let untold = load::echo(bench.front.listen, body.clone(), load::Length::Untold).await.expect("an answer");
    assert!(told == body && untold == body, "{} and {} of {} bytes", told.len(), untold.len(), body.len());
}

/// What an application answers 5xx is an error of the member, and is passed on.
pub(crate) async fn errors_are_counted_where_they_happen(make: Make) {
    let places = places();
    let Some(front) = make(&places) else { return };
    let mut bench = Bench::new(front, &places);
    bench.want(0, Ready);
    bench.until("in", |pool| member(pool, 0).is_in()).await;
    for path in ["/", "/broken", "/", "/broken"] {
        let answer = load::get(&mut None, bench.front.listen, path, None).await;
        assert_eq!(answer.is_err_and(|failure| failure.contains("500")), path == "/broken");
    }
    let expected = if bench.front.abilities.counts { (4, 2) } else { (0, 0) };
    let report = bench.until("counted", |pool| member(pool, 0).requests >= expected.0).await;
    assert_eq!((member(&report, 0).requests, member(&report, 0).errors), expected);
}

/// Weights are shares, and change while it serves.
pub(crate) async fn weights_are_shares(make: Make) {
    let places = places();
    let Some(front) = make(&places) else { return };
    let mut bench = Bench::serving(front, &places).await;
    bench.pool().members.values_mut().next().expect("a member").weight = 3;
    let report = bench.until("settled", |_| true).await;
    assert!(report.members.values().all(MemberReport::is_in) && codes(&report).is_empty(), "{report:#?}");
    let before = [bench.apps[0].served(), bench.apps[1].served()];
    for _ in 0..40 {
        load::get(&mut None, bench.front.listen, "/", None).await.expect("an answer");
    }
    let shares = [bench.apps[0].served() - before[0], bench.apps[1].served() - before[1]];
    assert!(shares[0].abs_diff(30) <= 2, "{shares:?}");
}

/// A member that comes in gets more with each step, also from an agent that was restarted meanwhile, and all in the end.
pub(crate) async fn a_member_that_comes_in_gets_its_share_slowly(make: Make) {
    let places = places();
    let Some(front) = make(&places) else { return };
    let mut bench = Bench::new(front, &places);
    bench.pool().slow_start = Duration::from_millis(1500);
    bench.pool().members.values_mut().for_each(|member| member.weight = 100);
    bench.want(0, Ready);
    let alone = bench.until("the first is in", |pool| member(pool, 0).is_in()).await;
    assert_eq!(member(&alone, 0).full_in, None, "nobody else has more");
    // Its time is over: it is as warm as can be.
    let begun = Instant::now();
    bench.until("it is warm", |_| begun.elapsed() > Duration::from_millis(1500)).await;
    bench.want(1, Ready);
    let coming = bench.until("the second is in", |pool| member(pool, 1).is_in()).await;
    assert!(codes(&coming).is_empty() && member(&coming, 0).full_in.is_none(), "{coming:#?}");
    assert!(member(&coming, 1).full_in.is_some(), "said with the first word that it is in: {coming:#?}");
    let first = second_of(&bench, 60).await;
    assert!((1..=18).contains(&first), "{first} of 60");
    let left = member(&coming, 1).full_in.expect("a time");
    bench.restart_agent();
    let now = member(&bench.pass().await, 1).full_in;
    // Read from its weight, it may be at most a step younger than it is.
    assert!(now.is_some_and(|now| now <= left + Duration::from_millis(170)), "{now:?} after {left:?}");
    let grown = bench.until("it has its share", |pool| member(pool, 1).full_in.is_none()).await;
    assert!(codes(&grown).is_empty(), "{grown:#?}");
    let last = second_of(&bench, 40).await;
    assert!(last.abs_diff(20) <= 2, "{last} of 40");
}

/// How many of so many requests the second application gets.
async fn second_of(bench: &Bench, requests: u64) -> u64 {
    let before = bench.apps[1].served();
    for _ in 0..requests {
        load::get(&mut None, bench.front.listen, "/", None).await.expect("an answer");
    }
    bench.apps[1].served() - before
}
