//! A fleet's life: up from nothing, and down to nothing.

use super::front::Front;
use super::packages::{Format, Packages};
use super::record::Fleet;
use super::run::run;
use super::{STATE, base, cgroups, needs, network, provision};
use anyhow::{Context as _, bail};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// What to bring up.
#[derive(Debug, Clone, clap::Args)]
pub struct UpArgs {
    /// Hosts that run services
    #[arg(long, default_value_t = 4)]
    pub hosts: u8,
    /// Load balancers, each on a host of its own
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["haproxy", "nginx", "envoy"])]
    pub fronts: Vec<Front>,
    /// How many of them, in that order and again from the first; else each once
    #[arg(long, value_name = "N")]
    pub balancers: Option<u8>,
    /// A folder with Baton's .deb packages, as packaging/build makes it
    #[arg(long, default_value = "dist")]
    pub packages: PathBuf,
}

/// The folder that every host sees as `/var/lib/private/baton`, with the state folders of services: what they wrote down, in one
/// place. Services of the tests have no user of the hosts, so systemd keeps their state there.
#[must_use]
pub fn shared() -> PathBuf {
    Path::new(STATE).join("shared")
}

/// Boots every host, installs the packages, and joins every agent.
///
/// # Errors
/// With what is missing on this machine, or what went wrong; then `down` cleans up.
pub fn up(args: &UpArgs) -> anyhow::Result<Fleet> {
    needs::check()?;
    let packages = Packages::find(&args.packages, Format::Deb)?;
    let many = args.balancers.map_or(args.fronts.len(), usize::from);
    let fronts = args.fronts.iter().copied().cycle().take(many).collect::<Vec<_>>();
    let fleet = boot(args.hosts, &fronts, &packages)?;
    provision::provision(&fleet, &packages)?;
    Ok(fleet)
}

/// Boots every host, with the packages at hand and nothing of Baton installed.
///
/// # Errors
/// As [`up`].
pub fn boot(hosts: u8, fronts: &[Front], packages: &Packages) -> anyhow::Result<Fleet> {
    needs::check()?;
    // Said before anything boots.
    fronts.iter().try_for_each(|front| front.program().map(drop))?;
    if Path::new(STATE).exists() {
        bail!("a fleet is up already: `fleet down` ends it");
    }
    let mut fleet = Fleet::of(hosts, fronts)?;
    let base = base::ensure()?;
    // From here on, whatever happens, `down` finds the record.
    fleet.save()?;
    let (hierarchies, mounted) = cgroups::Hierarchies::ensure()?;
    fleet.mounted = mounted;
    fleet.save()?;
    network::make_hub()?;
    fs::create_dir_all(shared())?;
    for host in &fleet.hosts {
        host.mount(&base)?;
        host.write("/etc/hosts", &addresses(&fleet))?;
        packages.lay_out(host)?;
        network::plug(&host.name, host.address)?;
        host.power_on(&hierarchies, &shared())?;
    }
    for host in &fleet.hosts {
        host.wait_booted()?;
    }
    Ok(fleet)
}

/// Ends every process, unmounts every folder and removes every namespace of a fleet, however far it got.
///
/// # Errors
/// When something cannot be removed; the rest is removed nevertheless.
pub fn down() -> anyhow::Result<()> {
    if !Path::new(STATE).exists() {
        return Ok(());
    }
    // A record that is damaged or was never written must not keep what can be found without it.
    let fleet = Fleet::load().or_else(|_| Fleet::of(100, &[Front::Haproxy; 9]))?;
    let mut first = Ok(());
    for host in &fleet.hosts {
        keep_first(&mut first, host.power_off());
        keep_first(&mut first, unmount(&host.root()));
        keep_first(&mut first, network::unplug(&host.name));
        for leftover in ["propagate", "unix-export"] {
            let _ = fs::remove_dir(Path::new("/run/systemd/nspawn").join(leftover).join(&host.name));
        }
    }
    keep_first(&mut first, network::remove_hub());
    keep_first(&mut first, cgroups::release(&fleet.mounted));
    first?;
    fs::remove_dir_all(STATE).with_context(|| format!("cannot remove {STATE}"))
}

fn keep_first(first: &mut anyhow::Result<()>, next: anyhow::Result<()>) {
    if first.is_ok() {
        *first = next;
    }
}

fn unmount(root: &Path) -> anyhow::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let root = root.to_string_lossy();
    if mounts.lines().any(|line| line.split(' ').nth(1) == Some(root.as_ref())) {
        run("umount", &[root.as_ref()])?;
    }
    Ok(())
}

fn addresses(fleet: &Fleet) -> String {
    let mut text = "127.0.0.1 localhost\n".to_owned();
    for host in &fleet.hosts {
        let _ = writeln!(text, "{} {}", host.address, host.name);
    }
    text
}
