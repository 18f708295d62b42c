//! The load balancer of a stage: what its agent is told, its program, and its configuration.

use super::files::{host_names, quoted, write_text};
use super::{BALANCER_HOST, BROKEN_STAGE, Places, SECOND_BALANCER_HOST, SERVICE, Setup};
use anyhow::Context as _;
use baton_core::fleet::latency::BOUNDS_MS;
use baton_core::problem::Problem;
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;

pub(super) const HAPROXY: &str = "haproxy";
const NGINX: &str = "nginx";
const ENVOY: &str = "envoy";

/// Where a distribution's nginx is, also for users whose PATH does not lead there.
const SBIN: &str = "/usr/sbin";

/// Which load balancer stands in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Front {
    Builtin,
    Haproxy,
    /// 1.27.4 or later: one before it closes kept connections at each step
    Nginx,
    Envoy,
}

impl Front {
    /// Its name in configurations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Builtin => "builtin",
            Self::Haproxy => HAPROXY,
            Self::Nginx => NGINX,
            Self::Envoy => ENVOY,
        }
    }

    /// The part of the stage that it is; the built-in one belongs to its agent.
    #[must_use]
    pub const fn part(self) -> Option<&'static str> {
        match self {
            Self::Builtin => None,
            _ => Some(self.name()),
        }
    }

    /// The same where it is the second one of a stage.
    #[must_use]
    pub const fn second_part(self) -> Option<&'static str> {
        match self {
            Self::Builtin => None,
            Self::Haproxy => Some("haproxy-2"),
            Self::Nginx => Some("nginx-2"),
            Self::Envoy => Some("envoy-2"),
        }
    }
}

/// One load balancer of a stage: where it stands, and where its files are.
#[derive(Debug)]
pub(super) struct Stand {
    front: Front,
    pub(super) host: &'static str,
    /// Of its host.
    pub(super) address: IpAddr,
    pub(super) part: Option<&'static str>,
    frontend: SocketAddr,
    status: SocketAddr,
    folder: PathBuf,
    program: String,
}

/// Every load balancer of a stage.
pub(super) fn stands(setup: &Setup, places: &Places, folder: &Path) -> Vec<Stand> {
    let first = Stand {
        front: setup.front,
        host: BALANCER_HOST,
        address: places.centre,
        part: setup.front.part(),
        frontend: places.frontend,
        status: places.balancer_status,
        folder: folder.to_owned(),
        program: program(setup, setup.front),
    };
    let second = setup.second.map(|front| Stand {
        front,
        host: SECOND_BALANCER_HOST,
        address: places.second,
        part: front.second_part(),
        frontend: SocketAddr::new(places.second, places.frontend.port()),
        status: SocketAddr::new(places.second, places.balancer_status.port()),
        folder: folder.join("second"),
        program: program(setup, front),
    });
    std::iter::once(first).chain(second).collect()
}

/// The `[balancer]` table of the agent beside it.
pub(super) fn table(setup: &Setup, stand: &Stand) -> String {
    let file = |name: &str| quoted(&stand.folder.join(name));
    let table = match stand.front {
        Front::Builtin => {
            let words = setup.part.iter().map(String::as_str).chain(["balancer"]);
            let words = words.map(|word| Value::from(word).to_string()).collect::<Vec<_>>().join(", ");
            // The shipped agent starts itself as the balancer.
            let command = if setup.programs.is_some() { String::new() } else { format!("command = [{words}]\n") };
            format!("{command}listen = {{ {SERVICE} = \"{}\" }}\n", stand.frontend)
        }
        Front::Haproxy => format!(
            "socket = {}\nmaster_socket = {}\nstate_file = {}\nrequests = \"{}\"\n",
            file("haproxy.sock"),
            file("haproxy-master.sock"),
            file("haproxy.state"),
            stand.status
        ),
        Front::Nginx => format!(
            "include = {}\nstatus = \"{}\"\npid_file = {}\nbinary = {}\nconfig = {}\nupstream = [\"keepalive 32\"]\n",
            file("nginx-baton.conf"),
            stand.status,
            file("nginx.pid"),
            Value::from(stand.program.as_str()),
            file("nginx.conf")
        ),
        Front::Envoy => format!("admin = {}\nfolder = {}\n", file("envoy.sock"), file("eds")),
    };
    format!("\n[balancer]\ndriver = \"{}\"\n{table}", stand.front.name())
}

