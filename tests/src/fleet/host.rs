//! One host: a systemd of its own on an overlay over the base, with power, a reset button and a way in.

use super::record::Part;
use super::run::{collect, output, said, until};
use super::{cgroups, host_folder, network};
use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// A boot takes about a second; a machine under load, longer.
const BOOT_DEADLINE: Duration = Duration::from_secs(60);

/// A host of the fleet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Host {
    pub name: String,
    pub part: Part,
    pub address: Ipv4Addr,
}

/// Boots again and again, as a machine does that has power: after a reboot, and after a power cut. The first lines join the
/// cgroups, so that whatever happens later, everything of this host is found there.
const POWER: &str = r#"
host=$1; root=$2; namespace=$3; shared=$4; shift 4
for cgroup; do echo $$ >"$cgroup/cgroup.procs" || exit 1; done
while :; do
    SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_NSPAWN_LOCK=0 systemd-nspawn --quiet --boot --register=no --keep-unit --console=pipe \
        --machine="$host" --hostname="$host" --directory="$root" --network-namespace-path="$namespace" --bind="$shared:/var/lib/private/baton"
    echo "-- power: systemd-nspawn ended with $?"
    sleep 0.2
done
"#;

impl Host {
    /// The host's files, as the machine outside sees them.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        host_folder(&self.name).join("root")
    }

    /// What of them is not the base's.
    #[must_use]
    pub fn own(&self) -> PathBuf {
        host_folder(&self.name).join("own")
    }

    /// Lays the host's own files over the base.
    ///
    /// # Errors
    /// When the overlay cannot be mounted.
    pub fn mount(&self, base: &Path) -> anyhow::Result<()> {
        let folder = host_folder(&self.name);
        for part in ["own", "work", "root"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let at = |part: &str| folder.join(part).to_string_lossy().into_owned();
        let layers = format!("lowerdir={},upperdir={},workdir={}", base.to_string_lossy(), at("own"), at("work"));
        output(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &layers, &at("root")]))?;
        // A host is somebody: the base has no machine id, and an empty one would make every boot the first.
        let mut id = baton_core::name::Digest::of(format!("baton-fleet {}", self.name).as_bytes()).to_string();
        id.truncate(32);
        fs::write(self.root().join("etc/machine-id"), format!("{id}\n"))?;
        fs::write(self.root().join("etc/hostname"), format!("{}\n", self.name))?;
        Ok(())
    }

    /// Connects power: the host boots, and boots again after every reboot.
    ///
    /// # Errors
    /// When the first process cannot be started.
    pub fn power_on(&self, hierarchies: &cgroups::Hierarchies, shared: &Path) -> anyhow::Result<()> {
        let console = File::options().create(true).append(true).open(self.console())?;
        let mut power = Command::new("sh");
        power.args(["-c", POWER, "power", &self.name]).arg(self.root()).arg(network::path(&network::namespace(&self.name)));
        power.arg(shared).args(hierarchies.make(&self.name)?);
        power.stdin(Stdio::null()).stdout(console.try_clone()?).stderr(console).process_group(0);
        // It outlives this program, and `power_off` finds it by its cgroup.
        drop(power.spawn().context("cannot start sh")?);
        Ok(())
    }

    /// Takes the power away for good and forgets the cgroups.
    ///
    /// # Errors
    /// When a process survives.
    pub fn power_off(&self) -> anyhow::Result<()> {
        cgroups::clear(&self.name)
    }

    /// Waits until every unit of the boot has started or failed.
    ///
    /// # Errors
    /// When that takes too long: the console's last lines are in the error.
    pub fn wait_booted(&self) -> anyhow::Result<()> {
        until(&format!("the boot of {}", self.name), BOOT_DEADLINE, || {
            let Some(leader) = self.leader() else { return Ok(None) };
            let asked = collect(enter(leader, &["systemctl", "is-system-running"]).stderr(Stdio::null()))?;
            Ok(matches!(String::from_utf8_lossy(&asked.stdout).trim(), "running" | "degraded").then_some(()))
        })
        .with_context(|| self.console_end())
    }

    /// Asks systemd for a reboot and waits for the next boot.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn reboot(&self) -> anyhow::Result<()> {
        let before = self.leader().with_context(|| format!("{} does not run", self.name))?;
        // The answer may be lost with the systemd that would give it.
        drop(collect(&mut enter(before, &["systemctl", "reboot"]))?);
        self.wait_next_boot(before)
    }

    /// Loses power from one moment to the next, and has it again at once.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn lose_power(&self) -> anyhow::Result<()> {
        let before = self.leader().with_context(|| format!("{} does not run", self.name))?;
        kill_process(before, Signal::KILL)?;
        self.wait_next_boot(before)
    }

    fn wait_next_boot(&self, before: Pid) -> anyhow::Result<()> {
        until(&format!("the end of {}'s boot before", self.name), BOOT_DEADLINE, || {
            Ok(self.leader().is_none_or(|leader| leader != before).then_some(()))
        })
        .with_context(|| self.console_end())?;
        self.wait_booted()
    }

    /// A command that runs on the host.
    ///
    /// # Errors
    /// When the host does not run.
    pub fn command(&self, words: &[&str]) -> anyhow::Result<Command> {
        let leader = self.leader().with_context(|| format!("{} does not run", self.name))?;
        Ok(enter(leader, words))
    }

    /// Runs a command on the host; its standard output when it exits 0.
    ///
    /// # Errors
    /// When it exits otherwise, with what it wrote.
    pub fn run(&self, words: &[&str]) -> anyhow::Result<String> {
        let ended = self.collect(words)?;
        if !ended.status.success() {
            bail!("{} on {}: {}\n{}", words.join(" "), self.name, ended.status, said(&ended));
        }
        Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
    }

    /// Runs a command on the host to its end, however it ends.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn collect(&self, words: &[&str]) -> anyhow::Result<Output> {
        collect(&mut self.command(words)?)
    }

    /// Writes a file on the host.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &str, text: &str) -> anyhow::Result<()> {
        let file = self.root().join(path.trim_start_matches('/'));
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&file, text).with_context(|| format!("cannot write {path} on {}", self.name))
    }

    /// The process that is number 1 on the host.
    #[must_use]
    pub fn leader(&self) -> Option<Pid> {
        cgroups::processes(&self.name).into_iter().find(|pid| {
            let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap_or_default();
            let inside = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            inside.is_some_and(|pids| {
                let pids = pids.split_whitespace().collect::<Vec<_>>();
                pids.len() > 1 && pids.last() == Some(&"1")
            })
        })
    }

    fn console(&self) -> PathBuf {
        host_folder(&self.name).join("console")
    }

    fn console_end(&self) -> String {
        let console = fs::read_to_string(self.console()).unwrap_or_default();
        let lines = console.lines().collect::<Vec<_>>();
        format!("the console of {} ends with\n{}", self.name, lines[lines.len().saturating_sub(15)..].join("\n"))
    }
}

fn enter(leader: Pid, words: &[&str]) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["-t", &leader.as_raw_nonzero().to_string(), "-m", "-u", "-i", "-n", "-p", "-C", "--"]).args(words);
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root");
    command.env("TERM", "dumb").env("LANG", "C.UTF-8");
    command
}
