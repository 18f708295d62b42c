//! Manifests that hold together, and what they come to.

use super::{SAMPLE, edited, sound};
use crate::analysis::probes::Prober;
use crate::analysis::settings::{GateSettings, GuardSettings, NotEnough, Sources};
use crate::fleet::withdraw::Withdraw;
use crate::hook::Point;
use crate::manifest::{Origin, keys};
use crate::name::{Digest, Version};
use crate::prometheus::Prometheus;
use crate::release::{Artifact, Probe, Signal};
use crate::scrape::Scrape;
use crate::strategy::{Amount, OnFailure, Placement, Strategy, Users, Wave};
use std::time::Duration;

#[test]
fn the_smallest_manifest_gets_every_default() {
    let manifest = sound(SAMPLE);
    let (run, health) = (&manifest.run, &manifest.health);
    assert_eq!(manifest.service.as_str(), "shop");
    assert_eq!(manifest.hosts.iter().map(|host| host.as_str()).collect::<Vec<_>>(), ["web1", "web2", "web3"]);
    assert_eq!(run.command, ["bin/shop", "--listen", "0.0.0.0:{port}"]);
    assert_eq!((run.user.as_deref(), run.env.len(), run.stop.signal), (None, 0, Signal::Term));
    assert_eq!(run.stop.timeout, Duration::from_secs(30));
    assert_eq!(health.probe, Probe::Http { path: "/healthz".into() });
    assert_eq!((health.interval, health.timeout), (Duration::from_secs(1), Duration::from_secs(1)));
    assert_eq!((health.healthy_for, health.start_timeout), (Duration::from_secs(3), Duration::from_secs(60)));
    assert_eq!(
        manifest.strategy,
        Strategy {
            placement: Placement::SideBySide,
            waves: vec![Wave::of(Amount::Percent(100))],
            max_unavailable: Amount::Hosts(1),
            parallel: None,
            lockstep: false,
            keep_old: Duration::ZERO,
            exclusive: false,
            spread_by: None,
            bake: Duration::ZERO,
            drain_deadline: Duration::from_secs(30),
            progress_deadline: Duration::from_secs(600),
            on_failure: OnFailure::Revert,
            users: Users::default(),
            guard: Default::default(),
            gate: None,
            max_failed: None,
            prober: None,
            scrape: None,
            prometheus: None,
            second_person: false,
        }
    );
    assert!(manifest.warnings.is_empty());
}

#[test]
fn every_setting_says_where_it_comes_from() {
    let said: Vec<String> = sound(SAMPLE)
        .origins()
        .iter()
        .map(|setting| match setting.origin {
            Origin::Default => format!("{} = {}", setting.key, setting.value),
            Origin::Manifest { line } => format!("{} = {}  # line {line}", setting.key, setting.value),
        })
        .collect();
    let expect = r#"
service = "shop"  # line 1
hosts = ["web1", "web2", "web3"]  # line 2
artifact.path = "shop-{version}.tar.zst"  # line 5
run.command = "bin/shop --listen 0.0.0.0:{port}"  # line 8
run.ports = [8101, 8102]  # line 9
run.stop.signal = "SIGTERM"
run.stop.timeout = "30s"
health.http = "/healthz"  # line 12
health.interval = "1s"
health.timeout = "1s"
health.healthy_for = "3s"
health.start_timeout = "60s"
balancer.on = ["lb1"]  # line 15
balancer.pool = "shop"  # line 16
balancer.slow_start = "0s"
rollout.strategy = "rolling"
rollout.placement = "side-by-side"
rollout.max_unavailable = 1
rollout.waves = ["100%"]
rollout.keep_old = "0s"
rollout.bake = "0s"
rollout.drain = "30s"
rollout.progress_deadline = "10m"
rollout.on_failure = "revert"
guard.confidence = "99%"
guard.tolerance = "1.2x + 0.1%"
guard.memory = true"#;
    assert_eq!(said.join("\n"), expect.trim_start());
}