/// Writes the program's files and gives the words that start it. It stays the process that was started.
pub(super) fn write(setup: &Setup, places: &Places, stand: &Stand) -> anyhow::Result<Vec<String>> {
    let folder = stand.folder.as_path();
    std::fs::create_dir_all(folder.join("log")).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut words = vec![stand.program.clone()];
    match stand.front {
        Front::Builtin => {}
        Front::Haproxy => {
            let config = write_text(folder, "haproxy.cfg", &haproxy(setup, places, stand))?;
            // Read at every start, so it has to be there at the first.
            write_text(folder, "haproxy.state", "1\n")?;
            let master = folder.join("haproxy-master.sock").display().to_string();
            words.extend(["-W", "-S", &master, "-f", &config].map(str::to_owned));
        }
        Front::Nginx => {
            let config = write_text(folder, "nginx.conf", &nginx(stand, keeps_idle(&stand.program)))?;
            let first = format!(
                "# Baton\nupstream {SERVICE} {{ server 127.0.0.1:1 down; }}\nmap \"\" $baton_{SERVICE} {{ default {SERVICE}; }}\n"
            );
            write_text(folder, "nginx-baton.conf", &first)?;
            words.extend(["-c", &config].map(str::to_owned));
        }
        Front::Envoy => {
            let config = write_text(folder, "envoy.json", &envoy(stand))?;
            let eds = folder.join("eds");
            std::fs::create_dir(&eds).with_context(|| format!("cannot make {}", eds.display()))?;
            let nobody = json!({
                "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
                "cluster_name": SERVICE,
            });
            let first = json!({ "version_info": "0", "resources": [nobody] });
            write_text(&eds, &format!("{SERVICE}.json"), &first.to_string())?;
            words.extend(["--disable-hot-restart", "--concurrency", "1", "-l", "warning", "-c", &config].map(str::to_owned));
        }
    }
    Ok(words)
}

fn program(setup: &Setup, front: Front) -> String {
    let name = front.name();
    match setup.front_program.as_ref().filter(|_| front == setup.front) {
        Some(path) => path.display().to_string(),
        None if front == Front::Nginx => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let found = std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
            if found { name.to_owned() } else { format!("{SBIN}/{name}") }
        }
        None => name.to_owned(),
    }
}

/// Looks for the programs of a stage before anything of it is started; what is to be known of them.
///
/// # Errors
/// B1090: one of them is not there.
pub fn look(setup: &Setup) -> Result<Option<String>, Problem> {
    for front in [Some(setup.front), setup.second].into_iter().flatten().filter(|front| front.part().is_some()) {
        let (name, program) = (front.name(), program(setup, front));
        if let Err(error) = std::process::Command::new(&program).arg("-v").stdin(Stdio::null()).output() {
            return Err(Problem::new(BROKEN_STAGE, format!("{name} cannot be started"))
                .saw(program, error.to_string())
                .help(format!("install {name} so that it is found in PATH, or leave --balancer out")));
        }
        if front == Front::Nginx && !keeps_idle(&program) {
            return Ok(Some(format!(
                "nginx {} closes kept connections at every change, and a request that meets one of these fails; 1.27.4 and \
                 later keep them",
                nginx_version(&program)
            )));
        }
    }
    Ok(None)
}

fn nginx_version(nginx: &str) -> String {
    let said = std::process::Command::new(nginx).arg("-v").output().map(|output| output.stderr).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    said.rsplit_once('/').map_or("", |(_, version)| version.trim()).to_owned()
}

/// Whether this nginx knows the directive that keeps idle connections over a reload; one that does not refuses to start with it.
fn keeps_idle(nginx: &str) -> bool {
    let version = nginx_version(nginx);
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    [0; 3].map(|_: u32| numbers.next().unwrap_or(0)) >= [1, 27, 4]
}

