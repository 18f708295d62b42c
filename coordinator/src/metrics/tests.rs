use super::text::{Exposition, Kind};
use super::{bind, fleet, serve};
use crate::api::view;
use crate::driver::{Driver, Picture};
use crate::samples;
use crate::store::Store;
use crate::store::memory::MemoryStore;
use baton_core::rollout::RolloutState;
use baton_core::rollout::plan::plan;
use baton_core::time::Moment;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn sample() -> String {
    let mut picture = Picture::default();
    let service = samples::behind(samples::service(&["web1"]), &["lb1"], "shop");
    picture.fleet.services.insert("shop".parse().unwrap(), service);
    let rollout = samples::rollout("r-1", "shop", RolloutState::Running);
    picture.fleet.rollouts.insert(rollout.id.clone(), rollout);
    let view = view::fleet(&picture, &BTreeMap::new(), Moment(5000), None);
    fleet::metrics(&picture, &view, Moment(5000))
}

#[test]
fn every_family_has_help_a_type_and_a_name_that_follows_the_rules() {
    let text = sample();
    let mut families = 0;
    for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
        let [_, _, name, kind] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        assert!(name.starts_with("baton_"), "{name}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
        assert!(text.contains(&format!("# HELP {name} ")), "{name}");
        families += 1;
    }
    assert!(families >= 15, "{families}");
    assert!(text.contains("baton_rollout_active{service=\"shop\"} 1\n"), "{text}");
    assert!(text.contains("baton_rollout_evidence_threshold{service=\"shop\"} 100\n"), "{text}");
    assert!(!text.contains("r-1"), "no rollout is a label");
}

#[test]
fn what_a_name_may_hold_cannot_break_a_line() {
    let mut out = Exposition::default();
    out.family("baton_x", Kind::Gauge, "X.").sample("baton_x", &[("a", "q\"b\\\n")], 0.5);
    out.sample("baton_unannounced", &[], 1.0);
    assert_eq!(out.text(), "# HELP baton_x X.\n# TYPE baton_x gauge\nbaton_x{a=\"q\\\"b\\\\\\n\"} 0.5\n");
}

#[tokio::test]
async fn metrics_are_served_and_nothing_else() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let (_driver, access) = Driver::take_over(store, plan).await.unwrap();
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(serve(listener, access, std::future::pending()));
    let ask = async |path: &str| {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = ask("/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\nbaton_deciding 1\n"), "{answer}");
    assert!(ask("/").await.starts_with("HTTP/1.1 404"));
    served.abort();
}
