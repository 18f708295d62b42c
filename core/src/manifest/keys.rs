//! Every key a manifest may hold: one table, for the parser, the reference page and completion.

/// One key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its place: `run.stop.signal`.
    pub path: &'static str,
    pub kind: Kind,
    pub fallback: Fallback,
    /// One line for the reference.
    pub doc: &'static str,
}

/// What a value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Hosts,
    Ports,
    Duration,
    Amount,
    Waves,
    Rules,
    Addresses,
    Steps,
    Flag,
    Variables,
    Confidence,
    Tolerance,
    Regression,
    Count,
    Series,
    OneOf(&'static [&'static str]),
}

/// What holds when a key is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    Required,
    /// Nothing.
    Absent,
    /// This, read as if it stood in the file.
    Value(&'static str),
    /// What other keys say, in words.
    Derived(&'static str),
}

impl Kind {
    /// What the value must be, after "must be".
    #[must_use]
    pub const fn expected(self) -> &'static str {
        match self {
            Self::Text | Self::OneOf(_) => "a string",
            Self::Hosts => "a list of host names",
            Self::Ports => "a list of ports",
            Self::Duration => "a duration in a string, such as \"30s\"",
            Self::Amount => "a number of hosts or a share such as \"25%\"",
            Self::Waves => "a list of numbers or shares of hosts",
            Self::Rules => "a list of rules such as \"header X-Beta = 1\"",
            Self::Addresses => "an address such as \"0.0.0.0:8100\", or a list of them",
            Self::Steps => "a list of steps such as \"5% for 5m\"",
            Self::Flag => "true or false",
            Self::Variables => "a table of strings",
            Self::Confidence => "a share in a string, such as \"99%\"",
            Self::Tolerance => "a factor and a share in a string, such as \"1.2x + 0.1%\"",
            Self::Regression => "a share in a string, such as \"+1%\"",
            Self::Count => "a whole number",
            Self::Series => "a metric in a string, such as 'http_requests_total{code=~\"5..\"}'",
        }
    }
}

const fn key(path: &'static str, kind: Kind, fallback: Fallback, doc: &'static str) -> Key {
    Key { path, kind, fallback, doc }
}

use Fallback::{Absent, Derived, Required, Value};

