//! What somebody sees who asks through the load balancer while a rollout goes on.

use super::*;
use baton_core::analysis::probes::{Answer, Prober, Probes};
use baton_core::name::RolloutId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Two hosts behind a load balancer that is asked ten times a second, watched for this long.
fn shape(url: &str, bake: Duration) -> baton_core::fleet::Service {
    let mut shape = samples::behind(samples::service(&["web1", "web2"]), &["lb1"], "shop");
    shape.strategy.bake = bake;
    shape.strategy.prober = Some(Prober { target: url.parse().unwrap(), every: Duration::from_millis(100) });
    shape
}

fn probes(picture: &Picture, id: &str) -> Probes {
    picture.fleet.rollouts[&id.parse().unwrap()].judgement.proof.probes.clone()
}

async fn ended(stage: &Stage, id: &str) -> Arc<Picture> {
    let over = [RolloutState::Succeeded, RolloutState::Reverted, RolloutState::Paused];
    stage.until(|picture| state(picture, id).is_some_and(|state| over.contains(&state))).await
}

#[tokio::test]
async fn requests_through_the_balancer_are_counted_for_as_long_as_the_rollout_goes_on_and_no_longer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    // The third is answered badly, the fourth not at all.
    let answers = tokio::spawn(async move {
        for number in 1.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let status = if number == 3 { "502 Bad Gateway" } else { "200 OK" };
            let _ = stream.read(&mut [0; 1024]).await;
            if number != 4 {
                let _ = stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await;
            }
        }
    });
    let stage = Stage::new().await;
    stage.admit(&["web1", "web2", "lb1"]).await;
    let _agents = agents(&stage);
    let prober = tokio::spawn(crate::prober::run(stage.access.clone()));
    stage.access.ask(super::deploy(shape(&url, Duration::from_secs(1)), "1.0")).await.unwrap();
    let seen = probes(&*ended(&stage, "r-1").await, "r-1");
    assert!((5..=20).contains(&seen.asked), "{seen:?}");
    assert_eq!((seen.failed, seen.unasked, seen.restarts), (2, 0, 0), "{seen:?}");
    assert!(seen.last_failure.as_ref().unwrap().starts_with("connected, but no whole answer"), "{seen:?}");
    assert!(seen.longest_gap >= Duration::from_millis(200) && seen.longest_gap <= Duration::from_secs(1), "{seen:?}");
    let stored = stage.store.load().await.unwrap().rollouts.remove(&"r-1".parse().unwrap()).unwrap();
    assert_eq!(stored.judgement.proof.probes, seen);
    prober.abort();
    answers.abort();
}

fn tell(stage: &Stage, id: &str, answer: Answer) {
    stage.access.links().answered(&id.parse::<RolloutId>().unwrap(), answer);
}

#[tokio::test(start_paused = true)]
async fn what_the_prober_sees_counts_against_what_may_fail_but_not_before_there_was_anything_to_serve() {
    let bounded = |max_failed| {
        let mut shape = shape("http://127.0.0.1:9/", Duration::from_secs(3));
        shape.strategy.max_failed = max_failed;
        shape
    };
    let told = async |stage: &Stage, id: &str, shape, version| {
        stage.access.ask(super::deploy(shape, version)).await.unwrap();
        stage.until(|picture| state(picture, id).is_some()).await;
        (0..2).for_each(|_| tell(stage, id, Answer::Failed("answered 503".into())));
        ended(stage, id).await.fleet.rollouts[&id.parse().unwrap()].clone()
    };
    let stage = Stage::new().await;
    stage.admit(&["web1", "web2", "lb1"]).await;
    let _agents = agents(&stage);
    assert_eq!(told(&stage, "r-1", bounded(None), "1.0").await.state, RolloutState::Succeeded);
    let rollout = told(&stage, "r-2", bounded(Some(1)), "2.0").await;
    assert_eq!(rollout.evidence.iter().map(|it| it.problem.code).collect::<Vec<_>>(), [Code(903)], "{rollout:?}");
    let prober = rollout.evidence[0].problem.seen.iter().find(|(what, _)| what == "prober").unwrap();
    assert_eq!(prober.1, "2 of 2 failed, the last: answered 503");

    let first = Stage::new().await;
    first.admit(&["web1", "web2", "lb1"]).await;
    let _agents = super::agents(&first);
    let rollout = told(&first, "r-1", bounded(Some(1)), "1.0").await;
    assert!(rollout.evidence.is_empty() && rollout.judgement.proof.probes.failed == 2, "{rollout:?}");
}

#[tokio::test(start_paused = true)]
async fn a_prober_that_could_ask_nothing_proves_nothing_and_says_why() {
    let stage = Stage::new().await;
    stage.admit(&["web1", "web2", "lb1"]).await;
    let _agents = agents(&stage);
    stage.access.ask(super::deploy(shape("http://shop/", Duration::from_secs(3)), "1.0")).await.unwrap();
    stage.until(|picture| picture.fleet.rollouts.values().any(|rollout| rollout.wave_done.is_some())).await;
    // What a person holds only that word ends.
    let (service, by) = ("shop".parse::<baton_core::name::ServiceName>().unwrap(), "ana".to_owned());
    stage.access.ask(Ask::Pause { service: service.clone(), by: by.clone(), why: "lunch".into() }).await.unwrap();
    let promoted = stage.access.ask(Ask::Promote { service: service.clone(), by: by.clone() }).await;
    assert_eq!(promoted.unwrap_err().code, Code(728));
    stage.access.ask(Ask::Resume { service: service.clone(), by: by.clone() }).await.unwrap();
    tell(&stage, "r-1", Answer::Unasked("shop:80: no such host".into()));
    let picture = ended(&stage, "r-1").await;
    let pause = picture.fleet.rollouts[&"r-1".parse().unwrap()].pause.clone().unwrap();
    assert_eq!(
        pause.why,
        "the prober could ask nothing, so nothing is proven: shop:80: no such host; baton promote shop takes it so"
    );
    assert_eq!((probes(&picture, "r-1").asked, probes(&picture, "r-1").unasked), (0, 1));

    // To resume is to look again; to promote is to take it as it is.
    stage.access.ask(Ask::Resume { service: service.clone(), by: by.clone() }).await.unwrap();
    stage.until(|picture| state(picture, "r-1") == Some(RolloutState::Paused)).await;
    stage.access.ask(Ask::Promote { service, by }).await.unwrap();
    stage.until(|picture| state(picture, "r-1") == Some(RolloutState::Succeeded)).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_seen_before_the_coordinator_was_killed_is_kept_and_that_it_was_away_is_said() {
    let stage = Stage::new().await;
    stage.admit(&["web1", "web2", "lb1"]).await;
    let before = agents(&stage);
    stage.access.ask(super::deploy(shape("http://shop/", Duration::from_secs(30)), "1.0")).await.unwrap();
    stage.until(|picture| state(picture, "r-1").is_some()).await;
    [Answer::Good, Answer::Failed("answered 503".into())].into_iter().for_each(|answer| tell(&stage, "r-1", answer));
    stage.until(|picture| probes(picture, "r-1").asked > 0).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    stage.driver.abort();
    before.iter().for_each(JoinHandle::abort);

    let again = Stage::on(Arc::clone(&stage.store), plan).await;
    let _agents = agents(&again);
    tell(&again, "r-1", Answer::Good);
    let picture = again.until(|picture| probes(picture, "r-1").restarts > 0).await;
    let seen = probes(&picture, "r-1");
    assert_eq!((seen.asked, seen.failed, seen.restarts), (3, 1, 1), "{seen:?}");
}
