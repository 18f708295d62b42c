//! Every file of a stage, and the program that reads it.

use super::{COORDINATOR, Place, Places, SERVICE, Setup, front};
use crate::demo::warden::Program;
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

pub(super) fn host_names(setup: &Setup) -> Vec<String> {
    (1..=setup.hosts).map(|number| format!("web{number}")).collect()
}

pub(super) fn app_logs(folder: &Path) -> PathBuf {
    folder.join("orders")
}

pub(super) fn workplace(folder: &Path) -> PathBuf {
    folder.join("work")
}

pub(super) fn socket(folder: &Path) -> PathBuf {
    folder.join("coordinator.sock")
}

pub(super) fn token(folder: &Path, host: &str) -> PathBuf {
    folder.join(format!("{host}.token"))
}

/// Writes a stage's files and gives the programs that run on it, by name.
pub(super) fn write(setup: &Setup, places: &Places, folder: &Path) -> anyhow::Result<BTreeMap<String, Program>> {
    for part in [app_logs(folder), workplace(folder), folder.join("log")] {
        std::fs::create_dir(&part).with_context(|| format!("cannot make {}", part.display()))?;
    }
    let program = |name: &str, words: Vec<String>| Program {
        words,
        env: BTreeMap::from([("NO_COLOR".to_owned(), "1".to_owned())]),
        folder: folder.to_owned(),
        log: folder.join("log").join(name),
    };
    let part = |words: &[String]| setup.part.iter().chain(words).cloned().collect::<Vec<_>>();
    let mut programs = BTreeMap::new();

    let config = write_text(folder, "coordinator.toml", &coordinator(setup, places, folder))?;
    let words = match &setup.programs {
        Some(folder) => shipped(folder, COORDINATOR_SHIPPED, &[config]),
        None => part(&["coordinator".into(), "--config".into(), config]),
    };
    programs.insert(COORDINATOR.to_owned(), program(COORDINATOR, words));

    let mut addresses = host_names(setup).into_iter().zip(places.hosts.iter().copied()).collect::<Vec<_>>();
    let stands = front::stands(setup, places, folder);
    addresses.extend(stands.iter().map(|stand| (stand.host.to_owned(), stand.address)));
    for (name, address) in addresses {
        let mut text = agent(setup, places, folder, &name, address);
        if let Some(stand) = stands.iter().find(|stand| stand.host == name) {
            text.push_str(&front::table(setup, stand));
        }
        let config = write_text(folder, &format!("{name}.toml"), &text)?;
        let token = token(folder, &name).display().to_string();
        let mut words = match &setup.programs {
            Some(programs) => shipped(programs, AGENT_SHIPPED, &[config, places.coordinator.to_string(), token]),
            None => part(&["agent".into(), "--config".into(), config, "--token-file".into(), token]),
        };
        if let Some(kib) = setup.small_disk.filter(|_| name == "web1") {
            words = on_small_disk(&folder.join(&name), kib, words)?;
        }
        programs.insert(name.clone(), program(&name, words));
    }
    for stand in &stands {
        let Some(part) = stand.part else { continue };
        let words = front::write(setup, places, stand)?;
        programs.insert(part.to_owned(), program(part, words));
    }
    write_text(&workplace(folder), "baton.toml", &manifest(setup, places, folder))?;
    Ok(programs)
}

/// The shipped programs set themselves up with one command and run with another; the process that stays is the second one.
const COORDINATOR_SHIPPED: &str =
    r#""$0/baton-coordinator" init --config "$1" && exec "$0/baton-coordinator" run --config "$1""#;
const AGENT_SHIPPED: &str =
    r#""$0/baton-agent" join "$2" --token-file "$3" --config "$1" && exec "$0/baton-agent" run --config "$1""#;

fn shipped(programs: &Path, script: &str, words: &[String]) -> Vec<String> {
    let sh = ["sh".to_owned(), "-c".to_owned(), script.to_owned(), programs.display().to_string()];
    sh.into_iter().chain(words.iter().cloned()).collect()
}

/// Runs what follows in a mount namespace of its own, as root of nothing else.
pub(super) const UNSHARE: [&str; 4] = ["unshare", "--user", "--map-root-user", "--mount"];

