use super::*;
use baton_core::name::Digest;
use baton_core::scrape::Totals;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// What was asked of somebody who answers each connection with the next of these, and then no more.
type Heard = Arc<Mutex<Vec<String>>>;

async fn answering(answers: Vec<(u16, String)>) -> (Prometheus, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, heard) = (listener.local_addr().unwrap(), Heard::default());
    let hears = Arc::clone(&heard);
    tokio::spawn(async move {
        for (status, body) in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let read = stream.read(&mut asked).await.unwrap();
            let line = String::from_utf8_lossy(&asked[..read]).lines().next().unwrap_or_default().to_owned();
            hears.lock().unwrap().push(line);
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            // Whoever has read enough goes.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let of = |more: &str| format!("sum by (instance) (requests{{version=\"{{version}}\"{more}}})").parse().unwrap();
    let url = format!("http://{address}/prom/").parse().unwrap();
    (Prometheus { url, requests: of(""), errors: of(",code=~\"5..\"") }, heard)
}

fn found(series: &[(&str, &str)]) -> (u16, String) {
    let series: Vec<_> = series
        .iter()
        .map(|(instance, value)| serde_json::json!({ "metric": { "instance": instance }, "value": [1700000000.25, value] }))
        .collect();
    let data = serde_json::json!({ "resultType": "vector", "result": series });
    (200, serde_json::json!({ "status": "success", "data": data, "warnings": ["slow"] }).to_string())
}

fn release(version: &str) -> Asked {
    let instances = vec![("web1".parse().unwrap(), "10.0.0.11:8101".parse().unwrap())];
    Asked { release: ReleaseId(Digest::of(version.as_bytes())), version: version.parse().unwrap(), instances }
}

async fn answered(answers: Vec<(u16, String)>) -> Answer {
    let (prometheus, _) = answering(answers).await;
    ask(&prometheus, &[release("2.0")]).await.remove(0).1
}

#[tokio::test]
async fn every_release_is_asked_about_as_of_the_same_moment() {
    let answers = vec![found(&[("a", "100"), ("b", "50.0")]), found(&[("b", "3")]), found(&[("c", "9e2")]), found(&[])];
    let (prometheus, heard) = answering(answers).await;
    let said = ask(&prometheus, &[release("2.0"), release("1.0")]).await;
    let totals = |requests, errors| Totals { requests, errors };
    let new = [("a".to_owned(), totals(100, None)), ("b".to_owned(), totals(50, Some(3)))];
    let old = [("c".to_owned(), totals(900, None))];
    assert_eq!(said, [(release("2.0").release, Ok(new.into())), (release("1.0").release, Ok(old.into()))]);
    let heard = heard.lock().unwrap().clone();
    let query = "sum%20by%20%28instance%29%20%28requests%7Bversion%3D%222.0%22%7D%29";
    assert_eq!(heard[0], format!("GET /prom/api/v1/query?query={query} HTTP/1.1"));
    assert!(heard[1..].iter().all(|line| line.ends_with("&time=1700000000.250 HTTP/1.1")), "{heard:?}");
    assert!(heard[1].contains("code%3D~%225..%22") && heard[2].contains("%221.0%22"), "{heard:?}");
}

#[tokio::test]
async fn what_is_no_answer_is_a_reason_and_never_a_number() {
    let good = || found(&[("a", "5")]);
    let refused = r#"{"status":"error","errorType":"bad_data","error":"parse error:\u001b unexpected \"}\""}"#;
    let scalar = r#"{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}"#;
    let histogram = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"histogram":[1,{}]}]}}"#;
    for (answers, why) in [
        (vec![(400, refused.into())], "requests: bad_data: parse error:  unexpected \"}\""),
        (vec![(200, scalar.into())], "requests: the query gives a scalar and not counters"),
        (vec![(200, histogram.into())], "requests: a series has no plain value"),
        (vec![(200, "<html>".into())], "requests: answered 200 OK, and not as a Prometheus does"),
        (vec![(401, String::new())], "requests: answered 401 Unauthorized, and not as a Prometheus does"),
        (vec![(302, good().1)], "requests: answered 302 Found, and not as a Prometheus does"),
        (vec![(200, "9".repeat(ANSWER_MAX + 1))], "requests: answered 200 OK, then broke off: length limit exceeded"),
        (vec![found(&[("a", "many")])], "requests: a series has no plain value"),
        (vec![found(&[]), found(&[])], "the query for requests finds nothing"),
        (vec![found(&[("a", "NaN")]), good()], "a series is NaN, which no counter can be"),
        (vec![good(), found(&[("a", "+Inf")])], "a series is inf, which no counter can be"),
        (vec![good(), found(&[("a", "-1")])], "a series is -1, which no counter can be"),
        (vec![good(), (503, "busy".into())], "errors: answered 503 Service Unavailable, and not as a Prometheus does"),
    ] {
        assert_eq!(answered(answers).await, Err(why.to_owned()));
    }
    let gone = answered(Vec::new()).await.unwrap_err();
    assert!(
        gone.starts_with("requests: no connection") || gone.starts_with("requests: connected, but no whole answer"),
        "{gone}"
    );
}

#[tokio::test]
async fn releases_that_the_queries_do_not_tell_apart_are_not_compared() {
    let (prometheus, heard) = answering(vec![found(&[("a", "5")]), found(&[])]).await;
    let said = ask(&prometheus, &[release("2.0"), release("2.0")]).await;
    assert!(said[0].1.is_ok());
    assert!(said[1].1.as_ref().is_err_and(|why| why.starts_with("it has the same version")), "{said:?}");
    assert_eq!(heard.lock().unwrap().len(), 2);
    let by_instance = |text: &str| text.parse().unwrap();
    let prometheus = Prometheus {
        requests: by_instance("a{instance=~\"{instances}\"}"),
        errors: by_instance("b{instance=~\"{instances}\"}"),
        ..prometheus
    };
    let nowhere = Asked { instances: Vec::new(), ..release("2.0") };
    assert_eq!(ask(&prometheus, &[nowhere]).await[0].1, Err("none of its instances is told to run".to_owned()));
}
