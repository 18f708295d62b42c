//! Debian's HAProxy with a configuration as its owner might have written it.

use super::Front;
use crate::fleet::host::Host;
use crate::fleet::pool::Pool;
use crate::fleet::record::{Fleet, Part};

/// What Baton needs to be told about: an admin socket, and a state file that is loaded at the start. Backends are named like
/// Baton's pools, servers like its members.
const CONFIGURATION: &str = include_str!("haproxy.cfg");

pub(super) const SETTINGS: &str = r#"
[balancer]
driver = "haproxy"
socket = "/run/haproxy/admin.sock"
master_socket = "/run/haproxy-master.sock"
state_file = "/var/lib/haproxy/server-state"
requests = "127.0.0.1:8405"
"#;

pub(super) fn install(host: &Host, fleet: &Fleet) -> anyhow::Result<()> {
    let backends = Front::Haproxy.pools().map(|pool| backend(pool, fleet)).collect::<String>();
    host.write("/etc/haproxy/haproxy.cfg", &format!("{CONFIGURATION}{backends}"))
}

fn backend(pool: &Pool, fleet: &Fleet) -> String {
    let Pool { name, listen, ports, .. } = pool;
    let mut text = format!(
        "\nfrontend {name}\n    bind :{listen}\n    default_backend {name}\n\nbackend {name}\n    balance roundrobin\n"
    );
    for host in fleet.every(Part::Web) {
        for (slot, port) in ports.iter().enumerate() {
            text.push_str(&format!("    server {}-{slot} {}:{port} disabled\n", host.name, host.address));
        }
    }
    text
}
