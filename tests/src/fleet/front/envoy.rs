//! Envoy with the sample configuration, as a user of its own.

use super::Front;
use crate::fleet::host::Host;
use crate::fleet::pool::Pool;

const SAMPLE: &str = include_str!("../../../../agent/examples/envoy.yaml");
const FIRST: &str = include_str!("../../../../agent/examples/envoy-eds.json");

const PROGRAM: &str = "/usr/local/bin/envoy";

pub(super) const SETTINGS: &str = r#"
[balancer]
driver = "envoy"
admin = "/run/envoy/admin.sock"
folder = "/var/lib/envoy/baton"
"#;

/// Without hot restart: a restart is one process after another, as everywhere else.
const UNIT: &str = "[Unit]
Description=Envoy
After=network-online.target

[Service]
User=nobody
RuntimeDirectory=envoy
ExecStart=/usr/local/bin/envoy --disable-hot-restart --concurrency 2 --log-level warning -c /etc/envoy/envoy.yaml
Restart=always
RestartSec=100ms

[Install]
WantedBy=multi-user.target
";

pub(super) fn install(host: &Host) -> anyhow::Result<()> {
    Front::Envoy.bring(host, PROGRAM)?;
    host.write("/etc/envoy/envoy.yaml", &configuration())?;
    for pool in Front::Envoy.pools() {
        host.write(&format!("/var/lib/envoy/baton/{}.json", pool.name), &FIRST.replace("shop", pool.name))?;
    }
    host.write("/etc/systemd/system/envoy.service", UNIT)
}

/// The sample with one listener and one cluster for each pool.
fn configuration() -> String {
    let sample =
        SAMPLE.replace("@FOLDER@/admin.sock", "/run/envoy/admin.sock").replace("@FOLDER@/eds", "/var/lib/envoy/baton");
    let (head, rest) = sample.split_at(sample.find("  - name: shop\n").unwrap_or(sample.len()));
    let (listener, clusters) = rest.split_at(rest.find("  clusters:\n").unwrap_or(rest.len()));
    let (title, cluster) = clusters.split_at(clusters.find("  - name: shop").unwrap_or(clusters.len()));
    let each = |part: &str| {
        let filled = Front::Envoy.pools().map(|pool: &Pool| {
            let part = part.replace("@ADDRESS@", "0.0.0.0").replace("@PORT@", &pool.listen.to_string());
            part.replace("shop", pool.name)
        });
        filled.collect::<String>()
    };
    format!("{head}{}{title}{}", each(listener), each(cluster))
}
