//! What a .deb says of itself: enough of it to know that it is the agent's, before anything is sent.
//!
//! An `ar` archive of three members; the second is a compressed tar with the control file (deb(5)). Bounded: a control file has
//! a few hundred bytes, and what claims to have more is none.

use crate::errors::code;
use baton_core::problem::Problem;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// The only package that hosts take from here.
const NAME: &str = "baton-agent";
/// What an `ar` archive begins with, and the size of a member's header.
const AR: &[u8] = b"!<arch>\n";
const HEADER: usize = 60;
/// Members that are looked at before the control file must have come.
const MEMBERS: usize = 8;
/// The control file's archive, unpacked: scripts and checksums are in it, too.
const CONTROL_MAX: u64 = 16 << 20;
/// Memory for unpacking it.
const XZ_MEMORY_KB: u32 = 128 << 10;

/// What stands in a package of the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentPackage {
    pub version: String,
    pub architecture: String,
}

/// Reads a package, and refuses what is none of the agent's.
///
/// # Errors
/// B0652: with what was found instead.
pub fn read(path: &Path) -> Result<AgentPackage, Problem> {
    let refuse = |seen: &str| {
        Problem::new(code::PACKAGE, format!("{} is not a package of the agent", path.display()))
            .saw("seen", seen)
            .help("--package takes the baton-agent_VERSION_ARCHITECTURE.deb that the hosts should run")
    };
    let control = control(path).map_err(|error| refuse(&error.to_string()))?;
    let field = |name: &str| control.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    match (field("Package:"), field("Version:"), field("Architecture:")) {
        (Some(NAME), Some(version), Some(architecture)) => {
            Ok(AgentPackage { version: version.to_owned(), architecture: architecture.to_owned() })
        }
        (Some(other), ..) if other != NAME => Err(refuse(&format!("it is the package {other}"))),
        _ => Err(refuse("its control file names no package, version and architecture")),
    }
}

fn control(path: &Path) -> io::Result<String> {
    let mut file = BufReader::new(File::open(path)?);
    let mut magic = [0; AR.len()];
    if file.read_exact(&mut magic).is_err() || magic != AR {
        let rpm = path.extension().is_some_and(|extension| extension == "rpm");
        let instead =
            if rpm { "an .rpm; hosts that use those are upgraded with dnf" } else { "no .deb: it is no ar archive" };
        return Err(io::Error::other(instead));
    }
    for _ in 0..MEMBERS {
        let mut header = [0; HEADER];
        file.read_exact(&mut header).map_err(|_| io::Error::other("a .deb without a control file"))?;
        let text = |from: usize, to: usize| String::from_utf8_lossy(&header[from..to]).trim().to_owned();
        let (name, size) = (text(0, 16), text(48, 58).parse::<u64>().map_err(|_| io::Error::other("a damaged ar archive"))?);
        let name = name.trim_end_matches('/');
        if name.starts_with("control.tar") {
            return in_archive(name, (&mut file).take(size));
        }
        // Members begin at even places.
        file.seek(SeekFrom::Current(i64::try_from(size + size % 2).map_err(io::Error::other)?))?;
    }
    Err(io::Error::other("a .deb without a control file"))
}

fn in_archive(name: &str, member: impl Read) -> io::Result<String> {
    let unpacked: Box<dyn Read + '_> = match name {
        "control.tar" => Box::new(member),
        "control.tar.xz" => Box::new(lzma_rust2::XzReader::new_mem_limit(member, false, XZ_MEMORY_KB)),
        "control.tar.zst" => Box::new(zstd::Decoder::new(member)?),
        other => {
            return Err(io::Error::other(format!("its {other} is packed in a way that is not read here: xz and zstd are")));
        }
    };
    let mut archive = tar::Archive::new(unpacked.take(CONTROL_MAX));
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path()?.strip_prefix(".").unwrap_or(&entry.path()?) == Path::new("control") {
            let mut text = String::new();
            entry.read_to_string(&mut text)?;
            return Ok(text);
        }
    }
    Err(io::Error::other("a .deb without a control file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A .deb of which only the control file matters.
    fn deb(member: &str, control: &str) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(control.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, "./control", control.as_bytes()).unwrap();
        let tar = tar.into_inner().unwrap();
        let packed = if member.ends_with(".zst") { zstd::encode_all(tar.as_slice(), 1).unwrap() } else { tar };
        let mut bytes = AR.to_vec();
        for (name, content) in [("debian-binary", b"2.0\n".as_slice()), (member, &packed)] {
            bytes.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, content.len()).bytes());
            bytes.extend(content);
            bytes.extend(vec![b'\n'; content.len() % 2]);
        }
        bytes
    }

    fn seen(bytes: &[u8], name: &str) -> Result<AgentPackage, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        read(&path).map_err(|problem| {
            assert_eq!(problem.code, code::PACKAGE);
            problem.seen[0].1.clone()
        })
    }

    const CONTROL: &str = "Package: baton-agent\nVersion: 1.2.0-1\nArchitecture: amd64\nDescription: an agent\n";

    #[test]
    fn a_package_says_its_version_and_its_architecture() {
        let good = AgentPackage { version: "1.2.0-1".into(), architecture: "amd64".into() };
        for member in ["control.tar", "control.tar.zst", "control.tar/"] {
            assert_eq!(seen(&deb(member, CONTROL), "a.deb"), Ok(good.clone()), "{member}");
        }
    }

    /// By Debian's own tool, which packs with xz.
    #[test]
    fn what_dpkg_builds_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        std::fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        std::fs::write(tree.join("DEBIAN/control"), CONTROL.replace("Description", "Maintainer: n\nDescription")).unwrap();
        let deb = folder.path().join("built.deb");
        let build = std::process::Command::new("dpkg-deb").args(["-Zxz", "--build"]).arg(&tree).arg(&deb).output();
        // Elsewhere than on Debian there is nothing to read.
        let Ok(built) = build else { return };
        assert!(built.status.success(), "{built:?}");
        assert_eq!(read(&deb).unwrap().version, "1.2.0-1");
    }

    #[test]
    fn whatever_is_no_package_of_the_agent_is_refused_with_what_it_is() {
        let other = CONTROL.replace("baton-agent", "baton-coordinator");
        assert_eq!(seen(&deb("control.tar", &other), "a.deb").unwrap_err(), "it is the package baton-coordinator");
        assert!(seen(&deb("control.tar.gz", CONTROL), "a.deb").unwrap_err().contains("control.tar.gz"));
        assert!(seen(b"\xed\xab\xee\xdb", "a.rpm").unwrap_err().contains("an .rpm"));
        assert!(seen(b"PK", "a.zip").unwrap_err().contains("no .deb"));
        assert!(seen(AR, "a.deb").unwrap_err().contains("without a control file"));
        assert!(seen(&deb("control.tar", "Package: baton-agent\n"), "a.deb").unwrap_err().contains("names no package"));
        for cut in [9, 70, 140, 200] {
            assert!(seen(&deb("control.tar.zst", CONTROL)[..cut], "a.deb").is_err(), "{cut}");
        }
        assert!(read(Path::new("/none/a.deb")).is_err());
    }
}
