use super::{bind, certificates, fleet, serve};
use crate::api::view;
use crate::config::Config;
use crate::driver::{Driver, Picture};
use crate::samples;
use crate::store::Store;
use crate::store::memory::MemoryStore;
use baton_core::rollout::RolloutState;
use baton_core::rollout::plan::plan;
use baton_core::time::Moment;
use baton_proto::metrics::Exposition;
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
    let mut out = Exposition::default();
    fleet::metrics(&mut out, &picture, &view, Moment(5000));
    certificates::metrics(&mut out, &[]);
    out.text()
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

#[tokio::test]
async fn the_fleet_and_the_lives_of_the_certificates_are_served() {
    let state = tempfile::tempdir().unwrap();
    let config = Config { state: state.path().to_owned(), ..Config::default() };
    crate::init(&config).await.unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let (_driver, access) = Driver::take_over(store, plan).await.unwrap();
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(serve(listener, access, state.path().join("identity"), std::future::pending()));
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
    let ends = |certificate: &str| {
        let name = format!("baton_certificate_not_after_timestamp_seconds{{certificate=\"{certificate}\"}} ");
        answer.lines().find_map(|line| line.strip_prefix(&name)?.parse::<f64>().ok()).unwrap_or_else(|| panic!("{answer}"))
    };
    let left = ends("coordinator") - crate::identity::wall_time().0 as f64;
    assert!((left - config.life() as f64).abs() < 7200.0, "{left}");
    assert!(ends("authority") > ends("coordinator"));
    served.abort();
}
