//! Making a listening socket, and finding one again that only an instance still has.

use crate::connections::{listeners_at, owner_of, pids};
use crate::runtime::MARK;
use baton_core::name::ServiceName;
use baton_core::problem::{Code, Problem};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Connections that may wait while nobody accepts; the kernel's `net.core.somaxconn` bounds it further.
const BACKLOG: i32 = 4096;

/// A socket that listens, and blocks, as those of systemd do.
///
/// # Errors
/// B0205: somebody else has the address. B0213: it cannot be had here at all.
pub(super) fn open(address: SocketAddr, service: &ServiceName, folder: &Path) -> Result<OwnedFd, Problem> {
    match make(address) {
        Ok(socket) => Ok(socket),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            rescue(address, service, folder).ok_or_else(|| taken(address))
        }
        Err(error) => Err(refused(address, &error)),
    }
}

fn make(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Connections of an earlier life that are still being closed are not in the way.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Makes a socket listen again on which an application called `shutdown`: that ended it for everybody who has it.
pub(super) fn keep_listening(socket: &OwnedFd, address: SocketAddr) {
    if sockopt::socket_acceptconn(socket) == Ok(false) {
        let again = listen(socket, BACKLOG).map_err(|error| error.to_string());
        tracing::warn!(%address, ?again, "an application shut the public socket down, for all that share it; it listens again");
    }
}

/// The socket of an instance of this very agent, when nobody but instances has it any more: agent and holder were both killed.
fn rescue(address: SocketAddr, service: &ServiceName, folder: &Path) -> Option<OwnedFd> {
    let inodes = listeners_at(address).ok()?.into_iter().filter(|listener| listener.address == address);
    let links: Vec<String> = inodes.map(|listener| format!("socket:[{}]", listener.inode)).collect();
    let ours = format!("{MARK}={service}/");
    let suffix = format!(" of {}", folder.display());
    let is_ours = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0).filter_map(|variable| std::str::from_utf8(variable).ok());
        variables.any(|variable| variable.starts_with(&ours) && variable.ends_with(&suffix))
    };
    let found = pids().filter(is_ours).find_map(|pid| {
        let process = pidfd_open(Pid::from_raw(i32::try_from(pid).ok()?)?, PidfdFlags::empty()).ok()?;
        let mut descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        let number = descriptors.find_map(|descriptor| {
            let target = fs::read_link(descriptor.path()).ok()?.to_string_lossy().into_owned();
            links.contains(&target).then(|| descriptor.file_name().to_str()?.parse().ok())?
        })?;
        pidfd_getfd(process.as_fd(), number, PidfdGetfdFlags::empty()).ok()
    });
    if found.is_some() {
        tracing::info!(%address, %service, "the public socket was taken over from a running instance");
    }
    found
}

fn taken(address: SocketAddr) -> Problem {
    let listeners = listeners_at(address).unwrap_or_default();
    let owner =
        |inode| owner_of(inode).map_or_else(|| "a process this agent may not look into".to_owned(), |it| it.to_string());
    let first = listeners.first().map_or_else(|| "another process".to_owned(), |listener| owner(listener.inode));
    let problem = Problem::new(Code(205), format!("its public address {address} is taken by {first}"));
    let problem = listeners.iter().fold(problem, |problem, listener| {
        problem.saw("port", format!("{} is listened on by {}", listener.address, owner(listener.inode)))
    });
    problem.help("stop that program, or give the service another address: run.listen in baton.toml")
}

fn refused(address: SocketAddr, error: &io::Error) -> Problem {
    let what = format!("this host cannot listen on {address}: {}", crate::text::io_error(error));
    Problem::new(Code(213), what).help(match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need an agent that runs as root; or use a higher one in run.listen"
        }
        io::ErrorKind::AddrNotAvailable => "is that an address of this host? `0.0.0.0` and `[::]` stand for all of them",
        _ => "check run.listen in baton.toml",
    })
}
