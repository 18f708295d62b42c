//! Real packages by the real dpkg, in a root of their own; only the agent itself is played.

use super::apply::{Machine, apply};
use super::dpkg::said;
use super::*;
use baton_core::name::Digest;
use baton_core::release::Artifact;
use baton_core::upgrade::Package;
use std::cell::Cell;
use std::path::PathBuf;
use std::process::Command;

/// The ends of a session that has nothing to do with packages.
pub(crate) fn ends() -> Ends {
    let (orders, _) = watch::channel(None);
    // Nobody ever reports anything: the sender must not be gone nevertheless.
    let (reports, heard) = watch::channel(None);
    std::mem::forget(reports);
    Ends { stated: v1::AgentPackage::default(), orders, reports: heard, mark: None }
}

/// A machine with a root of its own.
struct Rig {
    _temporary: tempfile::TempDir,
    root: PathBuf,
    folder: Folder,
    mark: Mark,
    starts: Cell<u32>,
}

/// Debian's tools are where packages are built; elsewhere there is nothing to try.
fn rig() -> Option<Rig> {
    if Command::new("dpkg").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "dpkg is missing");
        return None;
    }
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path().join("root");
    for folder in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
    let folder = Folder::open(&temporary.path().join("state")).unwrap();
    let mark = Mark(temporary.path().join("run/session"));
    Some(Rig { _temporary: temporary, root, folder, mark, starts: Cell::new(0) })
}

impl Rig {
    fn dpkg(&self) -> Dpkg {
        Dpkg::below(&self.root)
    }

    /// Builds a package whose agent is `good`, or something else.
    fn package(&self, name: &str, version: &str, agent: &str, to: &Path) {
        let tree = tempfile::tempdir().unwrap();
        fs::set_permissions(tree.path(), Permissions::from_mode(0o755)).unwrap();
        for (path, text) in [
            ("usr/bin/baton-agent", agent),
            ("usr/share/doc/baton-agent/changelog", "what changed\n"),
            ("etc/baton/agent.toml", "# nothing\n"),
            ("usr/share/baton-agent/agent.toml", "# nothing\n"),
            ("DEBIAN/conffiles", "/etc/baton/agent.toml\n"),
            (
                "DEBIAN/control",
                &format!(
                    "Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: nobody <n@example.invalid>\n\
                     Description: an agent\n of two lines\n"
                ),
            ),
        ] {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::set_permissions(tree.path().join("usr/bin/baton-agent"), Permissions::from_mode(0o755)).unwrap();
        let built = Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(tree.path()).arg(to).output();
        assert!(built.unwrap().status.success());
    }

    fn install(&self, version: &str) {
        let file = self.folder.0.join("first.deb");
        self.package("baton-agent", version, "good", &file);
        self.dpkg().install(&file).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap()
    }

    /// What dpkg remembers of the configuration.
    fn conffiles(&self) -> String {
        said(self.dpkg().query().args(["--show", "--showformat", "${Conffiles}\n", "baton-agent"])).unwrap()
    }

    fn version(&self) -> String {
        self.dpkg().installed().unwrap().version.to_string()
    }

    /// Upgrades from what is installed to what lies ready, and gives what was written down.
    fn upgrade(&self, to: &str) -> Record {
        let record = record(&self.version(), to);
        prepare(&self.dpkg(), &self.folder, &record).unwrap();
        assert_eq!(self.folder.read().unwrap().state, State::Begun, "written down before anything happens");
        apply(self, &self.mark, &self.folder, record).unwrap();
        self.folder.read().unwrap()
    }
}

/// The agent is played: one that is `good` has a session as soon as it is started.
impl Machine for Rig {
    fn install(&self, file: &Path) -> Result<(), String> {
        self.dpkg().install(file)?;
        self.restart();
        Ok(())
    }

    fn restart(&self) {
        self.starts.set(0);
        if self.read("usr/bin/baton-agent") == "good" {
            self.mark.set(&self.version().parse().unwrap()).unwrap();
        }
    }

    fn crashes(&self) -> u32 {
        self.starts.set(self.starts.get() + 1);
        self.starts.get()
    }