#[test]
fn everything_can_be_said() {
    let text = edited(
        "\n[health]\nhttp = \"/healthz\"\n",
        r#"user = "shop"
env = { RUST_LOG = "info", DB_PASSWORD_FILE = "/etc/shop/db" }
secrets = { DB = "file:/etc/shop/db", DB_TOKEN = "exec:/usr/bin/pass show db" }

[run.stop]
signal = "SIGQUIT"
timeout = "1m 30s"

[health]
exec = "bin/check --url 'http://{address}:{port}/'"
interval = "500ms"
timeout = "2s"
healthy_for = "0s"
start_timeout = "5m"

[rollout]
strategy = "rolling"
approve = true
second_person = true
placement = "in-place"
max_unavailable = "34%"
waves = [1, "50%"]
spread_by = "rack"
match = ["header X-Beta = 1", "cookie cohort = staff"]
sticky = "cookie uid"
bake = "10m"
drain = "2m"
progress_deadline = "30m"
on_failure = "pause"

[guard]
confidence = "99.9%"
tolerance = "2x + 0.5%"
memory = false

[guard.metrics]
path = "/internal/metrics"
requests = "http_requests_total"
errors = 'http_requests_total{code=~"5.."}'

[guard.prometheus]
url = "http://10.0.0.9:9090/prometheus"
requests = 'sum by (instance) (http_requests_total{version="{version}"})'
errors = 'sum by (instance) (http_requests_total{version="{version}",code=~"5.."})'

[gate]
rule_out = "+2%"
max_wait = "1h"
on_not_enough_data = "promote"

[proof]
max_failed = 10
probe = "http://10.0.0.9:8080/healthz?from=baton"
probe_every = "500ms"

[hooks]
before_rollout = { command = "bin/look {version}", timeout = "1m" }
migrate = { command = "bin/migrate --on {address}", timeout = "1h", no_way_back = true }
before_drain = { command = "bin/leave {port}", timeout = "10s" }
after_enroll = { command = "bin/warm {slot}", timeout = "20s" }
after_rollout = { command = "bin/tell", timeout = "30s" }
"#,
    );
    let more = "slow_start = \"20s\"\nwithdraw = { signal = \"SIGUSR2\", unready_for = \"8s\" }\n";
    let manifest = sound(&text.replace("pool = \"shop\"\n", &format!("pool = \"shop\"\n{more}")));
    let withdraw = Withdraw { signal: Signal::Usr2, unready_for: Duration::from_secs(8) };
    assert_eq!(manifest.balancer.as_ref().and_then(|it| it.withdraw), Some(withdraw));
    assert_eq!(manifest.balancer.as_ref().map(|it| it.slow_start), Some(Duration::from_secs(20)));
    assert_eq!(manifest.run.user.as_deref(), Some("shop"));
    assert_eq!(manifest.run.env["DB_PASSWORD_FILE"], "/etc/shop/db");
    assert_eq!(manifest.run.secrets["DB_TOKEN"].to_string(), "exec:/usr/bin/pass show db");
    assert_eq!((manifest.run.stop.signal, manifest.run.stop.timeout), (Signal::Quit, Duration::from_secs(90)));
    let command = ["bin/check", "--url", "http://{address}:{port}/"].map(str::to_string).to_vec();
    assert_eq!(manifest.health.probe, Probe::Exec { command });
    assert_eq!(manifest.health.interval, Duration::from_millis(500));
    assert_eq!(
        manifest.strategy,
        Strategy {
            placement: Placement::InPlace,
            waves: vec![
                Wave::of(Amount::Hosts(1)),
                Wave { approve: true, ..Wave::of(Amount::Percent(50)) },
                Wave { approve: true, ..Wave::of(Amount::Percent(100)) },
            ],
            max_unavailable: Amount::Percent(34),
            parallel: None,
            lockstep: false,
            keep_old: Duration::ZERO,
            exclusive: false,
            spread_by: Some("rack".parse().unwrap()),
            bake: Duration::from_secs(600),
            drain_deadline: Duration::from_secs(120),
            progress_deadline: Duration::from_secs(1800),
            on_failure: OnFailure::Pause,
            users: Users {
                sticky: Some("cookie uid".parse().unwrap()),
                rules: vec!["header X-Beta = 1".parse().unwrap(), "cookie cohort = staff".parse().unwrap()],
            },
            guard: GuardSettings {
                alpha_ppm: 1_000,
                ratio_percent: 200,
                margin_ppm: 5_000,
                memory: false,
                sources: Sources { metrics: true, prometheus: true }
            },
            gate: Some(GateSettings {
                rule_out_ppm: 20_000,
                max_wait: Duration::from_secs(3600),
                on_not_enough_data: NotEnough::Promote,
            }),
            max_failed: Some(10),
            prober: Some(Prober {
                target: "http://10.0.0.9:8080/healthz?from=baton".parse().unwrap(),
                every: Duration::from_millis(500),
            }),
            scrape: Some(Scrape {
                path: "/internal/metrics".into(),
                requests: "http_requests_total".parse().unwrap(),
                errors: "http_requests_total{code=~\"5..\"}".parse().unwrap(),
            }),
            prometheus: Some(Prometheus {
                url: "http://10.0.0.9:9090/prometheus".parse().unwrap(),
                requests: "sum by (instance) (http_requests_total{version=\"{version}\"})".parse().unwrap(),
                errors: "sum by (instance) (http_requests_total{version=\"{version}\",code=~\"5..\"})".parse().unwrap(),
            }),
            second_person: true,
        }
    );
    assert_eq!(manifest.hooks.0.keys().copied().collect::<Vec<_>>(), Point::ALL);
    let migrate = manifest.hooks.at(Point::Migrate).expect("a hook");
    assert_eq!((migrate.timeout, migrate.no_way_back), (Duration::from_secs(3600), true));
    assert_eq!(migrate.command, ["bin/migrate", "--on", "{address}"]);
    let given = manifest.origins().iter().filter(|setting| setting.origin != Origin::Default).count();
    assert_eq!(
        given,
        keys::KEYS.len() - 7,
        "all but the other two probes, steps instead of waves, what in place cannot keep or preview, and what excludes a balancer"
    );
}

