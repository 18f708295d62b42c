//! What is looked at before a machine joins, by name, while the token is still whole.

use crate::balancer::BalancerConfig;
use crate::config::{Config, RuntimeKind};
use crate::enroll::Claim;
use crate::runtime::systemd;
use crate::text::bytes;
use baton_core::problem::{Code, Problem};
use baton_proto::identity::{Identity, Subject};
use baton_proto::problem::{code, from_status};
use baton_proto::tls::{Credentials, channel, date, hot, joining_config};
use baton_proto::token::JoinToken;
use baton_proto::unit;
use baton_proto::v1::enrollment_client::EnrollmentClient;
use baton_proto::v1::{GreetRequest, Greeting};
use baton_proto::{PROTOCOL, understands};
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How far the clocks may be apart: certificates begin five minutes early.
const CLOCKS: i64 = 240;
/// A release and the one before it need some room.
const ROOM: u64 = 200 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(5);

/// One thing that was looked at.
#[derive(Debug)]
pub struct Check {
    pub name: &'static str,
    /// What was seen, or why this machine should not join like this.
    pub outcome: Result<String, Problem>,
}

/// Looks at everything, in this order; nothing is changed and nothing is spent.
///
/// What needs the coordinator's answer is left out once it has none, and everything else where this machine has joined already:
/// one reason is enough.
pub async fn examine(config: &Config, endpoint: &str, token: &JoinToken, claim: Claim) -> Vec<Check> {
    // What an agent that runs here is told by its coordinator, if there is one.
    let asked = tokio::time::timeout(PATIENCE, crate::local::ask(&config.state)).await;
    let asked = asked.ok().and_then(Result::ok);
    let runs = asked.is_some();
    let says = asked.map(|report| report.problems).unwrap_or_default();
    let identity = Check { name: "identity", outcome: identity(config, claim, now(), &says) };
    if identity.outcome.is_err() {
        return vec![identity];
    }
    let mut checks = vec![
        identity,
        Check { name: "systemd", outcome: runtime(config.runtime) },
        Check { name: "disk", outcome: disk(&config.state, ROOM) },
        Check { name: "ports", outcome: ports(config, runs) },
        Check { name: "reach", outcome: reach(endpoint).await },
    ];
    if checks.iter().all(|check| check.name != "reach" || check.outcome.is_ok()) {
        // Whoever answers shows its chain first: without the pinned authority in it there is no greeting.
        match greet(endpoint, token).await {
            Ok(greeting) => {
                checks.push(Check { name: "fingerprint", outcome: Ok("the authority is the token's".to_owned()) });
                checks.push(Check { name: "clock", outcome: clock(&greeting, now()) });
                checks.push(Check { name: "version", outcome: version(&greeting) });
            }
            Err(problem) if problem.code == code::CERTIFICATE_TIME => {
                checks.push(Check { name: "clock", outcome: Err(problem) });
            }
            Err(problem) => checks.push(Check { name: "fingerprint", outcome: Err(problem) }),
        }
    }
    checks
}

/// Who this machine is already: its certificate is not thrown away without a word.
fn identity(config: &Config, claim: Claim, now: i64, says: &[Problem]) -> Result<String, Problem> {
    // One that cannot be read is good for nothing, and joining is what helps.
    let Ok(own) = Credentials::load(&config.identity()).and_then(|own| own.subject()) else {
        return Ok("none yet".to_owned());
    };
    match claim {
        Claim::Replace => Ok(format!("{}, which this join replaces", own.identity)),
        Claim::New => Err(joined_already(config, &own, now, says)),
    }
}

