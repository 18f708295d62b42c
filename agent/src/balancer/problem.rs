//! What can be wrong with a balancer: one constructor a code, so that a code means one thing.

use super::ask::Place;
use baton_core::fleet::MemberKey;
use baton_core::fleet::ability::Feature;
use baton_core::name::PoolName;
use baton_core::problem::{Code, Problem};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

/// The driver's own memory in the agent's state folder cannot be kept.
pub(crate) fn state_folder(path: &Path, error: &io::Error) -> Problem {
    Problem::new(Code(401), format!("what this agent did to the balancer cannot be remembered in {}", path.display()))
        .saw("error", error.to_string())
        .help("make the folder writable for the agent, and check free space")
}

/// Nobody listens on the control socket.
pub(crate) fn socket_missing(path: &Path, error: &io::Error) -> Problem {
    Problem::new(Code(402), format!("nobody answers on the balancer's socket {}", path.display()))
        .saw("connect", error.to_string())
        .help(format!("is it running, with `stats socket {} mode 600 level admin`?", path.display()))
}

/// The control socket is not ours to open.
pub(crate) fn socket_denied(path: &Path, error: &io::Error) -> Problem {
    Problem::new(Code(403), format!("the agent may not open the balancer's socket {}", path.display()))
        .saw("connect", error.to_string())
        .help("run the agent as root, or give the socket `mode 660 group` a group the agent is in")
}

/// The control socket gave no whole answer in time.
pub(crate) fn socket_slow(path: &Path, waited_ms: u128) -> Problem {
    Problem::new(Code(404), format!("the balancer did not answer on {} within {waited_ms} ms", path.display()))
        .help("is it stopped or overloaded? `stats maxconn` idle connections block the next one")
}

/// The control socket was closed in the middle of an answer: a balancer that ends, or something else altogether.
pub(crate) fn socket_broken(path: &Path, error: &io::Error) -> Problem {
    Problem::new(Code(404), format!("the balancer broke off in the middle of its answer on {}", path.display()))
        .saw("error", error.to_string())
        .help("does it restart, or end? its own log says why")
}

/// The control socket answered with something else than was asked for.
pub(crate) fn socket_garbage(path: &Path, seen: &str) -> Problem {
    Problem::new(Code(404), format!("what answers on {} is not the balancer this agent knows", path.display()))
        .saw("answer", excerpt(seen))
        .help("check the socket's path in the agent's `[balancer]` table")
}

/// The control socket shows everything and changes nothing.
pub(crate) fn not_admin(path: &Path, level: &str) -> Problem {
    Problem::new(Code(405), format!("the socket {} does not allow changes", path.display()))
        .saw("level", level)
        .help(format!("write `stats socket {} mode 600 level admin` in haproxy.cfg and reload", path.display()))
}

/// The balancer has no pool of this name.
pub(crate) fn pool_unknown(pool: &PoolName, help: String) -> Problem {
    Problem::new(Code(406), format!("the balancer has no pool `{pool}`")).help(help)
}

/// The pool has no server at the member's address.
pub(crate) fn server_missing(pool: &str, key: &MemberKey, address: SocketAddr) -> Problem {
    let name = key.to_string().replace('/', "-");
    Problem::new(Code(407), format!("the backend `{pool}` has no server at {address}, the address of {key}"))
        .help(format!("add to `backend {pool}`:  server {name} {address} disabled"))
}

/// Somebody else decides about this server, too.
pub(crate) fn agent_check(pool: &PoolName, server: &str) -> Problem {
    Problem::new(Code(408), format!("the server {pool}/{server} uses `agent-check`, which undoes what Baton sets"))
        .help(format!("remove `agent-check` from the line of {pool}/{server} and reload"))
}

/// The member does not answer from the balancer's host: it is not put in.
pub(crate) fn not_answering(key: &MemberKey, asked: &str, answer: &str) -> Problem {
    Problem::new(Code(409), format!("{key} does not answer this balancer's host and is not put in"))
        .saw("probe", format!("{asked}: {answer}"))
        .help("is the service bound to an address this host can reach, and is the way there open?")
}

/// A runtime socket over the network: HAProxy serves it in plain text, also on a line that says `ssl`.
pub(crate) fn no_unix_socket(path: &Path) -> Problem {
    Problem::new(Code(439), format!("`{}` is not the path of a unix socket", path.display()))
        .saw("HAProxy", "a runtime socket on TCP is in plain text and asks for no certificate, whatever its line says")
        .help("write `stats socket /run/haproxy/admin.sock mode 600 level admin`, and name this path in agent.toml")
}