fn rollout(text: &str) -> Strategy {
    sound(&format!("{SAMPLE}\n[rollout]\n{text}\n")).strategy
}

#[test]
fn blue_green_is_one_wave_of_everybody_that_enters_together() {
    let strategy = rollout("strategy = \"blue-green\"\napprove = true");
    assert_eq!((strategy.placement, strategy.lockstep, strategy.word()), (Placement::SideBySide, true, "blue-green"));
    assert_eq!((strategy.keep_old, strategy.at_once(3)), (Duration::from_secs(900), 3));
    assert_eq!(strategy.waves, [Wave { approve: true, ..Wave::of(Amount::Percent(100)) }]);
    assert_eq!(strategy.max_unavailable, Amount::Hosts(0));
    assert_eq!(rollout("strategy = \"blue-green\"\nkeep_old = \"1m\"").keep_old, Duration::from_secs(60));
}

#[test]
fn a_preview_is_a_wave_that_nobody_reaches_but_whom_a_rule_names_before_the_switch() {
    for (said, rule) in
        [("header = \"X-Preview: 1\"", "header X-Preview = 1"), ("cookie = \"look=yes\"", "cookie look = yes")]
    {
        let text = edited("pool = \"shop\"\n", &format!("pool = \"shop\"\npreview = {{ {said} }}\n"));
        let strategy = sound(&format!("{text}\n[rollout]\nstrategy = \"blue-green\"\nbake = \"5m\"\n")).strategy;
        let switch = Wave { approve: true, ..Wave::of(Amount::Percent(100)) };
        assert_eq!(strategy.waves, [Wave::preview(), switch]);
        assert_eq!(strategy.preview().map(ToString::to_string).as_deref(), Some(rule));
        assert_eq!((strategy.bake_of(0), strategy.bake_of(1)), (Duration::ZERO, Duration::from_secs(300)));
        assert_eq!((strategy.word(), strategy.first_part(3)), ("blue-green", 1.0));
        assert_eq!(strategy.returning().preview(), None, "going back shows nobody anything first");
    }
}

