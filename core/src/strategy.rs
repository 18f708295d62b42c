//! Strategies as values: what people call "rolling" or "blue-green" is a few numbers, and nothing in Baton asks for the name.

use crate::analysis::probes::Prober;
use crate::analysis::settings::{GateSettings, GuardSettings};
use crate::fleet::split::{PLACES, Rule, Share, UserKey};
use crate::name::LabelKey;
use crate::prometheus::Prometheus;
use crate::scrape::Scrape;
use crate::time::millis;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// How a release replaces another over the hosts of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strategy {
    pub placement: Placement,
    /// Cumulative: a wave begins when every host of the one before is done and has baked.
    pub waves: Vec<Wave>,
    /// How many hosts may be without a serving instance because of the rollout.
    pub max_unavailable: Amount,
    /// How many hosts may be under way at once, those that still serve among them; None: as many as may be unavailable.
    #[serde(default)]
    pub parallel: Option<Amount>,
    /// No two hosts of which this label says the same are taken out so that none of them is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread_by: Option<LabelKey>,
    /// The hosts of a wave enter together, and what they had leaves with that: one switch.
    #[serde(default)]
    pub lockstep: bool,
    /// How long the old instances stay, running and out, after the new ones serve: a way back without a start.
    #[serde(default, with = "millis")]
    pub keep_old: Duration,
    /// The two releases cannot coexist: nobody starts the one while anybody runs the other.
    #[serde(default)]
    pub exclusive: bool,
    /// How long a wave is watched before the next begins, unless it says otherwise.
    #[serde(with = "millis")]
    pub bake: Duration,
    /// How long requests may take to finish on a member that is out; then they are cut, counted and reported.
    #[serde(with = "millis")]
    pub drain_deadline: Duration,
    /// How long a rollout may stand without any progress before it pauses and asks.
    #[serde(with = "millis")]
    pub progress_deadline: Duration,
    pub on_failure: OnFailure,
    /// Whose requests the new release gets while it shares the traffic with the old one.
    #[serde(default)]
    pub users: Users,
    /// When the traffic of a release speaks against it.
    #[serde(default)]
    pub guard: GuardSettings,
    /// What must be ruled out before a wave counts as good; None: nothing is waited for.
    #[serde(default)]
    pub gate: Option<GateSettings>,
    /// How many requests may fail by the balancers' own count; None: nobody asks for proof.
    #[serde(default)]
    pub max_failed: Option<u64>,
    /// Who is asked all the time while a rollout goes on; None: nobody asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prober: Option<Prober>,
    /// Where the instances' own counters are found; None: nobody reads them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scrape: Option<Scrape>,
    /// Which Prometheus is asked for them; None: none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<Prometheus>,
    /// No new release begins before another person than the one who asks for it has let it.
    #[serde(default)]
    pub second_person: bool,
}

/// Whose requests a release on trial gets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Users {
    /// What makes a user, who stays on one side; None: every request for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<UserKey>,
    /// Whose requests it gets from its first wave on: in that wave these and no others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
}

/// One step of a rollout: how far it reaches, and what has to happen before the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wave {
    /// How many hosts have the new release once it is done, those of the waves before among them.
    #[serde(flatten)]
    pub hosts: Amount,
    /// How much of the traffic the new release gets, while the old one keeps the rest; None: what its hosts get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
    /// How long it is watched; None: as long as the strategy says.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "millis::maybe")]
    pub bake: Option<Duration>,
    /// A person says when its hosts get traffic: at the switch where they enter together, else before the wave begins.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub approve: bool,
}

/// Where the new instance starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// In the old one's slot, after it stopped.
    InPlace,
    /// In a free slot, before the old one stops.
    SideBySide,
}

/// A number of hosts, or a share of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Amount {
    Hosts(u32),
    Percent(u8),
}

/// What evidence against the new release leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    Revert,
    Pause,
}

impl Strategy {
    /// How long a wave, counted from 0, is watched.
    #[must_use]
    pub fn bake_of(&self, wave: usize) -> Duration {
        self.waves.get(wave).and_then(|wave| wave.bake).unwrap_or(self.bake)
    }

    /// How many hosts of `total` may be under way at once; one always may, or nothing would ever move.
    #[must_use]
    pub fn at_once(&self, total: usize) -> usize {
        self.parallel.unwrap_or(self.max_unavailable).at_most(total).max(1)
    }

