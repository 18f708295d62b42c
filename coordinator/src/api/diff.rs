//! What differs between the release that is live and the one that is wished for, key by key, in the manifest's words.

use super::preview::placement;
use baton_core::fleet::Service;
use baton_core::hook::{Hook, Point};
use baton_core::release::{Probe, Release};
use baton_core::strategy::OnFailure;
use baton_proto::v1::Change;
use std::collections::BTreeMap;
use std::time::Duration;

/// Every key whose value changes; on the first deploy all of them.
pub(super) fn diff(before: Option<(&Release, &Service)>, after: (&Release, &Service)) -> Vec<Change> {
    let before = before.map(|(release, service)| keys(release, service)).unwrap_or_default();
    let after = keys(after.0, after.1);
    let mut changes = Vec::new();
    for (field, value) in &after {
        if before.get(field) != Some(value) {
            let before = before.get(field).cloned().unwrap_or_default();
            changes.push(Change { field: field.clone(), before, after: value.clone() });
        }
    }
    for (field, value) in before.iter().filter(|(field, _)| !after.contains_key(*field)) {
        changes.push(Change { field: field.clone(), before: value.clone(), after: String::new() });
    }
    changes
}

fn keys(release: &Release, service: &Service) -> BTreeMap<String, String> {
    let (run, health, strategy) = (&release.run, &release.health, &service.strategy);
    let hosts: Vec<_> = service.hosts.iter().map(|host| host.as_str()).collect();
    let ports: Vec<_> = service.ports.iter().map(ToString::to_string).collect();
    let listen: Vec<_> = run.listen.iter().map(ToString::to_string).collect();
    let waves: Vec<_> = strategy.waves.iter().filter(|wave| !wave.is_preview()).map(|wave| wave.hosts.to_string()).collect();
    let mut keys = vec![
        ("artifact", release.artifact.digest.short()),
        ("artifact.size", release.artifact.size.to_string()),
        ("hosts", hosts.join(", ")),
        ("run.command", words(&run.command)),
        ("run.user", run.user.clone().unwrap_or_default()),
        ("run.ports", ports.join(", ")),
        ("run.listen", listen.join(", ")),
        ("run.stop.signal", run.stop.signal.name().to_owned()),
        ("run.stop.timeout", seconds(run.stop.timeout)),
        ("health.probe", probe(&health.probe)),
        ("health.interval", seconds(health.interval)),
        ("health.timeout", seconds(health.timeout)),
        ("health.healthy_for", seconds(health.healthy_for)),
        ("health.start_timeout", seconds(health.start_timeout)),
        ("rollout.placement", placement(strategy.placement, Some(release)).to_owned()),
        ("rollout.waves", waves.join(", ")),
        ("rollout.max_unavailable", strategy.max_unavailable.to_string()),
        ("rollout.bake", seconds(strategy.bake)),
        ("rollout.drain", seconds(strategy.drain_deadline)),
        ("rollout.keep_old", Some(strategy.keep_old).filter(|it| !it.is_zero()).map_or_else(String::new, seconds)),
        ("rollout.spread_by", strategy.spread_by.as_ref().map_or_else(String::new, ToString::to_string)),
        ("rollout.on_failure", only(strategy.on_failure == OnFailure::Pause, "pause")),
        ("rollout.second_person", only(strategy.second_person, "true")),
    ];
    if let Some(balancer) = &service.balancer {
        let on: Vec<_> = balancer.on.iter().map(|host| host.as_str()).collect();
        keys.push(("balancer.on", on.join(", ")));
        keys.push(("balancer.pool", balancer.pool.to_string()));
        let slow_start = Some(balancer.slow_start).filter(|it| !it.is_zero());
        keys.push(("balancer.slow_start", slow_start.map_or_else(String::new, seconds)));
        let withdraw = balancer.withdraw.map(|it| format!("{} for {}", it.signal.name(), seconds(it.unready_for)));
        keys.push(("balancer.withdraw", withdraw.unwrap_or_default()));
        keys.push(("balancer.preview", strategy.preview().map_or_else(String::new, ToString::to_string)));
    }
    let env = run.env.iter().map(|(key, value)| (format!("run.env.{key}"), value.clone()));
    let hooks = release.hooks.0.iter().map(|(point, hook)| (format!("hooks.{point}"), shown(*point, hook)));
    let secrets = run.secrets.iter().map(|(name, secret)| (format!("run.secrets.{name}"), secret.to_string()));
    keys.into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .chain(env)
        .chain(secrets)
        .chain(hooks)
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

/// The command, how often it is run, and what follows.
fn shown(point: Point, hook: &Hook) -> String {
    let runs = match point {
        Point::Migrate => "once for this release, on one host",
        _ if point.on_every_host() => "on every host",
        _ => "once, on one host",
    };
    let way = if hook.no_way_back { "; then there is no way back" } else { "" };
    format!("{} ({runs}, at most {}{way})", words(&hook.command), seconds(hook.timeout))
}

fn only(said: bool, value: &str) -> String {
    if said { value.to_owned() } else { String::new() }
}

fn probe(probe: &Probe) -> String {
    match probe {
        Probe::Http { path } => format!("http {path}"),
        Probe::Tcp => "tcp".to_owned(),
        Probe::Exec { command } => format!("exec {}", words(command)),
    }
}

/// A command as a person would type it: each word is seen to be one.
fn words(command: &[String]) -> String {
    let plain = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || "-_./:=,@%+{}".contains(c));
    let shown = |word: &String| if plain(word) { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''")) };
    command.iter().map(shown).collect::<Vec<_>>().join(" ")
}

fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn a_word_of_a_command_is_seen_to_be_one() {
        let shown = |command: &[&str]| words(&command.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(shown(&["./app", "--port={port}", "-v"]), "./app --port={port} -v");
        assert_eq!(shown(&["sh", "-c", "a; echo 'b'", ""]), r"sh -c 'a; echo '\''b'\''' ''");
    }

    #[test]
    fn only_what_changes_is_shown() {
        let (old, mut new) = (samples::release("shop", "2.0.4"), samples::release("shop", "2.0.4"));
        let service = samples::service(&["web1"]);
        assert_eq!(diff(Some((&old, &service)), (&new, &service)), []);
        new.run.env.insert("RUST_LOG".into(), "debug".into());
        let changes = diff(Some((&old, &service)), (&new, &service));
        let expected = Change { field: "run.env.RUST_LOG".into(), before: String::new(), after: "debug".into() };
        assert_eq!(changes, [expected]);
        let back = diff(Some((&new, &service)), (&old, &service));
        assert_eq!((back.len(), back[0].before.as_str(), back[0].after.as_str()), (1, "debug", ""));
        let mut two = service.clone();
        two.strategy.second_person = true;
        let changes = diff(Some((&old, &two)), (&old, &service));
        let gone = Change { field: "rollout.second_person".into(), before: "true".into(), after: String::new() };
        assert_eq!(changes, [gone], "that a second person is asked no more is seen");
    }
}