#[test]
fn a_canary_goes_by_shares_of_the_traffic_or_by_hosts() {
    let strategy = rollout("strategy = \"canary\"\nsteps = [\"0.5% for 5m\", \"50% for 10m\", \"100%\"]\napprove = true");
    let said: Vec<_> = strategy.waves.iter().map(|it| (it.hosts.of(3), it.share.map(u16::from), it.approve)).collect();
    assert_eq!(said, [(1, Some(50), false), (2, Some(5_000), true), (3, None, true)]);
    assert_eq!((strategy.bake_of(1), strategy.bake_of(2)), (Duration::from_secs(600), Duration::ZERO));
    let hosts = rollout("strategy = \"canary\"\nsteps = [\"1 host for 5m\", \"2 hosts\"]");
    assert_eq!(hosts.waves.iter().map(|it| it.hosts.of(3)).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((hosts.waves[0].share, hosts.word()), (None, "canary"));
}

#[test]
fn recreate_takes_everybody_down_also_where_there_are_two_ports() {
    let strategy = rollout("strategy = \"recreate\"");
    assert_eq!((strategy.placement, strategy.exclusive, strategy.at_once(3)), (Placement::InPlace, true, 3));
}

#[test]
fn one_port_is_replaced_in_place_and_two_side_by_side() {
    assert_eq!(sound(&edited("[8101, 8102]", "[8101]")).strategy.placement, Placement::InPlace);
    assert_eq!(sound(SAMPLE).strategy.placement, Placement::SideBySide);
}

#[test]
fn a_hand_over_is_side_by_side_with_sockets_that_belong_to_the_host() {
    let direct = edited("\n[balancer]\non   = [\"lb1\"]\npool = \"shop\"\n", "");
    let listening = direct.replace("[8101, 8102]\n", "[8101, 8102]\nlisten = [\"0.0.0.0:8100\", \"[::1]:80\"]\n");
    for rollout in ["", "\n[rollout]\nplacement = \"handover\"\n"] {
        let manifest = sound(&format!("{listening}{rollout}"));
        assert_eq!(manifest.run.listen, ["0.0.0.0:8100", "[::1]:80"].map(|address| address.parse().unwrap()));
        assert_eq!(manifest.strategy.placement, Placement::SideBySide);
        let said = manifest.origins().iter().find(|setting| setting.key == "rollout.placement").unwrap();
        assert_eq!(said.value, "\"handover\"");
    }
    let one = sound(&direct.replace("[8101, 8102]\n", "[8101]\nlisten = \"0.0.0.0:8100\"\n"));
    assert_eq!((one.run.listen.len(), one.strategy.placement), (1, Placement::InPlace));
}

#[test]
fn a_release_that_listens_elsewhere_is_another_release_and_one_that_does_not_keeps_its_identity() {
    let artifact = Artifact { digest: Digest::of(b"archive"), size: 7 };
    let plain = sound(SAMPLE).release(Version::new("1").unwrap(), artifact);
    assert_eq!(plain.id().0.short(), "29c1d36e20f6");
    let at = |address: &str| {
        let mut release = plain.clone();
        release.run.listen = vec![address.parse().unwrap()];
        release.id()
    };
    assert_ne!(at("0.0.0.0:80"), plain.id());
    assert_ne!(at("0.0.0.0:80"), at("0.0.0.0:81"));
}

#[test]
fn a_service_needs_no_balancer_and_its_pool_has_its_name() {
    assert_eq!(sound(&edited("\n[balancer]\non   = [\"lb1\"]\npool = \"shop\"\n", "")).balancer, None);
    let pool = sound(&edited("pool = \"shop\"\n", "")).balancer.unwrap().pool;
    assert_eq!(pool.as_str(), "shop");
}

#[test]
fn waves_end_with_every_host() {
    let waves = |written: &str| {
        let waves = sound(&format!("{SAMPLE}\n[rollout]\nwaves = {written}\n")).strategy.waves;
        waves.into_iter().map(|wave| wave.hosts).collect::<Vec<_>>()
    };
    assert_eq!(waves("[]"), [Amount::Percent(100)]);
    assert_eq!(waves("[1]"), [Amount::Hosts(1), Amount::Percent(100)]);
    assert_eq!(waves("[1, 3]"), [Amount::Hosts(1), Amount::Hosts(3)]);
    assert_eq!(waves("[\"1\", \"1%\", \"100%\"]"), [Amount::Hosts(1), Amount::Percent(1), Amount::Percent(100)]);
}

#[test]
fn a_release_and_its_archive_follow_from_a_version() {
    let manifest = sound(SAMPLE);
    let version = Version::new("2.1.0").unwrap();
    assert_eq!(manifest.artifact_of(&version), "shop-2.1.0.tar.zst");
    let artifact = Artifact { digest: Digest::of(b"archive"), size: 7 };
    let release = manifest.release(version.clone(), artifact);
    assert_eq!(release.id(), manifest.release(version.clone(), artifact).id());
    assert_eq!((release.version, release.artifact, release.run), (version, artifact, manifest.run.clone()));
    let service = manifest.service();
    assert_eq!((service.hosts.len(), service.ports, service.committed), (3, vec![8101, 8102], None));
}

#[test]
fn what_is_allowed_and_probably_not_meant_is_a_warning() {
    let manifest = sound(&edited("[8101, 8102]", "[8101]").replace("\"web1\", \"web2\", ", ""));
    let text = super::rendered(&manifest.warnings);
    let expect = r#"
warning[B0118]: no host serves while the release is replaced in place
 --> baton.toml:2:11
  |
2 | hosts   = ["web3"]
  |           ^^^^^^^^ 1 of 1 may be missing at once
help: give run.ports a second port and have [balancer] lead the clients, or run.listen hand the socket over; else a deploy asks, or needs --yes
"#;
    assert_eq!(text, expect.trim_start());
    assert!(manifest.strategy.interrupts(1) && !manifest.strategy.interrupts(2));
    assert!(!sound(SAMPLE).strategy.interrupts(1), "with a second port nobody gives its place up");
    let (before, after) = SAMPLE.split_once("[balancer]").unwrap();
    let rest = after.find("\n[").map_or("", |next| &after[next..]);
    let text = super::rendered(&sound(&format!("{before}{rest}")).warnings);
    assert!(text.starts_with("warning[B0128]: nothing moves the clients"), "{text}");
    let text = super::rendered(&sound(&edited(":{port}", ":8101")).warnings);
    let expect = r#"
warning[B0129]: the command is the same in every slot: nothing in it says which port to listen on
 --> baton.toml:8:11
  |
8 | command = "bin/shop --listen 0.0.0.0:8101"
  |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ no {port} here
help: pass {port} to the program, unless it reads the port from $BATON_PORT by itself
"#;
    assert_eq!(text, expect.trim_start());
    for told in ["sh -c 'exec bin/shop $BATON_PORT'", "bin/shop --slot {slot}"] {
        assert!(sound(&edited("bin/shop --listen 0.0.0.0:{port}", told)).warnings.is_empty(), "{told}");
    }
    let manifest = sound(&format!("{SAMPLE}\n[rollout]\nprogress_deadline = \"20s\"\n"));
    let expect = r#"
warning[B0121]: progress_deadline has no effect before health.start_timeout (1m) is over: a host may take that long
  --> baton.toml:19:21
   |
19 | progress_deadline = "20s"
   |                     ^^^^^ progress_deadline is 20s
help: make rollout.progress_deadline longer
"#;
    assert_eq!(super::rendered(&manifest.warnings), expect.trim_start());
}

#[test]
fn a_release_without_hooks_keeps_its_digest_and_one_with_them_has_another() {
    let release = |text: &str| {
        let artifact = Artifact { digest: Digest::of(b"archive"), size: 7 };
        sound(text).release("2.1.0".parse().unwrap(), artifact).id()
    };
    let with = |text: &str| release(&format!("{SAMPLE}\n[hooks]\n{text}\n"));
    assert_eq!(release(SAMPLE), with(""));
    let ids = [
        release(SAMPLE),
        with("migrate = { command = \"bin/migrate\" }"),
        with("migrate = { command = \"bin/migrate\", no_way_back = true }"),
        with("migrate = { command = \"bin/migrate\", timeout = \"1m\" }"),
        with("before_rollout = { command = \"bin/migrate\" }"),
    ];
    assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), ids.len());
}
