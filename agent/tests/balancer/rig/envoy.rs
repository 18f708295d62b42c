//! Envoy with the sample configuration.

use super::front::{Abilities, Front, Program};
use super::{place, program, signal, wait_listening};
use baton_agent::balancer::{BalancerConfig, EnvoyConfig, Place};
use baton_core::fleet::spec::MemberState;
use rustix::process::Signal;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

#[derive(Debug)]
struct Envoy {
    binary: PathBuf,
    folder: PathBuf,
    listen: SocketAddr,
    child: Option<Child>,
}

pub(super) fn front(edit: impl Fn(String) -> String) -> Option<Front> {
    let binary = program("envoy", "BATON_ENVOY", "envoy")?;
    let folder = TempDir::new().expect("a folder");
    let (listen, till) = (place(), place());
    let path = |name: &str| folder.path().join(name);
    let sample = include_str!("../../../examples/envoy.yaml").replace("@FOLDER@", &folder.path().to_string_lossy());
    // The second pool is the first once more.
    let (head, listener) = sample.split_once("  - name: shop\n").expect("a listener");
    let (listener, cluster) = listener.split_once("  clusters:\n").expect("clusters");
    let listener = format!("  - name: shop\n{listener}");
    let at = |text: &str, place: SocketAddr| {
        text.replace("@ADDRESS@", &place.ip().to_string()).replace("@PORT@", &place.port().to_string())
    };
    let listeners = at(&listener, listen) + &at(&listener, till).replace("shop", "till");
    let config = format!("{head}{listeners}  clusters:\n{cluster}{}", cluster.replace("shop", "till"));
    fs::create_dir(path("eds")).expect("a folder");
    fs::write(path("envoy.yaml"), edit(config)).expect("the configuration");
    let empty = |pool: &str| {
        let text = include_str!("../../../examples/envoy-eds.json").replace("shop", pool);
        fs::write(path(&format!("eds/{pool}.json")), text).expect("the first file");
    };
    empty("shop");
    empty("till");
    let config = BalancerConfig::Envoy(EnvoyConfig {
        admin: Place::Unix(path("admin.sock")),
        folder: path("eds"),
        drift: baton_agent::balancer::Drift::Correct,
    });
    let mut envoy = Box::new(Envoy { binary, folder: folder.path().to_owned(), listen, child: None });
    envoy.start();
    let abilities = Abilities { counts: true, keeps_idle: true, starts_itself: false };
    Some(Front { program: envoy, folder, listen, till, config, abilities })
}

impl Program for Envoy {
    fn start(&mut self) {
        let log = self.folder.join("envoy.log");
        let file = fs::File::create(&log).expect("a log");
        let child = Command::new(&self.binary)
            .args(["--disable-hot-restart", "--concurrency", "1", "-l", "warning", "-c"])
            .arg(self.folder.join("envoy.yaml"))
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a log"))
            .stderr(file)
            .spawn()
            .expect("envoy starts");
        self.child = Some(child);
        wait_listening(self.listen, true, &log);
    }

    fn kill(&mut self, _: &str) {
        if let Some(mut child) = self.child.take() {
            signal(child.id(), Signal::KILL);
            child.wait().expect("it ends");
        }
        wait_listening(self.listen, false, &self.folder.join("envoy.log"));
    }

    fn by_hand(&self, address: SocketAddr, state: MemberState) {
        let path = self.folder.join("eds/shop.json");
        let text = fs::read_to_string(&path).expect("the file");
        let mut file: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        file["version_info"] = format!("by hand {address}").into();
        let localities = file["resources"][0]["endpoints"].as_array_mut().expect("endpoints");
        let endpoints = localities.iter_mut().flat_map(|it| it["lb_endpoints"].as_array_mut().expect("endpoints"));
        for endpoint in endpoints {
            let at = &endpoint["endpoint"]["address"]["socket_address"];
            if format!("{}:{}", at["address"].as_str().expect("an address"), at["port_value"]) == address.to_string() {
                endpoint["health_status"] = if state == MemberState::Ready { "HEALTHY" } else { "UNHEALTHY" }.into();
            }
        }
        fs::write(self.folder.join("by-hand"), file.to_string()).expect("the file");
        fs::rename(self.folder.join("by-hand"), &path).expect("the file");
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
