//! A Prometheus of a test's own.

use anyhow::Context as _;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// Between two looks at whether it listens.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// It ends with this.
#[derive(Debug)]
pub struct Prometheus {
    _child: Child,
    pub address: SocketAddr,
}

impl Prometheus {
    /// Starts one that scrapes these jobs twice a second, with these alerts.
    ///
    /// # Errors
    /// When it cannot be started, or ends.
    pub async fn start(folder: &Path, alerts: Option<&Path>, jobs: &[(&str, Vec<SocketAddr>)]) -> anyhow::Result<Self> {
        let mut config = "global:\n  scrape_interval: 500ms\n  evaluation_interval: 1s\n".to_owned();
        if let Some(alerts) = alerts {
            writeln!(config, "rule_files: [{alerts:?}]")?;
        }
        config.push_str("scrape_configs:\n");
        for (name, addresses) in jobs {
            let targets = addresses.iter().map(|it| format!("\"{it}\"")).collect::<Vec<_>>().join(", ");
            writeln!(config, "  - job_name: {name}\n    static_configs:\n      - targets: [{targets}]")?;
        }
        let (file, log) = (folder.join("prometheus.yml"), folder.join("prometheus.log"));
        std::fs::write(&file, config)?;
        let mut program = Command::new("prometheus");
        program.arg(format!("--config.file={}", file.display()));
        program.arg(format!("--storage.tsdb.path={}", folder.join("prometheus").display()));
        program.arg("--web.listen-address=127.0.0.1:0").kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = program.stderr(std::fs::File::create(&log)?).spawn().context("prometheus")?;
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        loop {
            let listening = said().lines().find_map(|line| {
                line.contains("Listening on").then(|| line.split("address=").nth(1)?.split(' ').next()?.parse().ok())?
            });
            if let Some(address) = listening {
                return Ok(Self { _child: child, address });
            }
            anyhow::ensure!(child.try_wait()?.is_none(), "Prometheus ended\n{}", said());
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}
