//! nginx with the sample configuration, in a distribution's places.

use super::Front;
use crate::fleet::host::Host;
use crate::fleet::pool::Pool;
use std::fs;

const SAMPLE: &str = include_str!("../../../../agent/examples/nginx.conf");
const FIRST: &str = include_str!("../../../../agent/examples/nginx-baton.conf");

const PROGRAM: &str = "/usr/local/sbin/nginx";

pub(super) const SETTINGS: &str = r#"
[balancer]
driver = "nginx"
include = "/etc/nginx/baton.conf"
status = "127.0.0.1:8079"
binary = "/usr/local/sbin/nginx"
config = "/etc/nginx/nginx.conf"
upstream = ["keepalive 32"]
"#;

/// As nginx's own page about systemd has it.
const UNIT: &str = "[Unit]
Description=nginx
After=network-online.target

[Service]
Type=forking
PIDFile=/run/nginx.pid
ExecStart=/usr/local/sbin/nginx -c /etc/nginx/nginx.conf
ExecReload=/bin/kill -HUP $MAINPID
KillSignal=SIGQUIT
Restart=always
RestartSec=100ms

[Install]
WantedBy=multi-user.target
";

pub(super) fn install(host: &Host) -> anyhow::Result<()> {
    Front::Nginx.bring(host, PROGRAM)?;
    fs::create_dir_all(host.root().join("var/lib/nginx"))?;
    host.write("/etc/nginx/nginx.conf", &configuration())?;
    let first = Front::Nginx.pools().map(|pool| FIRST.replace("shop", pool.name)).collect::<String>();
    host.write("/etc/nginx/baton.conf", &first)?;
    host.write("/etc/systemd/system/nginx.service", UNIT)
}

/// The sample with one server for each pool, and with what an nginx of this version needs to lose no idle connection.
fn configuration() -> String {
    let sample = SAMPLE
        .replace("@FOLDER@/nginx.pid", "/run/nginx.pid")
        .replace("@FOLDER@/baton.conf", "/etc/nginx/baton.conf")
        .replace("@FOLDER@", "/var/lib/nginx")
        .replace("# keepalive_min_timeout", "keepalive_min_timeout");
    let (http, server) = sample.split_at(sample.find("    server {").unwrap_or(sample.len()));
    let (server, end) = server.split_at(server.rfind('}').unwrap_or(server.len()));
    let servers = Front::Nginx
        .pools()
        .map(|pool: &Pool| server.replace("@LISTEN@", &pool.listen.to_string()).replace("shop", pool.name));
    format!("{http}{}{end}", servers.collect::<String>())
}