    fn journal(&self) -> Vec<String> {
        vec!["it exits with status 1".to_owned()]
    }
}

fn record(from: &str, to: &str) -> Record {
    Record {
        id: "u-1".parse().unwrap(),
        attempt: 0,
        package: Package {
            artifact: Artifact { digest: Digest::of(b"deb"), size: 3 },
            version: to.parse().unwrap(),
            architecture: "amd64".parse().unwrap(),
        },
        from: from.parse().unwrap(),
        back_within: Duration::from_secs(10),
        state: State::Begun,
    }
}

fn failure(record: Record) -> Problem {
    match record.state {
        State::Failed(problem) => problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_good_package_is_installed_and_kept_as_the_way_back_from_the_next() {
    let Some(rig) = rig() else { return };
    rig.install("1.0.0");
    rig.package("baton-agent", "2.0.0", "good", &rig.folder.next());
    assert_eq!(rig.upgrade("2.0.0").state, State::Done);
    assert_eq!(rig.version(), "2.0.0");
    assert_eq!(dpkg::version_of(&rig.folder.given()), Some("2.0.0".parse().unwrap()));
    assert!(!rig.folder.next().exists() && !rig.folder.way_back().exists());
    rig.package("baton-agent", "1.5.0", "good", &rig.folder.next());
    assert_eq!(rig.upgrade("1.5.0").state, State::Done, "and back to an older one, where that is asked for");
    assert_eq!(rig.version(), "1.5.0");
}

#[test]
fn a_package_whose_agent_does_not_come_is_taken_back_and_a_changed_configuration_stays() {
    let Some(rig) = rig() else { return };
    rig.install("1.0.0");
    fs::write(rig.root.join("etc/baton/agent.toml"), "name = \"web1\"\n").unwrap();
    rig.package("baton-agent", "2.0.0", "exits", &rig.folder.next());
    let problem = failure(rig.upgrade("2.0.0"));
    assert_eq!((problem.code, rig.version().as_str()), (Code(553), "1.0.0"), "{problem:?}");
    assert!(problem.seen.iter().any(|(label, seen)| label == "journal" && seen.contains("status 1")), "{problem:?}");
    assert_eq!(rig.read("usr/bin/baton-agent"), "good");
    assert_eq!(rig.read("etc/baton/agent.toml"), "name = \"web1\"\n");
    rig.package("baton-agent", "2.0.1", "good", &rig.folder.next());
    assert_eq!(rig.upgrade("2.0.1").state, State::Done, "the one after it is taken");
}

#[test]
fn an_agent_that_runs_and_never_has_a_session_is_waited_for_no_longer_than_was_said() {
    let Some(rig) = rig() else { return };
    rig.install("1.0.0");
    rig.package("baton-agent", "2.0.0", "good", &rig.folder.next());
    let never = Record { back_within: Duration::ZERO, ..record("1.0.0", "2.0.0") };
    prepare(&rig.dpkg(), &rig.folder, &never).unwrap();
    apply(&rig, &rig.mark, &rig.folder, never).unwrap();
    let problem = failure(rig.folder.read().unwrap());
    assert_eq!(problem.code, Code(554), "nor was the way back given any time");
    assert_eq!(rig.version(), "1.0.0");
}

#[test]
fn what_dpkg_says_against_a_package_is_told_and_the_host_stays_as_it_was() {
    let Some(rig) = rig() else { return };
    rig.install("1.0.0");
    rig.package("baton-agent", "2.0.0", "good", &rig.folder.next());
    let begun = record("1.0.0", "2.0.0");
    prepare(&rig.dpkg(), &rig.folder, &begun).unwrap();
    fs::write(rig.folder.next(), "no package").unwrap();
    apply(&rig, &rig.mark, &rig.folder, begun.clone()).unwrap();
    let problem = failure(rig.folder.read().unwrap());
    assert_eq!((problem.code, rig.version().as_str()), (Code(553), "1.0.0"));
    assert!(problem.seen[0].1.starts_with("dpkg: "), "{problem:?}");

    rig.package("baton-agent", "2.0.0", "exits", &rig.folder.next());
    prepare(&rig.dpkg(), &rig.folder, &begun).unwrap();
    fs::write(rig.folder.way_back(), "no package either").unwrap();
    apply(&rig, &rig.mark, &rig.folder, begun).unwrap();
    let problem = failure(rig.folder.read().unwrap());
    assert_eq!(problem.code, Code(554));
    assert!(problem.seen.iter().any(|(label, _)| label == "way back"), "{problem:?}");
}

#[test]
fn what_is_installed_can_be_packed_again_and_is_the_same_package() {
    let Some(rig) = rig() else { return };
    rig.install("1:1.0.0-1~rc1");
    fs::write(rig.root.join("etc/baton/agent.toml"), "name = \"web1\"\n").unwrap();
    fs::remove_file(rig.root.join("usr/share/doc/baton-agent/changelog")).unwrap();
    rig.dpkg().repack(&rig.folder.way_back()).unwrap();
    check_fields(&rig.folder.way_back(), "1:1.0.0-1~rc1");
    rig.package("baton-agent", "2.0.0", "good", &rig.folder.next());
    rig.dpkg().install(&rig.folder.next()).unwrap();
    rig.dpkg().install(&rig.folder.way_back()).unwrap();
    assert_eq!(rig.version(), "1:1.0.0-1~rc1");
    assert_eq!(rig.read("etc/baton/agent.toml"), "name = \"web1\"\n");
}

#[test]
fn after_the_way_back_dpkg_knows_the_configuration_as_before_and_asks_nobody_about_it() {
    let Some(rig) = rig() else { return };
    rig.install("1.0.0");
    let known = rig.conffiles();
    assert!(known.contains("/etc/baton/agent.toml"), "{known}");
    fs::write(rig.root.join("etc/baton/agent.toml"), "name = \"web1\"\n").unwrap();
    rig.package("baton-agent", "2.0.0", "exits", &rig.folder.next());
    assert_eq!(failure(rig.upgrade("2.0.0")).code, Code(553));
    assert_eq!(rig.conffiles(), known);
    // As people install: nobody is there to answer a question.
    let by_hand = said(rig.dpkg().command("dpkg", "--root").arg("--install").arg(rig.folder.0.join("first.deb")));
    by_hand.unwrap();
    assert_eq!(rig.read("etc/baton/agent.toml"), "name = \"web1\"\n");
}

#[test]
fn a_configuration_that_cannot_be_had_as_it_came_is_left_out_of_the_way_back() {
    let Some(rig) = rig() else { return };
    rig.install("1.0.0");
    fs::write(rig.root.join("etc/baton/agent.toml"), "name = \"web1\"\n").unwrap();
    fs::remove_file(rig.root.join("usr/share/baton-agent/agent.toml")).unwrap();
    rig.dpkg().repack(&rig.folder.way_back()).unwrap();
    rig.dpkg().install(&rig.folder.way_back()).unwrap();
    assert!(rig.conffiles().ends_with(" obsolete\n"), "dpkg keeps it: {}", rig.conffiles());
    rig.dpkg().repack(&rig.folder.way_back()).unwrap();
    rig.dpkg().install(&rig.folder.way_back()).unwrap();
    assert_eq!(
        rig.read("etc/baton/agent.toml"),
        "name = \"web1\"\n",
        "nor does it become a file that goes with the package"
    );
}

#[track_caller]
fn check_fields(file: &Path, version: &str) {
    dpkg::check(file, &record("0", version).package).unwrap();
}

#[test]
fn another_package_than_the_one_that_was_named_is_refused() {
    let Some(rig) = rig() else { return };
    let file = rig.folder.next();
    for (name, version) in [("baton-coordinator", "2.0.0"), ("baton-agent", "2.0.1")] {
        rig.package(name, version, "good", &file);
        let problem = dpkg::check(&file, &record("1.0.0", "2.0.0").package).unwrap_err();
        assert_eq!(problem.code, Code(552));
        assert!(problem.seen[1].1.contains(version), "{problem:?}");
    }
    fs::write(&file, "no package").unwrap();
    assert_eq!(dpkg::check(&file, &record("1.0.0", "2.0.0").package).unwrap_err().code, Code(552));
}

#[test]
fn a_host_says_why_its_agent_is_not_upgraded_from_elsewhere() {
    let Some(rig) = rig() else { return };
    let look = |program: &str, allowed, systemd| Stated::look(&rig.dpkg(), Some(Path::new(program)), allowed, systemd);
    let code = |stated: Stated| stated.refuses.map(|problem| problem.code);
    assert_eq!(code(look(PROGRAM, true, true)), Some(Code(551)), "nothing is installed");
    rig.install("1.0.0");
    let good = look(PROGRAM, true, true);
    assert_eq!((good.runs, good.architecture), (Some("1.0.0".parse().unwrap()), "amd64".to_owned()));
    assert_eq!(good.refuses, None);
    assert_eq!(code(look("/root/target/debug/baton-agent", true, true)), Some(Code(551)));
    assert_eq!(code(look(PROGRAM, true, false)), Some(Code(551)), "without systemd");
    let kept_out = look(PROGRAM, false, true);
    assert_eq!(kept_out.runs, Some("1.0.0".parse().unwrap()), "what it runs is said nevertheless");
    assert_eq!(code(kept_out), Some(Code(550)));
}

#[test]
fn a_session_is_marked_with_the_package_whose_agent_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let mark = Mark(folder.path().join("run/session"));
    let version: PackageVersion = "2.0.0".parse().unwrap();
    let mut ends = Ends { mark: Some((mark.clone(), version.clone())), ..ends() };
    assert!(!mark.is_of(&version));
    ends.accepted();
    assert!(mark.is_of(&version) && !mark.is_of(&"1.0.0".parse().unwrap()));
    mark.forget().unwrap();
    ends.accepted();
    assert!(!mark.is_of(&version), "once, so that an agent that is being replaced does not say it again");
}