/// The same program, with its state folder on a disk of this size. The process is the same: everything here replaces itself.
fn on_small_disk(state: &Path, kib: u32, words: Vec<String>) -> anyhow::Result<Vec<String>> {
    std::fs::create_dir(state).with_context(|| format!("cannot make {}", state.display()))?;
    let script = "mount -t tmpfs -o \"size=$1k,mode=700\" none \"$2\" && shift 2 && exec \"$@\"";
    let mut all = UNSHARE.map(str::to_owned).to_vec();
    all.extend(["sh", "-c", script, "sh", &kib.to_string(), &state.display().to_string()].map(str::to_owned));
    all.extend(words);
    Ok(all)
}

pub(super) fn write_text(folder: &Path, name: &str, text: &str) -> anyhow::Result<String> {
    let path = folder.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path.display().to_string())
}

/// Writes a file only its owner may read.
pub(super) fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    let file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn coordinator(setup: &Setup, places: &Places, folder: &Path) -> String {
    let listen = places.coordinator;
    let (socket, state) = (quoted(&socket(folder)), quoted(&folder.join("coordinator")));
    let mut text = format!("listen = \"{listen}\"\nsocket = {socket}\nstate = {state}\n");
    if let Some(life) = setup.certificate_life {
        text.push_str(&format!("certificate_life = \"{}s\"\n", life.as_secs()));
    }
    if setup.metrics {
        text.push_str(&format!("metrics = \"{}\"\n", places.coordinator_metrics));
    }
    text
}

fn agent(setup: &Setup, places: &Places, folder: &Path, name: &str, address: IpAddr) -> String {
    let (coordinator, state) = (places.coordinator, quoted(&folder.join(name)));
    let mut text = format!(
        "coordinator = \"{coordinator}\"\nname = \"{name}\"\naddress = \"{address}\"\nstate = {state}\nruntime = \"process\"\n"
    );
    if setup.metrics {
        text.push_str(&format!("metrics = \"{}\"\n", SocketAddr::new(address, places.agent_metrics)));
    }
    text.push_str(&format!("\n[allow]\nsecrets = [{}]\n", quoted(&folder.join("*"))));
    // Whoever runs a stage as root means its applications, too: they are of this program.
    if rustix::process::geteuid().is_root() {
        text.push_str("root = true\n");
    }
    text
}

pub(super) fn manifest(setup: &Setup, places: &Places, folder: &Path) -> String {
    let hosts = host_names(setup).iter().map(|host| format!("{host:?}")).collect::<Vec<_>>().join(", ");
    let slots = if setup.place == Place::InPlace { 1 } else { 2 };
    let ports = places.ports.iter().take(slots).map(u16::to_string).collect::<Vec<_>>().join(", ");
    let (listen, balancer) = match setup.place {
        Place::Handover => (format!("listen = \"{}\"\n", places.frontend), String::new()),
        _ => {
            let on = setup.balancers().map(|host| format!("{host:?}")).collect::<Vec<_>>().join(", ");
            (String::new(), format!("[balancer]\non = [{on}]\npool = \"{SERVICE}\"\n\n"))
        }
    };
    let log = app_logs(folder).join("{version}-{address}-{port}.log");
    let [healthy_for, start_timeout, drain] =
        [setup.healthy_for, setup.start_timeout, setup.drain].map(|duration| format!("{}ms", duration.as_millis()));
    let waves = match setup.watched.as_millis() {
        0 => String::new(),
        bake => format!("waves = [1, \"100%\"]\nbake = \"{bake}ms\"\n"),
    };
    format!(
        "service = \"{SERVICE}\"
hosts = [{hosts}]

[artifact]
path = \"{SERVICE}-{{version}}.tar.zst\"

[run]
command = \"bin/shop --listen {{address}}:{{port}} --log {}\"
ports = [{ports}]
{listen}stop = {{ signal = \"SIGTERM\", timeout = \"10s\" }}

[health]
http = \"/healthz\"
interval = \"500ms\"
timeout = \"1s\"
healthy_for = \"{healthy_for}\"
start_timeout = \"{start_timeout}\"

{balancer}[rollout]
strategy = \"rolling\"
max_unavailable = 1
drain = \"{drain}\"
{waves}",
        log.display()
    )
}

/// A path as TOML writes it: a JSON string is a TOML string.
pub(super) fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.display().to_string()).to_string()
}
