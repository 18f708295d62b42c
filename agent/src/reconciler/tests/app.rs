//! The application under test: this very test program, started again as itself.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

/// How a command line makes the test program an application.
pub(super) fn command(arguments: &[&str]) -> Vec<String> {
    let own = env::current_exe().unwrap().display().to_string();
    let mut command =
        vec![own, "--exact".to_owned(), "reconciler::tests::app::application".to_owned(), "--nocapture".to_owned()];
    // The test program takes what comes after `--` for names of tests; the environment is where an application looks.
    command.push("--".to_owned());
    command.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    command
}

/// What it shall do: `answer=200`, `bind=ADDRESS`, `after=MILLISECONDS`, `exit=STATUS`, and `usr1=FILE`: upon SIGUSR1 this file is
/// there; with `flag=FILE` it is not ready while that is there.
pub(super) fn env(behaviour: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("APP".to_owned(), behaviour.to_owned())])
}

/// Not a test, unless it was started as an application.
#[test]
fn application() {
    let Ok(behaviour) = env::var("APP") else { return };
    let behaviour: BTreeMap<_, _> = behaviour.split_whitespace().filter_map(|word| word.split_once('=')).collect();
    let port = env::var("BATON_PORT").unwrap();
    let own = format!("{}:{port}", env::var("BATON_ADDRESS").unwrap());
    std::thread::sleep(Duration::from_millis(behaviour.get("after").map_or(0, |after| after.parse().unwrap())));
    if let Some(status) = behaviour.get("exit") {
        say("about to give up");
        std::process::exit(status.parse().unwrap());
    }
    if let Some(file) = behaviour.get("usr1") {
        let file = (*file).to_owned();
        std::thread::spawn(move || signalled(&file));
    }
    let bind = behaviour.get("bind").map_or(own, |bind| bind.replace("PORT", &port));
    if bind == "nowhere" {
        say("waiting for better times");
        std::thread::sleep(Duration::from_secs(600));
    }
    serve(&bind, behaviour.get("answer").unwrap_or(&"200 OK"), behaviour.get("flag"));
}

fn serve(bind: &str, answer: &str, flag: Option<&&str>) {
    let listener = TcpListener::bind(bind).unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    say(&format!("listening on {address}"));
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let _ = stream.read(&mut [0; 1024]);
        let answer = if flag.is_some_and(|flag| fs::exists(flag).unwrap()) { "503" } else { answer };
        let _ = stream.write_all(format!("HTTP/1.1 {answer} x\r\nlocation: /login\r\ncontent-length: 0\r\n\r\n").as_bytes());
    }
}

fn signalled(file: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut asked = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::user_defined1()).unwrap();
        say("may be asked");
        while asked.recv().await.is_some() {
            fs::write(file, "").unwrap();
        }
    });
}

fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").unwrap();
}
