//! Asks through the load balancer, at a steady rate, for as long as a rollout that wants it goes on.
//!
//! It decides nothing: what comes back is left with the driver, which counts it.

use crate::driver::Access;
use crate::outgoing::{self, TIMEOUT, Unreached};
use baton_core::analysis::probes::{Answer, Prober, Target};
use baton_core::fleet::Fleet;
use baton_core::name::RolloutId;
use http_body_util::BodyExt;
use hyper::body::Bytes;
use std::collections::BTreeMap;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Requests of one rollout that wait for their answers; the shortest interval and the timeout leave room.
const MOST: usize = 64;
/// How much of an answer is read.
const BODY_MAX: usize = 64 * 1024;

/// Asks for ever.
pub(crate) async fn run(access: Access) {
    let mut pictures = access.pictures();
    let mut asking: BTreeMap<RolloutId, JoinSet<()>> = BTreeMap::new();
    loop {
        let wanted = wanted(&pictures.borrow_and_update().fleet);
        // What is dropped asks no more.
        asking.retain(|rollout, _| wanted.contains_key(rollout));
        for (rollout, prober) in wanted {
            asking.entry(rollout.clone()).or_insert_with(|| {
                let mut tasks = JoinSet::new();
                tasks.spawn(ask_steadily(access.clone(), rollout, prober));
                tasks
            });
        }
        if pictures.changed().await.is_err() {
            return;
        }
    }
}

fn wanted(fleet: &Fleet) -> BTreeMap<RolloutId, Prober> {
    let active = fleet.rollouts.values().filter(|rollout| rollout.state.is_active());
    active.filter_map(|rollout| Some((rollout.id.clone(), rollout.strategy.prober.clone()?))).collect()
}

async fn ask_steadily(access: Access, rollout: RolloutId, prober: Prober) {
    let mut ticks = interval(prober.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut asked = JoinSet::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                if asked.len() < MOST {
                    asked.spawn(ask(prober.target.clone()));
                } else {
                    let why = format!("{MOST} requests wait for their answers");
                    access.links().answered(&rollout, Answer::Unasked(why));
                }
            }
            Some(Ok(answer)) = asked.join_next() => access.links().answered(&rollout, answer),
        }
    }
}

/// One request on a connection of its own: whether a new one is accepted is part of the question.
async fn ask(target: Target) -> Answer {
    let exchange = async {
        match outgoing::connect(&target).await {
            Ok(stream) => get(stream, &target).await.map_or_else(Answer::Failed, |()| Answer::Good),
            Err(Unreached::Here(why)) => Answer::Unasked(why),
            Err(Unreached::There(seen)) => Answer::Failed(seen),
        }
    };
    timeout(TIMEOUT, exchange).await.unwrap_or_else(|_| Answer::Failed(format!("no answer within {} s", TIMEOUT.as_secs())))
}

async fn get(stream: TcpStream, target: &Target) -> Result<(), String> {
    let (response, _connection) = outgoing::get(stream, target, target.path()).await?;
    let status = response.status();
    if !(status.is_success() || status.is_redirection()) {
        return Err(format!("answered {status}"));
    }
    let (mut body, mut read) = (response.into_body(), 0);
    while let Some(frame) = body.frame().await.filter(|_| read < BODY_MAX) {
        read += frame.map_err(|error| outgoing::broken(&error))?.data_ref().map_or(0, Bytes::len);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers each connection with the next of these, and then no more.
    async fn answering(answers: &'static [&'static str]) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = [0; 1024];
                let read = stream.read(&mut asked).await.unwrap();
                assert!(asked[..read].starts_with(b"GET /health?x=1 HTTP/1.1\r\n"));
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        format!("http://{address}/health?x=1").parse().unwrap()
    }

    #[tokio::test]
    async fn an_answer_is_good_only_if_it_is_whole_and_says_so() {
        let target = answering(&[
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            "HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok",
            "",
            "220 mail.example.net\r\n",
        ])
        .await;
        let mut answers = Vec::new();
        for _ in 0..7 {
            answers.push(ask(target.clone()).await);
        }
        let failed = |answer: &Answer, seen: &str| matches!(answer, Answer::Failed(said) if said.starts_with(seen));
        assert_eq!(answers[..2], [Answer::Good, Answer::Good]);
        assert!(failed(&answers[2], "answered 503"), "{answers:?}");
        assert!(answers[3..6].iter().all(|answer| failed(answer, "connected, but no whole answer")), "{answers:?}");
        // Whoever listened is gone.
        assert!(failed(&answers[6], "no connection"), "{answers:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_has_failed_after_a_bounded_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        assert_eq!(ask(target).await, Answer::Failed("no answer within 5 s".into()));
    }
}