/// The balancer was told, and did something else.
pub(crate) fn not_taken(key: &MemberKey, asked: impl Display, seen: impl Display, complaint: &str) -> Problem {
    if complaint.contains("static LB algorithm") {
        return Problem::new(Code(438), format!("the weight of {key} cannot be changed with this `balance` algorithm"))
            .saw("asked", asked.to_string())
            .saw("read back", seen.to_string())
            .saw("answer", excerpt(complaint))
            .help("`balance roundrobin`, `leastconn` and `random` take weights; or leave `weight` off the server's line");
    }
    let problem = Problem::new(Code(410), format!("the balancer did not take what was asked for {key}"))
        .saw("asked", asked.to_string())
        .saw("read back", seen.to_string());
    if complaint.is_empty() { problem } else { problem.saw("answer", excerpt(complaint)) }
}

/// What should survive the balancer's restart cannot be written; so nothing is changed.
pub(crate) fn state_file(path: &Path, error: &io::Error) -> Problem {
    Problem::new(Code(411), format!("the balancer's state file {} cannot be written, so nothing is changed", path.display()))
        .saw("error", error.to_string())
        .help("make its folder writable for the agent, and check free space")
}

/// A reload is under way: neither the old nor the new process can be believed.
pub(crate) fn changing_hands(seen: impl Into<String>) -> Problem {
    Problem::new(Code(412), "the balancer is being reloaded or restarted").saw("processes", seen)
}

/// The built-in balancer's process does not start.
pub(crate) fn not_starting(command: &str, seen: &str) -> Problem {
    Problem::new(Code(413), "the built-in balancer does not start")
        .saw("command", command)
        .saw("log", excerpt(seen))
        .help("the port of `listen` may be taken by another program: `ss -ltnp`")
}

/// Somebody changed it by hand, and the agent is told to let that be.
pub(crate) fn left_alone(key: &MemberKey, asked: impl Display, seen: impl Display) -> Problem {
    Problem::new(Code(450), format!("somebody changed {key} in the balancer by hand, and it is left so"))
        .saw("asked", asked.to_string())
        .saw("read back", seen.to_string())
        .help("put it back by hand, or set `drift = \"correct\"` in the agent's [balancer] table")
}

/// The built-in balancer's process goes on although its program or its arguments changed.
pub(crate) fn not_replaced(why: &Problem) -> Problem {
    let problem =
        Problem::new(Code(448), "another built-in balancer did not take over, so the one before goes on as it was");
    let problem = why.seen.iter().fold(problem, |problem, (label, seen)| problem.saw(label.clone(), seen.clone()));
    problem.help("see what its log says; it is tried again every half minute, and nothing fails meanwhile")
}

/// No client of a pool can be served over TLS.
pub(crate) fn no_certificate(pool: &PoolName, wrong: &str) -> Problem {
    Problem::new(Code(447), format!("the certificate for `{pool}` cannot be served, so nobody is"))
        .saw("file", wrong)
        .help("see `tls` in the agent's [balancer] table; files that are put right are served a second later")
}

/// Clients of a pool get a certificate that the files no longer say.
pub(crate) fn old_certificate(pool: &PoolName, wrong: &str) -> Problem {
    Problem::new(
        Code(447),
        format!("the new certificate for `{pool}` cannot be served, so clients still get the one before"),
    )
    .saw("file", wrong)
    .help("put both files right: the key must be the certificate's; they are served a second later")
}

/// The balancer would not route to it, although it is in: its own check says so.
pub(crate) fn down(key: &MemberKey, check: &str) -> Problem {
    Problem::new(Code(414), format!("{key} is in, and the balancer's own check says it is down")).saw("check", check)
}

/// Two lines claim one address.
pub(crate) fn ambiguous(pool: &PoolName, address: SocketAddr, claims: &str) -> Problem {
    Problem::new(Code(415), format!("more than one member or server of `{pool}` has the address {address}"))
        .saw("claimed by", claims)
        .help("give each its own port")
}

/// Another backend routes to the member, and nobody asked Baton to manage that one.
pub(crate) fn also_routed(key: &MemberKey, elsewhere: &str) -> Problem {
    Problem::new(Code(416), format!("{key} is out, and another backend still routes to it"))
        .saw("server", elsewhere)
        .help("route through one backend, or disable the other server by hand for the time of the rollout")
}