    /// The part of a service's requests that a new release gets first: what its first wave's share says, or what its first hosts
    /// get of all.
    #[must_use]
    pub fn first_part(&self, total: usize) -> f64 {
        let Some(wave) = self.waves.iter().find(|wave| !wave.is_preview()) else { return 0.0 };
        if let Some(share) = wave.share {
            return f64::from(u16::from(share)) / 10_000.0;
        }
        let hosts = wave.hosts.of(total);
        let first = if self.lockstep { hosts } else { hosts.min(self.at_once(total)) };
        first as f64 / total.max(1) as f64
    }

    /// Whether nobody serves for a while when a release replaces another one on so many hosts: the two cannot coexist, or every
    /// host gives its place up at once.
    #[must_use]
    pub fn interrupts(&self, total: usize) -> bool {
        let all_begin = self.waves.first().is_none_or(|wave| wave.hosts.of(total) >= total);
        let all_go = self.placement == Placement::InPlace && self.max_unavailable.at_most(total) >= total;
        self.exclusive || (all_begin && all_go)
    }

    /// Whose requests alone reach the new release before the switch; None: nobody's do.
    #[must_use]
    pub fn preview(&self) -> Option<&Rule> {
        self.users.rules.first().filter(|_| self.waves.iter().any(Wave::is_preview))
    }

    /// Whether the old instances outlive the moment in which the new ones serve.
    #[must_use]
    pub const fn keeps_old(&self) -> bool {
        self.lockstep || !self.keep_old.is_zero()
    }

    /// The same, where there is nothing else that answers meanwhile: nobody has to look before there is a switch.
    #[must_use]
    pub fn without_preview(self) -> Self {
        if self.preview().is_none() {
            return self;
        }
        let switch = self.waves.iter().filter(|wave| !wave.is_preview());
        let waves = switch.map(|wave| Wave { approve: false, ..wave.clone() }).collect();
        Self { waves, users: Users::default(), ..self }
    }

    /// The same, for going back to what was good: nothing is watched, nobody is asked, and no host waits for another.
    #[must_use]
    pub fn returning(&self) -> Self {
        let waves = vec![Wave::of(Amount::Percent(100))];
        Self { waves, bake: Duration::ZERO, lockstep: false, second_person: false, users: Users::default(), ..self.clone() }
    }

    /// The same, for starting what is live anew. One release is no trial: nothing is shared, enters together, or has to be alone.
    #[must_use]
    pub fn renewing(&self) -> Self {
        let mut renewing = Self { exclusive: false, lockstep: false, keep_old: Duration::ZERO, ..self.clone() };
        renewing.waves.iter_mut().for_each(|wave| wave.share = None);
        renewing
    }

    /// The word people know for a strategy like this. For eyes only: nothing is decided by it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        let stepwise = self.waves.iter().any(|wave| wave.share.is_some() || wave.bake.is_some());
        match (self.exclusive, self.lockstep, stepwise) {
            (true, ..) => "recreate",
            (_, true, _) => "blue-green",
            (.., true) => "canary",
            _ => "rolling",
        }
    }
}

impl Wave {
    /// A wave of so many hosts, with what the strategy says for everything else.
    #[must_use]
    pub const fn of(hosts: Amount) -> Self {
        Self { hosts, share: None, bake: None, approve: false }
    }

    /// In which every host has both releases, and nobody reaches the new one but whom a rule names: it ends with the next wave,
    /// which is the switch.
    #[must_use]
    pub const fn preview() -> Self {
        Self { share: Some(Share::NONE), bake: Some(Duration::ZERO), ..Self::of(Amount::Percent(100)) }
    }

    #[must_use]
    pub fn is_preview(&self) -> bool {
        self.share == Some(Share::NONE)
    }
}

impl From<Amount> for Wave {
    fn from(hosts: Amount) -> Self {
        Self::of(hosts)
    }
}

impl Share {
    /// The number of hosts of `total` that this share of the traffic needs at least.
    #[must_use]
    pub fn hosts(self, total: usize) -> usize {
        (total * usize::from(u16::from(self))).div_ceil(usize::from(PLACES)).min(total)
    }
}

impl Amount {
    /// The number of hosts this is of `total`, rounded up and at most `total`: a wave of 1 % of 10 hosts is one host.
    #[must_use]
    pub fn of(self, total: usize) -> usize {
        match self {
            Self::Hosts(hosts) => (hosts as usize).min(total),
            Self::Percent(percent) => (total * usize::from(percent)).div_ceil(100).min(total),
        }
    }

    /// The same, rounded down: a bound on what may be missing is never rounded up.
    #[must_use]
    pub fn at_most(self, total: usize) -> usize {
        match self {
            Self::Hosts(hosts) => (hosts as usize).min(total),
            Self::Percent(percent) => (total * usize::from(percent) / 100).min(total),
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hosts(hosts) => write!(f, "{hosts}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}