/// A configuration as a careful owner writes it. No retries: what a client sees is what the fleet did.
fn nginx(stand: &Stand, keeps_idle: bool) -> String {
    let (folder, frontend) = (stand.folder.display(), stand.frontend);
    let keeps = if keeps_idle { "    keepalive_min_timeout 5s;\n" } else { "" };
    format!(
        "daemon off;
pid {folder}/nginx.pid;
error_log {folder}/log/nginx-errors;
worker_processes 1;

events {{
    worker_connections 1024;
}}

http {{
    access_log {folder}/log/nginx-access;
    include {folder}/nginx-baton.conf;
{keeps}    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    scgi_temp_path {folder}/nginx-scgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    proxy_http_version 1.1;
    map $http_upgrade $connection_header {{
        default upgrade;
        '' '';
    }}
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $connection_header;
    proxy_next_upstream off;

    server {{
        listen {frontend};
        location / {{ proxy_pass http://$baton_{SERVICE}; }}
    }}
}}
"
    )
}

/// The same for Envoy.
fn envoy(stand: &Stand) -> String {
    let Stand { frontend, folder, .. } = stand;
    let frontend = json!({ "socket_address": { "address": frontend.ip(), "port_value": frontend.port() } });
    let extension = |name: &str| format!("type.googleapis.com/envoy.extensions.{name}");
    let manager = json!({
        "@type": extension("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": SERVICE,
        "upgrade_configs": [{ "upgrade_type": "websocket" }],
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": extension("filters.http.router.v3.Router") },
        }],
        "route_config": { "virtual_hosts": [{
            "name": SERVICE,
            "domains": ["*"],
            "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": SERVICE } }],
        }] },
    });
    let filter = json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager });
    let eds = folder.join("eds");
    let source = json!({
        "path": eds.join(format!("{SERVICE}.json")),
        "watched_directory": { "path": eds },
    });
    let http = json!({
        "@type": extension("upstreams.http.v3.HttpProtocolOptions"),
        "explicit_http_config": { "http_protocol_options": {} },
        "common_http_protocol_options": { "idle_timeout": "5s" },
    });
    let cluster = json!({
        "name": SERVICE,
        "type": "EDS",
        "eds_cluster_config": { "eds_config": { "resource_api_version": "V3", "path_config_source": source } },
        "common_lb_config": { "healthy_panic_threshold": { "value": 0 } },
        "lb_policy": "ROUND_ROBIN",
        "connect_timeout": "2s",
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http },
    });
    let bounds: Vec<u64> = BOUNDS_MS.into_iter().chain([3_600_000]).collect();
    let config = json!({
        "node": { "id": SERVICE, "cluster": SERVICE, "locality": { "zone": SERVICE } },
        "stats_flush_interval": "1s",
        "stats_config": { "histogram_bucket_settings": [{ "match": { "suffix": "upstream_rq_time" }, "buckets": bounds }] },
        "admin": { "address": { "pipe": { "path": folder.join("envoy.sock"), "mode": 0o600 } } },
        "static_resources": {
            "listeners": [{ "name": SERVICE, "address": frontend, "filter_chains": [{ "filters": [filter] }] }],
            "clusters": [cluster],
        },
    });
    format!("{config:#}\n")
}

/// A configuration as a careful owner writes it. No retries: what a client sees is what the fleet did.
fn haproxy(setup: &Setup, places: &Places, stand: &Stand) -> String {
    let (socket, state) = (stand.folder.join("haproxy.sock"), stand.folder.join("haproxy.state"));
    let (socket, state, frontend) = (socket.display(), state.display(), stand.frontend);
    let requests = stand.status;
    let mut text = format!(
        "global
    maxconn 4000
    nbthread 1
    stats socket {socket} mode 600 level admin
    server-state-file {state}
    log {requests} local0
    hard-stop-after 30s

defaults
    mode http
    log global
    option httplog
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 60s
    timeout tunnel 10m
    retries 0
    option idle-close-on-response
    load-server-state-from-file global

frontend {SERVICE}
    bind {frontend}
    default_backend {SERVICE}

backend {SERVICE}
    balance roundrobin
    default-server pool-purge-delay 1s
"
    );
    if setup.checks {
        text.push_str("    option httpchk GET /healthz\n    default-server check inter 1s fall 3\n");
    }
    for (host, address) in host_names(setup).iter().zip(&places.hosts) {
        for (slot, port) in places.ports.iter().enumerate() {
            text.push_str(&format!("    server {host}-{slot} {address}:{port} disabled\n"));
        }
    }
    text
}
