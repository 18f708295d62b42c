//! The network of a fleet: one bridge in one namespace, and a namespace of its own for every host.

use super::run::{output, run};
use anyhow::Context as _;
use std::net::Ipv4Addr;
use std::process::Command;

/// The namespace with the bridge: where clients are, and where cuts are made.
pub const HUB: &str = "baton-fleet";

/// The bridge's own address: a client's.
pub const HUB_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// Which frames of a cut host are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Direction {
    Both,
    /// What the host sends.
    Out,
    /// What is sent to the host.
    In,
}

/// Frames from, or to, a port named in a set are dropped, whether they cross the bridge or end at it.
const RULES: &str = "
table bridge fleet {
    set from { type ifname; }
    set to { type ifname; }
    chain forward { type filter hook forward priority 0; iifname @from drop; oifname @to drop; }
    chain input { type filter hook input priority 0; iifname @from drop; }
    chain output { type filter hook output priority 0; oifname @to drop; }
}";

/// Makes the namespace and its bridge.
///
/// # Errors
/// When `ip` or `nft` refuses.
pub fn make_hub() -> anyhow::Result<()> {
    run("ip", &["netns", "add", HUB])?;
    ip(HUB, "link set lo up")?;
    ip(HUB, "link add hub type bridge")?;
    ip(HUB, &format!("address add {HUB_ADDRESS}/24 dev hub"))?;
    ip(HUB, "link set hub up")?;
    run("ip", &["netns", "exec", HUB, "nft", RULES]).context("cannot set up the rules for cuts")?;
    Ok(())
}

/// Makes a host's namespace and plugs it in.
///
/// # Errors
/// When `ip` refuses.
pub fn plug(host: &str, address: Ipv4Addr) -> anyhow::Result<()> {
    let (own, port) = (namespace(host), port(host));
    run("ip", &["netns", "add", &own])?;
    ip(HUB, &format!("link add {port} type veth peer name eth0 netns {own}"))?;
    ip(HUB, &format!("link set {port} master hub up"))?;
    ip(&own, "link set lo up")?;
    ip(&own, &format!("address add {address}/24 dev eth0"))?;
    ip(&own, "link set eth0 up")?;
    Ok(())
}

/// Loses every frame of a host in a direction, until it is healed.
///
/// # Errors
/// When `nft` refuses.
pub fn cut(host: &str, direction: Direction) -> anyhow::Result<()> {
    for set in sets(direction) {
        run("ip", &["netns", "exec", HUB, "nft", &format!("add element bridge fleet {set} {{ \"{}\" }}", port(host))])?;
    }
    Ok(())
}

/// Ends every cut of a host.
///
/// # Errors
/// When `nft` refuses.
pub fn heal(host: &str) -> anyhow::Result<()> {
    for set in sets(Direction::Both) {
        // Adding first makes the removal of what was not there succeed.
        let port = port(host);
        let rules =
            format!("add element bridge fleet {set} {{ \"{port}\" }}; delete element bridge fleet {set} {{ \"{port}\" }}");
        run("ip", &["netns", "exec", HUB, "nft", &rules])?;
    }
    Ok(())
}

/// Removes a host's namespace and its cable.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn unplug(host: &str) -> anyhow::Result<()> {
    remove(&namespace(host))
}

/// Removes the bridge's namespace.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove_hub() -> anyhow::Result<()> {
    remove(HUB)
}

/// The name of a host's namespace.
#[must_use]
pub fn namespace(host: &str) -> String {
    format!("{HUB}-{host}")
}

/// The path of a namespace.
#[must_use]
pub fn path(namespace: &str) -> String {
    format!("/run/netns/{namespace}")
}

fn port(host: &str) -> String {
    format!("v-{host}")
}

fn sets(direction: Direction) -> &'static [&'static str] {
    match direction {
        Direction::Both => &["from", "to"],
        Direction::Out => &["from"],
        Direction::In => &["to"],
    }
}

fn remove(namespace: &str) -> anyhow::Result<()> {
    if std::fs::exists(path(namespace))? {
        run("ip", &["netns", "delete", namespace])?;
    }
    Ok(())
}

fn ip(namespace: &str, arguments: &str) -> anyhow::Result<()> {
    output(Command::new("ip").args(["-n", namespace]).args(arguments.split(' ')))?;
    Ok(())
}