/// B0547: with the coordinator, the dates, and the way on.
fn joined_already(config: &Config, own: &Subject, now: i64, says: &[Problem]) -> Problem {
    let joined = fs::read_to_string(config.endpoint_file()).map(|endpoint| endpoint.trim().to_owned());
    let (ends, turned_away) = match own.not_after <= now {
        true => ("ended", true),
        false => ("valid until", says.iter().any(|problem| problem.code == code::REFUSED)),
    };
    let useless = match turned_away {
        true => "with it:",
        false => "where its certificate is good for nothing any more, or to join elsewhere:",
    };
    let token = match &own.identity {
        Identity::Host(name) => format!("baton token create --name {name}"),
        _ => "baton token create".to_owned(),
    };
    let again = format!("{useless} {token} at the coordinator, and here baton-agent join … --replace");
    let help = match turned_away {
        true => format!("a new certificate takes a new token; {again}"),
        false => format!("nothing is left to do but {}; {again}", unit::command("enable --now", "baton-agent")),
    };
    Problem::new(Code(547), format!("this machine has joined already: it is {}", own.identity))
        .saw("coordinator", joined.unwrap_or_else(|_| "not written down".to_owned()))
        .saw(ends, date(own.not_after))
        .saw("kept in", config.identity().display().to_string())
        .help(help)
}

fn runtime(kind: RuntimeKind) -> Result<String, Problem> {
    match (kind, systemd::runs_here()) {
        (RuntimeKind::Process, _) => Ok("not used: runtime = \"process\"".to_owned()),
        (_, true) => Ok("it runs this machine".to_owned()),
        (RuntimeKind::Auto, false) => Ok("not here: instances will be plain processes".to_owned()),
        (RuntimeKind::Systemd, false) => {
            Err(Problem::new(Code(537), "systemd does not run this machine, or this user may not use it")
                .saw("asked for", "runtime = \"systemd\"")
                .help("be root on a machine that systemd runs, or write runtime = \"process\" into agent.toml"))
        }
    }
}

fn disk(state: &Path, needed: u64) -> Result<String, Problem> {
    let there = state.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let refuse = |what: String| Problem::new(Code(538), what).saw("state", state.display().to_string());
    let disk =
        rustix::fs::statvfs(there).map_err(|error| refuse(format!("the disk of the state folder says nothing: {error}")))?;
    if disk.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return Err(refuse("the disk of the state folder is read-only".to_owned()).help("mount it for writing"));
    }
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    match free < needed {
        true => Err(refuse(format!("only {} are free on the disk of the state folder", bytes(free)))
            .saw("needed", format!("{}: a release, and the one before it", bytes(needed)))
            .saw("free", format!("{} at {}", bytes(free), there.display()))
            .help("make room there, or name another folder: state = \"/…\" in agent.toml")),
        false => Ok(format!("{} free", bytes(free))),
    }
}

/// What is to listen here, and whether it can. Whatever an agent that `runs` here listens at is this machine's already.
fn ports(config: &Config, runs: bool) -> Result<String, Problem> {
    let taken = |whose: &str, address: &SocketAddr, error: io::Error| {
        Problem::new(Code(539), format!("{whose} cannot listen at {address}"))
            .saw("network", error.to_string())
            .help(format!("see who does: ss -ltnp 'sport = :{}'", address.port()))
    };
    if let Some(address) = config.metrics.filter(|_| !runs) {
        TcpListener::bind(address).map_err(|error| taken("the agent, for /metrics,", &address, error))?;
    }
    match &config.balancer {
        None => Ok("none: this host drives no balancer".to_owned()),
        Some(BalancerConfig::Builtin(builtin)) => {
            for (pool, files) in &builtin.tls {
                files.check(pool)?;
            }
            // It goes on while its agent is gone, joins anew or is upgraded.
            let control = builtin.control.clone().unwrap_or_else(|| config.state.join("balancer/builtin.sock"));
            if UnixStream::connect(control).is_ok() {
                return Ok("its balancer serves there".to_owned());
            }
            for (pool, address) in &builtin.listen {
                TcpListener::bind(address).map_err(|error| taken(&format!("the balancer, for {pool},"), address, error))?;
            }
            Ok(format!("{} free for the balancer", builtin.listen.len()))
        }
        Some(BalancerConfig::Haproxy(haproxy)) => match haproxy.socket.exists() {
            true => Ok("HAProxy's socket is there".to_owned()),
            false => Err(Problem::new(Code(539), "HAProxy's socket is not there")
                .saw("socket", haproxy.socket.display().to_string())
                .help("start HAProxy, and check `stats socket` in its configuration")),
        },
        // What others need is looked at when the agent runs.
        Some(_) => Ok("left to the balancer".to_owned()),
    }
}

