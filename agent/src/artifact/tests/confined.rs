use super::super::sandbox;
use super::Bounds;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

/// Where [`the_world_as_the_child_sees_it`] is told what to try: it gives up rights that other tests need, so it only does
/// anything in a process of its own.
const ORDER: &str = "BATON_TEST_SANDBOX";

#[test]
fn whoever_unpacks_reads_one_file_and_writes_below_one_folder() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("tree")).unwrap();
    for file in ["archive", "secret"] {
        fs::write(root.path().join(file), file).unwrap();
    }
    let test = "artifact::tests::confined::the_world_as_the_child_sees_it";
    let said = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ORDER, root.path())
        .output()
        .unwrap();
    assert!(said.status.success(), "{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(root.path().join("tree/made").exists(), "it did not run");
}

#[test]
fn the_world_as_the_child_sees_it() {
    let Some(root) = std::env::var_os(ORDER) else { return };
    let root = Path::new(&root);
    let tree = root.join("tree");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (archive, address) = (root.join("archive"), listener.local_addr().unwrap());
    let bounds = Bounds { total: 100, ..Bounds::default() };
    // A test runs beside the harness's first thread, which is the one whose death would end it.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            sandbox::enter(&archive, &tree, &bounds).unwrap();
            assert_eq!(fs::read_to_string(&archive).unwrap(), "archive");
            fs::write(tree.join("made"), "below").unwrap();
            assert_eq!(rustix::thread::capabilities(None).unwrap().permitted, rustix::thread::CapabilitySet::empty());
            assert!(rustix::process::getrlimit(rustix::process::Resource::Fsize).current == Some(100));
            if fs::read_to_string(root.join("secret")).is_ok() {
                #[allow(clippy::print_stderr)]
                {
                    eprintln!("skipped: this kernel has no Landlock, so only limits and capabilities were looked at");
                }
                return;
            }
            assert!(fs::write(root.join("beside"), "x").is_err());
            assert!(fs::read_to_string("/etc/passwd").is_err());
            assert!(Command::new("/bin/true").status().is_err(), "it may start programs");
            assert!(TcpStream::connect(address).is_err(), "it may speak to others");
        });
    });
}
