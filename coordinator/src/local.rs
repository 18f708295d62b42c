//! The unix socket for `baton` on the coordinator's own machine.
//!
//! The kernel keeps everybody out who is neither root, nor in group `baton`, nor the coordinator's own user: by the socket's
//! owner, group and mode. So whoever comes through is an admin.

use baton_core::name::OperatorName;
use baton_core::problem::{Code, Problem};
use baton_proto::identity::{Identity, Role};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// Who may use the socket beside root.
const GROUP: &str = "baton";

/// A socket that is removed again when its coordinator stops.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
    inode: u64,
}

/// Opens the socket, in place of one that a killed coordinator left behind.
///
/// # Errors
/// B1011 when somebody listens there, or it cannot be made.
pub(crate) fn listen(path: &Path) -> Result<(UnixListener, Socket), Problem> {
    let failed = |error: io::Error| {
        Problem::new(Code(1011), format!("the coordinator cannot listen at {}", path.display()))
            .saw("file system", error.to_string())
            .help("choose another path (`socket` in coordinator.toml)")
    };
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(failed(io::Error::new(ErrorKind::AddrInUse, "somebody listens there already")));
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    // Made under another name and renamed: under its own name it never has the wrong owner, and a leftover is replaced.
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh).map_err(failed)?;
    let mode = if give_to_group(&fresh) { 0o660 } else { 0o600 };
    fs::set_permissions(&fresh, fs::Permissions::from_mode(mode)).map_err(failed)?;
    fs::rename(&fresh, path).map_err(failed)?;
    let inode = fs::metadata(path).map_err(failed)?.ino();
    Ok((listener, Socket { path: path.to_owned(), inode }))
}

/// Who somebody is that the kernel let through.
pub(crate) fn identify(uid: u32, _gid: u32) -> Identity {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = entry(&passwd, |fields| fields.get(2) == Some(&uid.to_string().as_str()));
    let name = name.and_then(|name| OperatorName::new(name).ok());
    match name.map_or_else(|| OperatorName::new(format!("uid-{uid}")), Ok) {
        Ok(name) => Identity::Operator { role: Role::Admin, name },
        Err(_) => Identity::Anonymous,
    }
}

/// Who runs this very program, as somebody who comes through the socket would be called.
pub(crate) fn caller() -> String {
    identify(rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()).to_string()
}

/// Gives the socket to group `baton`; false when there is no such group here, or it is not ours to give.
fn give_to_group(path: &Path) -> bool {
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let Some(line) = groups.lines().find(|line| line.split(':').next() == Some(GROUP)) else { return false };
    let Some(gid) = line.split(':').nth(2).and_then(|gid| gid.parse().ok()) else { return false };
    fs::metadata(path).is_ok_and(|metadata| metadata.gid() == gid) || chown(path, None, Some(gid)).is_ok()
}

/// The name in the first line of a passwd-like file that fits.
fn entry(text: &str, fits: impl Fn(&[&str]) -> bool) -> Option<&str> {
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        fits(&fields).then(|| fields.first().copied()).flatten()
    })
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Another coordinator may have put its own there meanwhile.
        if fs::metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_leftover_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.sock");
        let (listener, socket) = listen(&path).unwrap();
        assert_eq!(listen(&path).unwrap_err().code, Code(1011));
        drop(listener);
        let (_listener, _second) = listen(&path).unwrap();
        drop(socket);
        assert!(path.exists(), "the first one's end must not take the second one's socket away");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn others_cannot_open_the_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.sock");
        let (_listener, _socket) = listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o007, 0);
    }

    #[test]
    fn root_is_called_root_and_a_stranger_by_number() {
        assert_eq!(identify(0, 0).to_string(), "admin/root");
        assert_eq!(identify(3_999_999_999, 0).to_string(), "admin/uid-3999999999");
    }
}