async fn reach(endpoint: &str) -> Result<String, Problem> {
    let unreachable = |code, seen: String| {
        Problem::new(code, format!("{endpoint} cannot be reached from here"))
            .saw("connect", seen)
            .help("is baton-coordinator running there, is the address right, and does a firewall let it through?")
    };
    let addresses = endpoint.to_socket_addrs().map_err(|error| unreachable(code::UNREACHABLE, error.to_string()))?;
    let mut last = unreachable(code::UNREACHABLE, "no address".to_owned());
    for address in addresses {
        match tokio::time::timeout(PATIENCE, tokio::net::TcpStream::connect(address)).await {
            Ok(Ok(_)) => return Ok(address.to_string()),
            Ok(Err(error)) => last = unreachable(code::UNREACHABLE, format!("{address}: {error}")),
            Err(_) => last = unreachable(code::NO_ANSWER, format!("{address}: nothing for {} s", PATIENCE.as_secs())),
        }
    }
    Err(last)
}

async fn greet(endpoint: &str, token: &JoinToken) -> Result<Option<Greeting>, Problem> {
    let mut client = EnrollmentClient::new(channel(endpoint, hot(joining_config(token.pin)?))?);
    match client.greet(GreetRequest {}).await {
        Ok(greeting) => Ok(Some(greeting.into_inner())),
        // A coordinator from before there were greetings; it says more when the machine joins.
        Err(status) if from_status(&status).code == code::NOT_UNDERSTOOD => Ok(None),
        Err(status) => Err(from_status(&status)),
    }
}

fn clock(greeting: &Option<Greeting>, now: i64) -> Result<String, Problem> {
    let Some(greeting) = greeting else { return Ok("not said".to_owned()) };
    let apart = now.saturating_sub(greeting.clock_seconds);
    if apart.abs() <= CLOCKS {
        return Ok(format!("{} s apart", apart.abs()));
    }
    let word = if apart > 0 { "ahead of" } else { "behind" };
    Err(Problem::new(code::CERTIFICATE_TIME, format!("the clock here is {} s {word} the coordinator's", apart.abs()))
        .saw("allowed", format!("{CLOCKS} s"))
        .help("timedatectl set-ntp true on both machines, and compare `date -u`: certificates have dates"))
}