/// Signals an application may want as its polite stop; the same list as [`crate::release::Signal`].
const SIGNALS: &[&str] = &["SIGTERM", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2"];

/// Every key, in the order of the reference.
pub const KEYS: &[Key] = &[
    key("service", Kind::Text, Required, "The name of the service."),
    key(
        "hosts",
        Kind::Hosts,
        Required,
        "The hosts it runs on, in the order they are replaced; those that are down come first.",
    ),
    key("artifact.path", Kind::Text, Required, "Where the archive of a version is found; `{version}` stands for it."),
    key("run.command", Kind::Text, Required, "The program and its arguments, with placeholders; no shell."),
    key("run.ports", Kind::Ports, Required, "One slot a port. Two: the new version starts beside the old. One: in place."),
    key(
        "run.listen",
        Kind::Addresses,
        Absent,
        "Public sockets that the host itself holds and hands to every instance, so that they never close.",
    ),
    key(
        "run.user",
        Kind::Text,
        Absent,
        "The user it runs as. Where none is named: under systemd one of its own, made up while it runs; as a plain process the agent's.",
    ),
    key("run.env", Kind::Variables, Absent, "Environment variables, as they are written. No secrets."),
    key(
        "run.secrets",
        Kind::Variables,
        Absent,
        "Where each host finds a secret: `file:/…`, `env-file:/…#NAME`, `systemd-creds:/…#NAME`, `exec:/…`. Given as files in `$CREDENTIALS_DIRECTORY`.",
    ),
    key("run.stop.signal", Kind::OneOf(SIGNALS), Value("SIGTERM"), "The polite request to finish."),
    key("run.stop.timeout", Kind::Duration, Value("30s"), "How long it may take to finish before it is killed."),
    key("health.http", Kind::Text, Absent, "Ready when `GET` of this path on the instance's port answers 200 to 299."),
    key("health.tcp", Kind::Flag, Absent, "Ready when the instance's port accepts a connection."),
    key("health.exec", Kind::Text, Absent, "Ready when this command exits 0; placeholders as in run.command."),
    key("health.interval", Kind::Duration, Value("1s"), "Between two probes of an instance that is ready."),
    key("health.timeout", Kind::Duration, Value("1s"), "For one probe."),
    key("health.healthy_for", Kind::Duration, Value("3s"), "Ready for this long without a break before it may serve."),
    key("health.start_timeout", Kind::Duration, Value("60s"), "From its start to its first ready; later it has failed."),
    key("balancer.on", Kind::Hosts, Required, "The hosts whose agents drive a load balancer for this service."),
    key("balancer.pool", Kind::Text, Derived("the service's name"), "The pool in those balancers (HAProxy: the backend)."),
    key(
        "balancer.slow_start",
        Kind::Duration,
        Value("0s"),
        "How long an instance that is put in takes to get its whole share of the traffic; 0s: it has it at once.",
    ),
    key(
        "balancer.withdraw.signal",
        Kind::OneOf(&["SIGUSR1", "SIGUSR2"]),
        Absent,
        "Lets a release replace another while a balancer cannot be reached, if each balancer checks the members' health by itself: \
         upon this signal the instance fails its health check and serves all else.",
    ),
    key(
        "balancer.withdraw.unready_for",
        Kind::Duration,
        Value("5s"),
        "How long it fails its health check before it is stopped: longer than any of the balancers needs to notice.",
    ),
    key(
        "balancer.preview.header",
        Kind::Text,
        Absent,
        "Blue-green: requests with this header (`NAME: VALUE`) alone reach the new release until a person lets it switch.",
    ),
    key("balancer.preview.cookie", Kind::Text, Absent, "The same for a cookie: `NAME=VALUE`."),
    key(
        "rollout.strategy",
        Kind::OneOf(&["rolling", "blue-green", "canary", "recreate"]),
        Value("rolling"),
        "How a release replaces another.",
    ),
    key(
        "rollout.placement",
        Kind::OneOf(&["in-place", "side-by-side", "handover"]),
        Derived("two ports or more: side-by-side, with run.listen handover; one, or recreate: in-place"),
        "Whether the new instance takes the old one's slot, or starts in a free one before the old one stops.",
    ),
    key(
        "rollout.max_unavailable",
        Kind::Amount,
        Derived("1; blue-green: 0; recreate: all"),
        "How many hosts may be without a serving instance.",
    ),
    key("rollout.waves", Kind::Waves, Value("100%"), "Cumulative; a wave begins when the one before is done and baked."),
    key(
        "rollout.spread_by",
        Kind::Text,
        Absent,
        "A label such as `rack`: waves are spread over its values, and of no value all hosts are out at once.",
    ),
    key(
        "rollout.steps",
        Kind::Steps,
        Absent,
        "Of a canary: shares of traffic or numbers of hosts that grow, each with its time.",
    ),
    key(
        "rollout.approve",
        Kind::Flag,
        Absent,
        "A person lets it go on: before the switch, or before each wave but the first.",
    ),
    key(
        "rollout.second_person",
        Kind::Flag,
        Absent,
        "No new release begins before another person than the one who deploys it has let it.",
    ),
    key(
        "rollout.keep_old",
        Kind::Duration,
        Derived("blue-green: 15m; else 0s"),
        "How long the old instances stay running and out, so that going back is a switch.",
    ),
    key(
        "rollout.match",
        Kind::Rules,
        Absent,
        "Requests with one of these headers or cookies go to the new release; in the first wave they alone do.",
    ),
    key(
        "rollout.sticky",
        Kind::Text,
        Absent,
        "What makes a user, who stays on one side: `cookie NAME`, `header NAME` or `source`.",
    ),
    key("rollout.bake", Kind::Duration, Value("0s"), "How long a wave is watched before the next begins."),
    key("rollout.drain", Kind::Duration, Value("30s"), "How long open requests may take to finish; then they are cut."),
    key(
        "rollout.progress_deadline",
        Kind::Duration,
        Value("10m"),
        "How long a rollout may stand without any progress before it pauses and asks.",
    ),
    key("rollout.on_failure", Kind::OneOf(&["revert", "pause"]), Value("revert"), "What evidence against it leads to."),
    key(
        "guard.confidence",
        Kind::Confidence,
        Value("99%"),
        "How sure the guard must be: of releases that are no worse it takes back at most the rest.",
    ),
    key(
        "guard.tolerance",
        Kind::Tolerance,
        Value("1.2x + 0.1%"),
        "How much more often than the old release the new one may fail without being worse.",
    ),
    key(
        "guard.memory",
        Kind::Flag,
        Value("true"),
        "Whether memory of the new instances that grows, while the old ones' does not, speaks against the new release.",
    ),
    key(
        "guard.metrics.path",
        Kind::Text,
        Derived("`/metrics`, where the other two stand"),
        "Where the agents find the instances' own metrics, on each instance's port: Prometheus' text format.",
    ),
    key(
        "guard.metrics.requests",
        Kind::Series,
        Absent,
        "The counter of all requests there, with matchers for its labels as in PromQL; what matches is added up.",
    ),
    key("guard.metrics.errors", Kind::Series, Absent, "And that of those that failed."),
    key(
        "guard.prometheus.url",
        Kind::Text,
        Absent,
        "A Prometheus that the coordinator asks every five seconds: `http://HOST:PORT`, without `/api/v1/query`.",
    ),
    key(
        "guard.prometheus.requests",
        Kind::Text,
        Absent,
        "A query for the counters of all requests of a release, not for a rate; `{version}` or `{instances}` says which release.",
    ),
    key("guard.prometheus.errors", Kind::Text, Absent, "And one for the counters of those that failed."),
    key("gate.rule_out", Kind::Regression, Value("+1%"), "The regression that must be ruled out before a wave is done."),
    key("gate.max_wait", Kind::Duration, Value("30m"), "How long the gate may wait for requests after the bake."),
    key(
        "gate.on_not_enough_data",
        Kind::OneOf(&["pause", "promote", "revert"]),
        Value("pause"),
        "What happens when it has waited for so long.",
    ),
    key("proof.max_failed", Kind::Count, Absent, "How many requests may fail, by the load balancers' own count."),
    key(
        "proof.probe",
        Kind::Text,
        Absent,
        "Asked through the load balancer all the time while a rollout goes on, by the coordinator: `http://HOST:PORT/PATH`.",
    ),
    key("proof.probe_every", Kind::Duration, Value("1s"), "How often it is asked."),
    key(
        "hooks.before_rollout.command",
        Kind::Text,
        Absent,
        "Run once, on one host, before anything changes. Placeholders: see docs/hooks.md.",
    ),
    key("hooks.before_rollout.timeout", Kind::Duration, Value("10m"), "How long it may take before all of it is killed."),
    key(
        "hooks.migrate.command",
        Kind::Text,
        Absent,
        "Run once a release, on one host, before its first instance starts anywhere. Placeholders: see docs/hooks.md.",
    ),
    key("hooks.migrate.timeout", Kind::Duration, Value("10m"), "How long it may take before all of it is killed."),
    key(
        "hooks.migrate.no_way_back",
        Kind::Flag,
        Absent,
        "Once it has run, Baton goes back to no release from before unless it is forced to.",
    ),
    key(
        "hooks.before_drain.command",
        Kind::Text,
        Absent,
        "Run on every host before what it serves is drained. Placeholders: see docs/hooks.md.",
    ),
    key("hooks.before_drain.timeout", Kind::Duration, Value("10m"), "How long it may take before all of it is killed."),
    key(
        "hooks.after_enroll.command",
        Kind::Text,
        Absent,
        "Run on every host once the new release serves there and the old one is gone. Placeholders: see docs/hooks.md.",
    ),
    key("hooks.after_enroll.timeout", Kind::Duration, Value("10m"), "How long it may take before all of it is killed."),
    key(
        "hooks.after_rollout.command",
        Kind::Text,
        Absent,
        "Run once, on one host, when every host is done. Placeholders: see docs/hooks.md.",
    ),
    key("hooks.after_rollout.timeout", Kind::Duration, Value("10m"), "How long it may take before all of it is killed."),
];

/// Keys and tables that are planned and refused until they work.
pub const LATER: &[&str] = &[
    "artifact.url",
    "artifact.digest",
    "artifact.keep",
    "artifact.signed_by",
    "run.workdir",
    "run.ready",
    "run.limits",
    "health.grpc",
];

/// The key at a place.
#[must_use]
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The words that may stand in a table: its keys, and the tables in it. The root is `""`.
pub(super) fn within(table: &str) -> Vec<&'static str> {
    let mut words: Vec<&str> = Vec::new();
    for key in KEYS {
        let rest = match table {
            "" => Some(key.path),
            _ => key.path.strip_prefix(table).and_then(|rest| rest.strip_prefix('.')),
        };
        let word = rest.and_then(|rest| rest.split('.').next());
        words.extend(word.filter(|word| !words.contains(word)));
    }
    words
}

/// Whether a place is a table of known keys.
pub(super) fn is_table(path: &str) -> bool {
    find(path).is_none() && !within(path).is_empty()
}