/// A restart brought back what the state file says is out.
pub(crate) fn file_ignored(path: &Path, server: &str) -> Problem {
    Problem::new(Code(417), format!("HAProxy restarted and did not load {}", path.display()))
        .saw("server", format!("{server} is out in the file and came back in"))
        .help(format!("`global`: server-state-file {}   `defaults`: load-server-state-from-file global", path.display()))
}

/// Taking the member out would leave the pool empty.
pub(crate) fn would_be_empty(pool: &PoolName, key: &MemberKey) -> Problem {
    Problem::new(Code(418), format!("{key} stays in: without it `{pool}` would be empty"))
        .help("another member has to be in first: see its own problem")
}

/// The pool's requests cannot be divided as they should be: nobody is put on the trial side.
pub(crate) fn cannot_split(pool: &PoolName, lacks: &BTreeSet<Feature>) -> Problem {
    let lacks: Vec<&str> = lacks.iter().map(|feature| feature.0.as_str()).collect();
    Problem::new(Code(440), format!("this balancer cannot divide the requests of `{pool}` as asked"))
        .saw("lacks", lacks.join(", "))
}

/// The split was asked for, and what is read back is another.
pub(crate) fn split_not_taken(pool: &PoolName, asked: &str, running: &str, on_disk: &str) -> Problem {
    Problem::new(Code(441), format!("the balancer does not divide the requests of `{pool}` as it was told"))
        .saw("asked", asked)
        .saw("read back", running)
        .saw("after a restart", on_disk)
}

/// Nobody listens where the balancer should answer.
pub(crate) fn nobody_answers(place: &Place, error: &io::Error) -> Problem {
    Problem::new(Code(402), format!("nobody answers at {place}, where the balancer should"))
        .saw("connect", error.to_string())
        .help("is it running, and is this the address in the agent's `[balancer]` table?")
}

/// The balancer's own endpoint is not ours to open.
pub(crate) fn place_denied(place: &Place, error: &io::Error) -> Problem {
    Problem::new(Code(403), format!("the agent may not open {place}"))
        .saw("connect", error.to_string())
        .help("run the agent as root, or as a user the socket's mode lets in")
}

/// The balancer's own endpoint gave no whole answer in time.
pub(crate) fn place_slow(place: &Place, waited_ms: u128) -> Problem {
    Problem::new(Code(404), format!("the balancer did not answer at {place} within {waited_ms} ms"))
        .help("is it stopped or overloaded?")
}

/// The balancer's own endpoint answered with something else than was asked for.
pub(crate) fn place_garbage(place: &Place, seen: &str) -> Problem {
    Problem::new(Code(404), format!("what answers at {place} is not the balancer this agent knows"))
        .saw("answer", excerpt(seen))
        .help("another program may have the port; name a free one in the agent's `[balancer]` table")
}

/// No nginx under the pid of its pid file.
pub(crate) fn nginx_not_running(pid_file: &Path, seen: &str) -> Problem {
    Problem::new(Code(402), "nginx does not run, or runs under another pid file")
        .saw(pid_file.display().to_string(), seen)
        .help("start it, or name its pid file in `pid_file` of the agent's [balancer] table")
}

/// What the program itself says against its configuration.
pub(crate) fn config_refused(program: &str, said: &str) -> Problem {
    Problem::new(Code(430), format!("{program} refuses its configuration, so it goes on with the old one"))
        .saw(program, excerpt(said))
        .help("mend it as it says; Baton's file is back as it was, and tried again every two seconds")
}

/// Asked for, accepted, and never seen.
pub(crate) fn not_taken_over(program: &str, seen: &str) -> Problem {
    Problem::new(Code(431), format!("{program} accepted a new configuration and did not take it over"))
        .saw("seen", seen)
        .help("its error log has the reason: most often a port that another program has")
}

/// What is in the file's place was not written by Baton.
pub(crate) fn file_foreign(path: &Path) -> Problem {
    Problem::new(Code(432), format!("{} was not written by Baton and is left alone", path.display()))
        .help("name another file in `include` of the agent's [balancer] table, or empty this one")
}

/// This nginx loses requests at each reload.
pub(crate) fn nginx_too_old(version: &str) -> Problem {
    Problem::new(Code(433), format!("nginx {version} closes idle client connections at each reload"))
        .saw("costs", "a request of each client that sends on a kept connection at that moment without looking")
        .help("nginx 1.27.4 and later keep them: `keepalive_min_timeout 5s;` in http { }")
}

/// This nginx could keep idle connections and is not told to.
pub(crate) fn nginx_drops_idle() -> Problem {
    Problem::new(Code(433), "nginx closes idle client connections at each reload")
        .saw("costs", "a request of each client that sends on a kept connection at that moment without looking")
        .help("write `keepalive_min_timeout 5s;` in http { }")
}

