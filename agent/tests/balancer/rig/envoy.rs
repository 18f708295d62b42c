//! Envoy with the sample configuration.

use super::front::{Abilities, Front, Program};
use super::{place, program, signal, wait_listening};
use baton_agent::balancer::{BalancerConfig, EnvoyConfig, Place};
use baton_core::fleet::spec::MemberState;
use rustix::process::Signal;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

#[derive(Debug)]
struct Envoy {
    binary: PathBuf,
    folder: PathBuf,
    listen: SocketAddr,
    child: Option<Child>,
}

/// The owner's routes, of an Envoy that divides requests.
const ROUTES: &str = "routes.json";

/// The sample prepared for dividing requests.
pub(super) fn split_front() -> Option<Front> {
    let sample = include_str!("../../../examples/envoy-split.yaml");
    let (listener, cluster) = sample.split_once("\n# and").expect("two parts");
    let plain = |part: &str| {
        part.lines().filter(|line| line.starts_with("    ")).map(|line| format!("{line}\n")).collect::<String>()
    };
    let (listener, cluster) = (plain(listener), plain(cluster));
    let routes = include_str!("../../../examples/envoy-routes.json");
    let mut front = front(
        |config, folder| {
            let folder = folder.to_string_lossy();
            let (before, rest) = config.split_once("          route_config:\n").expect("routes in the sample");
            let (_, after) = rest.split_once("  - name: till\n").expect("the other pool");
            let config = format!("{before}{}  - name: till\n{after}", listener.replace("@FOLDER@", &folder));
            config.replace("    lb_policy: ROUND_ROBIN\n", &format!("    lb_policy: ROUND_ROBIN\n{cluster}"))
        },
        |folder| {
            fs::write(folder.join(ROUTES), routes).expect("the routes");
            // As an agent that ran before Envoy would have written it.
            let mut resource: serde_json::Value = serde_json::from_str(routes).expect("JSON");
            resource["@type"] = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration".into();
            let first = serde_json::json!({ "version_info": "first", "resources": [resource] });
            fs::write(folder.join("eds/~routes.json"), first.to_string()).expect("the first routes");
        },
    )?;
    let BalancerConfig::Envoy(config) = &mut front.config else { return None };
    config.routes = Some(front.folder.path().join(ROUTES));
    Some(front)
}

pub(super) fn front(edit: impl Fn(String, &Path) -> String, prepare: impl Fn(&Path)) -> Option<Front> {
    let binary = program("envoy", "BATON_ENVOY", "envoy")?;
    let folder = TempDir::new().expect("a folder");
    let (listen, till) = (place(), place());
    let path = |name: &str| folder.path().join(name);
    let sample = include_str!("../../../examples/envoy.yaml");
    // The second pool is the first once more; the folder's name comes last, as it may be like anything.
    let (head, listener) = sample.split_once("  - name: shop\n").expect("a listener");
    let (listener, cluster) = listener.split_once("  clusters:\n").expect("clusters");
    let listener = format!("  - name: shop\n{listener}");
    let at = |text: &str, place: SocketAddr| {
        text.replace("@ADDRESS@", &place.ip().to_string()).replace("@PORT@", &place.port().to_string())
    };
    let listeners = at(&listener, listen) + &at(&listener, till).replace("shop", "till");
    let config = format!("{head}{listeners}  clusters:\n{cluster}{}", cluster.replace("shop", "till"));
    let config = config.replace("@FOLDER@", &folder.path().to_string_lossy());
    fs::create_dir(path("eds")).expect("a folder");
    fs::write(path("envoy.yaml"), edit(config, folder.path())).expect("the configuration");
    let empty = |pool: &str| {
        let text = include_str!("../../../examples/envoy-eds.json").replace("shop", pool);
        fs::write(path(&format!("eds/{pool}.json")), text).expect("the first file");
    };
    empty("shop");
    empty("till");
    prepare(folder.path());
    let config = BalancerConfig::Envoy(EnvoyConfig {
        admin: Place::Unix(path("admin.sock")),
        folder: path("eds"),
        routes: None,
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