fn version(greeting: &Option<Greeting>) -> Result<String, Problem> {
    let Some(greeting) = greeting else { return Ok("not said".to_owned()) };
    let mine = env!("CARGO_PKG_VERSION");
    if understands(greeting.protocol) {
        return Ok(format!("{mine} here, {} there", greeting.coordinator_version));
    }
    Err(Problem::new(code::NOT_UNDERSTOOD, "the versions of this agent and the coordinator are too far apart")
        .saw("agent", format!("version {mine}, protocol {PROTOCOL}"))
        .saw("coordinator", format!("version {}, protocol {}", greeting.coordinator_version, greeting.protocol))
        .help("upgrade the older of the two, one version at a time"))
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting(clock_seconds: i64, protocol: u32) -> Option<Greeting> {
        Some(Greeting { clock_seconds, protocol, oldest_protocol: 1, ..Greeting::default() })
    }

    #[test]
    fn a_clock_that_is_off_by_a_year_is_said_with_its_direction() {
        const YEAR: i64 = 365 * 24 * 3600;
        assert!(clock(&greeting(1_000_000, 1), 1_000_100).is_ok());
        let ahead = clock(&greeting(1_000_000, 1), 1_000_000 + YEAR).unwrap_err();
        assert!(ahead.code == code::CERTIFICATE_TIME && ahead.what.contains("31536000 s ahead of"), "{ahead:?}");
        let behind = clock(&greeting(1_000_000 + YEAR, 1), 1_000_000).unwrap_err();
        assert!(behind.what.contains("behind") && behind.help.is_some(), "{behind:?}");
    }

    #[test]
    fn who_has_joined_already_hears_where_until_when_and_how_to_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { state: folder.path().to_owned(), ..Config::default() };
        assert_eq!(identity(&config, Claim::New, 0, &[]).unwrap(), "none yet");
        let own = Subject {
            identity: Identity::Host("web1".parse().unwrap()),
            services: Vec::new(),
            issuer: Vec::new(),
            serial: "01".to_owned(),
            not_before: 0,
            not_after: 86_400,
        };
        let told = |now, says: &[Problem]| {
            let problem = joined_already(&config, &own, now, says);
            assert_eq!(
                (problem.code, problem.what.as_str()),
                (Code(547), "this machine has joined already: it is host/web1")
            );
            assert_eq!(problem.seen[0], ("coordinator".to_owned(), "not written down".to_owned()));
            (problem.seen[1].0.clone(), problem.seen[1].1.clone(), problem.help.clone().unwrap())
        };
        let (label, date, help) = told(86_399, &[]);
        assert!(label == "valid until" && date.starts_with("Jan  2 "), "{label} {date}");
        assert!(help.starts_with("nothing is left to do but ") && help.contains("baton token create --name web1"), "{help}");
        let revoked = [Problem::new(code::REFUSED, "this certificate is not accepted any more")];
        for (now, says, expected) in [(86_400, &[][..], "ended"), (86_399, &revoked[..], "valid until")] {
            let (label, _, help) = told(now, says);
            assert!(label == expected && !help.contains("enable --now") && help.ends_with("--replace"), "{help}");
        }
    }

    #[test]
    fn versions_too_far_apart_are_refused_before_the_token_is_spent() {
        assert!(version(&greeting(0, PROTOCOL + 1)).is_ok() && version(&None).is_ok());
        assert_eq!(version(&greeting(0, PROTOCOL + 2)).unwrap_err().code, code::NOT_UNDERSTOOD);
    }

    #[test]
    fn a_port_in_use_is_named_with_whom_to_ask() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let balancer = format!("driver = \"builtin\"\nlisten = {{ shop = \"{address}\" }}");
        let with = |balancer: Option<&str>, metrics| Config {
            state: folder.path().to_owned(),
            balancer: balancer.map(|text| toml::from_str(text).unwrap()),
            metrics,
            ..Config::default()
        };
        let (balances, tells) = (with(Some(&balancer), None), with(None, Some(address)));
        for config in [&balances, &tells] {
            let refused = ports(config, false).unwrap_err();
            assert!(refused.code == Code(539) && refused.what.contains(&address.to_string()), "{refused:?}");
            assert!(refused.help.as_ref().unwrap().contains(&address.port().to_string()));
        }
        assert!(ports(&tells, true).is_ok(), "it is this machine's own agent that listens there");
        fs::create_dir(folder.path().join("balancer")).unwrap();
        let serves = std::os::unix::net::UnixListener::bind(folder.path().join("balancer/builtin.sock")).unwrap();
        assert!(ports(&balances, false).is_ok(), "it is this machine's own balancer");
        drop((taken, serves));
        assert!([&balances, &tells, &with(None, None)].into_iter().all(|config| ports(config, false).is_ok()));
    }

    #[test]
    fn a_disk_with_too_little_room_says_how_much_is_needed_and_where() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("not/yet/there");
        assert!(disk(&state, 0).unwrap().ends_with(" free"));
        let refused = disk(&state, u64::MAX).unwrap_err();
        assert_eq!(refused.code, Code(538));
        let seen = |label: &str| refused.seen.iter().find(|(seen, _)| seen == label).map(|(_, what)| what.as_str()).unwrap();
        assert!(seen("needed").starts_with("18446744073.7 GB"), "{refused:?}");
        assert!(seen("free").ends_with(&format!(" at {}", folder.path().display())), "{refused:?}");
    }

    #[tokio::test]
    async fn an_address_nobody_listens_at_is_not_reached() {
        let free = crate::places::place();
        assert_eq!(reach(&free.to_string()).await.unwrap_err().code, code::UNREACHABLE);
        assert_eq!(reach("no.such.host.invalid:7443").await.unwrap_err().code, code::UNREACHABLE);
    }
}