/// A limit that hits members which stay.
pub(crate) fn nginx_cuts_streams() -> Problem {
    Problem::new(Code(434), "`worker_shutdown_timeout` cuts every WebSocket at each reload")
        .saw("costs", "streams to all members, also to those that stay")
        .help("remove it; Baton ends what a member still holds at the drain's deadline")
}

/// The file is in its place and nginx does not read it.
pub(crate) fn not_included(path: &Path) -> Problem {
    Problem::new(Code(435), format!("nginx does not read {}", path.display()))
        .help(format!("write in http {{ }} of nginx.conf: include {};", path.display()))
}

/// The program that tests a configuration cannot be run.
pub(crate) fn nginx_missing(binary: &Path, error: &io::Error) -> Problem {
    Problem::new(Code(436), format!("{} cannot be run", binary.display()))
        .saw("error", error.to_string())
        .help("name nginx's program in `binary` of the agent's [balancer] table")
}

/// No request of nginx can be counted.
pub(crate) fn nginx_logs_nothing(why: &str) -> Problem {
    Problem::new(Code(446), "nginx's requests are not counted, so no release behind it is judged by them")
        .saw("why", why)
        .help("name an access log in http { } of nginx.conf: `access_log /var/log/nginx/access.log;`")
}

/// Requests of these blocks are not counted.
pub(crate) fn nginx_logs_elsewhere(blocks: &BTreeSet<String>, line: &str) -> Problem {
    Problem::new(Code(446), "some of nginx's requests are not counted: an `access_log` of their own keeps Baton's from them")
        .saw("where", blocks.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
        .help(format!("write beside it: {line}"))
}

/// Nobody hears what nginx says.
pub(crate) fn nginx_unheard(address: SocketAddr, error: &io::Error) -> Problem {
    Problem::new(Code(446), "nginx's requests are not counted: the agent cannot listen to what nginx says of them")
        .saw(format!("UDP {address}"), error.to_string())
        .help("another program may have the port: name another one in `status` of the agent's [balancer] table")
}

/// Nobody hears what HAProxy says.
pub(crate) fn haproxy_deaf(address: SocketAddr, error: &io::Error) -> Problem {
    Problem::new(Code(449), "how long HAProxy's answers take is not known: the agent cannot listen to what HAProxy logs")
        .saw(format!("UDP {address}"), error.to_string())
        .help("another program may have the port: name another one in `requests` of the agent's [balancer] table and in haproxy.cfg")
}

/// HAProxy counts requests, and does not say them; `speaks`: it says other things there.
pub(crate) fn haproxy_unheard(address: SocketAddr, pools: &str, speaks: bool) -> Problem {
    let format =
        "`log global` and `option httplog` in `defaults` or the frontend, without a `log-format` or `dontlog-normal`";
    Problem::new(Code(449), "how long HAProxy's answers take is not known: fewer than half of its requests are heard")
        .saw("pools", pools)
        .saw(format!("UDP {address}"), if speaks { "lines that are no requests" } else { "nothing" })
        .help(match speaks {
            true => format!("write {format}"),
            false => format!("write {format}, and in `global`:  log {address} local0"),
        })
}

/// A place where HAProxy's requests cannot be told from a stranger's.
pub(crate) fn haproxy_requests_elsewhere(address: SocketAddr) -> Problem {
    Problem::new(Code(449), format!("`requests` is no address of loopback: {address}"))
        .saw("HAProxy", "it runs on this host, and only of a sender on this host is it known which program it is")
        .help("write `requests = \"127.0.0.1:8405\"`, and `log 127.0.0.1:8405 local0` in haproxy.cfg")
}

/// With this cluster, out would not be out.
pub(crate) fn envoy_cluster(pool: &str, lacks: &[String]) -> Problem {
    Problem::new(Code(437), format!("Envoy's cluster `{pool}` is not one that Baton can drive"))
        .saw("needs", lacks.join("; "))
        .help("write this into the cluster and restart Envoy: see docs/envoy.md")
}

/// The owner's routes are not to be had, so no request is divided.
pub(crate) fn envoy_routes(path: &Path, seen: impl Display) -> Problem {
    Problem::new(Code(451), format!("{} is not a route configuration that Baton can divide", path.display()))
        .saw("seen", seen.to_string())
        .help("docs/envoy.md has one to start from, under Dividing requests; what Envoy serves now stays in effect")
}

/// Something unreadable in one line: no control characters, and not too much of it.
fn excerpt(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}
