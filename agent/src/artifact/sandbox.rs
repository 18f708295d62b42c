//! What the process that unpacks an archive may still do: read the archive, write below one folder, and no more.

use super::bounds::Bounds;
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::io;
use std::path::Path;

/// The decompressor's largest window is an eighth of it; the program itself takes most of the rest while it is not optimised.
const MEMORY: u64 = 1 << 30;

/// The archive, the file that is written, the answer, and a few to spare.
const FILES: u64 = 64;

/// Gives up, for ever, whatever unpacking does not need.
///
/// Limits and capabilities go on every kernel, everything beyond the archive and the folder on kernels with Landlock (5.19).
///
/// # Errors
/// Those of the system; nothing should be read then.
pub(super) fn enter(archive: &Path, into: &Path, bounds: &Bounds) -> io::Result<()> {
    // Whoever asked is gone: nobody wants the answer.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::thread::set_no_new_privs(true)?;
    let limits = [
        (Resource::Cpu, bounds.time.as_secs().max(1)),
        (Resource::As, MEMORY),
        (Resource::Fsize, bounds.total),
        (Resource::Nofile, FILES),
        (Resource::Core, 0),
    ];
    for (resource, most) in limits {
        // A limit that is lower already stays.
        let most = rustix::process::getrlimit(resource).maximum.map_or(most, |maximum| maximum.min(most));
        rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    confine(archive, into).map_err(io::Error::other)?;
    // Root without capabilities is the owner of its files and nothing else.
    let none = CapabilitySet::empty();
    Ok(rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?)
}

/// Without the right to link between folders (`Refer`), Landlock would refuse good archives: then it is not used.
fn confine(archive: &Path, into: &Path) -> Result<(), RulesetError> {
    let required = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let Ok(ruleset) = required.handle_access(AccessFs::from_all(ABI::V2)) else { return Ok(()) };
    let ruleset = ruleset
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))?
        .handle_access(AccessNet::from_all(ABI::V5))?
        .scope(Scope::from_all(ABI::V6))?;
    let (Ok(archive), Ok(into)) = (PathFd::new(archive), PathFd::new(into)) else { return Ok(()) };
    let make = AccessFs::MakeReg | AccessFs::MakeDir | AccessFs::MakeSym | AccessFs::Refer;
    let write = AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::WriteFile | AccessFs::Truncate;
    ruleset
        .create()?
        .add_rule(PathBeneath::new(archive, AccessFs::ReadFile))?
        .add_rule(PathBeneath::new(into, make | write))?
        .restrict_self()?;
    Ok(())
}
