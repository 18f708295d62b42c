//! What older versions persisted is read as what it meant then.

use baton_core::fleet::split::Share;
use baton_core::strategy::{Amount, Strategy, Wave};
use std::time::Duration;

#[test]
fn a_strategy_of_an_older_version_means_what_it_meant() {
    let old = r#"{"placement":"in-place","waves":[{"hosts":1},{"percent":100}],"max_unavailable":{"hosts":1},
        "bake":0,"drain_deadline":30000,"progress_deadline":600000,"on_failure":"revert"}"#;
    let strategy: Strategy = serde_json::from_str(old).unwrap();
    assert_eq!(strategy.waves, [Wave::of(Amount::Hosts(1)), Wave::of(Amount::Percent(100))]);
    assert_eq!((strategy.word(), strategy.at_once(4), strategy.keeps_old()), ("rolling", 1, false));
}

#[test]
fn a_wave_is_read_as_it_was_written() {
    let wave = Wave {
        share: Some(Share::try_from(500).unwrap()),
        bake: Some(Duration::from_secs(300)),
        approve: true,
        ..Wave::of(Amount::Hosts(1))
    };
    let text = serde_json::to_string(&wave).unwrap();
    assert_eq!(text, r#"{"hosts":1,"share":500,"bake":300000,"approve":true}"#);
    assert_eq!(serde_json::from_str::<Wave>(&text).unwrap(), wave);
}
