//! The way to the coordinator: its socket on this machine, or the credentials of `baton login`.

use crate::errors::code;
use baton_core::problem::Problem;
use baton_proto::problem::from_status;
use baton_proto::tls::{self, Credentials, Notice};
use baton_proto::v1::artifacts_client::ArtifactsClient;
use baton_proto::v1::control_client::ControlClient;
use baton_proto::v1::{FleetView, StatusRequest};
use clap::Args;
use rustix::fs::{Access, access};
use rustix::io::Errno;
use std::path::{Path, PathBuf};
use tonic::transport::Channel;

/// Where the coordinator's packages put its socket.
pub const DEFAULT_SOCKET: &str = "/run/baton/coordinator.sock";

/// What names another one, where no option does.
const SOCKET_VARIABLE: &str = "BATON_SOCKET";

/// What a machine has on which a coordinator is installed.
const COORDINATOR_FILE: &str = "/etc/baton/coordinator.toml";

/// A view of thousands of hosts is some megabytes; more than this is no view.
const VIEW_MAX: usize = 64 * 1024 * 1024;

/// The file beside the credentials that says whose they are.
const COORDINATOR: &str = "coordinator";

/// How the coordinator is reached.
#[derive(Debug, Clone, Default, Args)]
pub struct ConnectArgs {
    /// The coordinator's unix socket, on its own machine; else what the variable BATON_SOCKET names
    // Not clap's `env`: every usage line would show an option that nobody gave.
    #[arg(long, global = true, value_name = "PATH", help_heading = "Connection", value_parser = path())]
    pub socket: Option<PathBuf>,
    /// What handshakes show of the coordinator's authorities.
    #[arg(skip)]
    pub notice: Notice,
}

/// Any path, also none at all: a variable that is set to nothing is one that is not set.
fn path() -> impl clap::builder::TypedValueParser<Value = PathBuf> {
    use clap::builder::TypedValueParser as _;
    clap::builder::OsStringValueParser::new().map(PathBuf::from)
}

impl ConnectArgs {
    /// The socket that was named, by the option or else by the variable. What is set to nothing names none.
    fn socket(&self) -> Option<PathBuf> {
        let set = || std::env::var_os(SOCKET_VARIABLE).map(PathBuf::from);
        self.socket.clone().or_else(set).filter(|socket| !socket.as_os_str().is_empty())
    }
}

/// An open way to the coordinator. Connects when the first question is asked, and again after it broke.
#[derive(Debug, Clone)]
pub struct Connection {
    pub control: ControlClient<Channel>,
    pub artifacts: ArtifactsClient<Channel>,
}

/// What `baton login` keeps: who we are, and whom we asked.
#[derive(Debug, Clone)]
pub struct Login {
    pub coordinator: String,
    pub credentials: Credentials,
}

impl Connection {
    /// Finds the way. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When there is neither a socket nor a login, or the credentials cannot be used.
    pub fn open(args: &ConnectArgs) -> Result<Self, Problem> {
        Ok(Self::over(channel(args)?))
    }

    fn over(channel: Channel) -> Self {
        Self {
            control: ControlClient::new(channel.clone()).max_decoding_message_size(VIEW_MAX),
            artifacts: ArtifactsClient::new(channel),
        }
    }

    /// The fleet as it is now; of one service, or of all where the name is empty.
    ///
    /// # Errors
    /// The coordinator's problem, or the connection's.
    pub async fn view(&mut self, service: &str) -> Result<FleetView, Problem> {
        let request = StatusRequest { service: service.to_owned() };
        self.control.status(request).await.map(tonic::Response::into_inner).map_err(|status| from_status(&status))
    }
}

/// The bare way, for what is asked of others than `Control`.
///
/// # Errors
/// As [`Connection::open`].
pub fn channel(args: &ConnectArgs) -> Result<Channel, Problem> {
    if let Some(socket) = args.socket() {
        return Ok(tls::local_channel(socket));
    }
    let folder = config_folder()?;
    match chosen(&folder) {
        Way::Socket => Ok(tls::local_channel(DEFAULT_SOCKET)),
        Way::Login => {
            let login = Login::load(&folder)?;
            let config = tls::noticing_config(&login.credentials, args.notice.clone())?;
            tls::channel(&login.coordinator, tls::hot(config))
        }
    }
}

/// The login that is used where the socket is not, and its folder.
#[must_use]
pub fn login(args: &ConnectArgs) -> Option<(PathBuf, Login)> {
    let folder = config_folder().ok().filter(|_| args.socket().is_none())?;
    match chosen(&folder) {
        Way::Socket => None,
        Way::Login => Login::load(&folder).ok().map(|login| (folder, login)),
    }
}

/// How the coordinator's own socket looks from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Socket {
    Missing,
    /// It is there, and not for this user.
    Denied,
    Usable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Socket,
    Login,
}

/// The socket where it can be used; an operator's login on the same machine helps where it cannot. With neither, a machine
/// that has a coordinator is told about its socket, and every other one how to log in.
const fn way(socket: Socket, logged_in: bool, has_coordinator: bool) -> Way {
    match (socket, logged_in) {
        (Socket::Usable, _) | (Socket::Denied, false) => Way::Socket,
        (Socket::Missing, false) if has_coordinator => Way::Socket,
        (Socket::Denied, true) | (Socket::Missing, _) => Way::Login,
    }
}

fn chosen(folder: &Path) -> Way {
    way(default_socket(), folder.join(COORDINATOR).exists(), Path::new(COORDINATOR_FILE).exists())
}

fn default_socket() -> Socket {
    match access(DEFAULT_SOCKET, Access::WRITE_OK) {
        Ok(()) => Socket::Usable,
        Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => Socket::Denied,
        Err(_) => Socket::Missing,
    }
}

/// Where a login is kept: `BATON_CONFIG_DIR`, else `baton` in the user's configuration.
///
/// # Errors
/// When neither that nor a home is set.
pub fn config_folder() -> Result<PathBuf, Problem> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("BATON_CONFIG_DIR")
        .or_else(|| Some(set("XDG_CONFIG_HOME")?.join("baton")))
        .or_else(|| Some(set("HOME")?.join(".config/baton")))
        .ok_or_else(|| {
            Problem::new(code::NOT_CONNECTED, "there is no folder for credentials: neither BATON_CONFIG_DIR nor HOME is set")
                .help("set BATON_CONFIG_DIR, or give --socket on the coordinator's machine")
        })
}

impl Login {
    /// Reads what [`Login::save`] wrote.
    ///
    /// # Errors
    /// When nobody logged in yet, or the files cannot be used.
    pub fn load(folder: &Path) -> Result<Self, Problem> {
        let file = folder.join(COORDINATOR);
        let coordinator = std::fs::read_to_string(&file).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Problem::new(code::NOT_CONNECTED, "no coordinator is known here")
                .saw("socket", format!("{DEFAULT_SOCKET}: not there"))
                .saw("login", format!("{}: not there", file.display()))
                .help(
                    "baton login HOST:PORT --token-file FILE, with a token of `baton token create --role deployer` from the \
                     coordinator's machine; where this is that machine, first `baton-coordinator init`, and `systemctl start \
                     baton-coordinator`",
                ),
            _ => unreadable(&file, &error),
        })?;
        Ok(Self { coordinator: coordinator.trim().to_owned(), credentials: Credentials::load(folder)? })
    }

    /// Keeps the login; the address last, so that a login cut short is none.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn save(&self, folder: &Path) -> Result<(), Problem> {
        self.credentials.save(folder)?;
        let file = folder.join(COORDINATOR);
        std::fs::write(&file, format!("{}\n", self.coordinator)).map_err(|error| unreadable(&file, &error))
    }
}

fn unreadable(file: &Path, error: &std::io::Error) -> Problem {
    Problem::new(code::LOGIN, "the login cannot be used")
        .saw("file", format!("{}: {error}", file.display()))
        .help("be the user who logged in here, or log in again: baton login HOST:PORT --token-file FILE")
}

#[cfg(test)]
mod tests {
    use super::{ConnectArgs, Connection, Login, Socket, Way, way};
    use crate::errors::code;
    use baton_proto::problem::code as wire;

    #[test]
    fn the_socket_is_used_where_it_can_be_and_a_login_where_it_cannot() {
        for here in [false, true] {
            assert_eq!([way(Socket::Usable, false, here), way(Socket::Usable, true, here)], [Way::Socket; 2]);
            assert_eq!([way(Socket::Missing, true, here), way(Socket::Denied, true, here)], [Way::Login; 2]);
            assert_eq!(way(Socket::Denied, false, here), Way::Socket, "so that the error names the socket and the group");
        }
        assert_eq!(way(Socket::Missing, false, false), Way::Login);
        assert_eq!(way(Socket::Missing, false, true), Way::Socket, "its coordinator does not run, and no login would help");
    }

    #[test]
    fn without_a_login_the_problem_says_how_to_log_in() {
        let folder = tempfile::tempdir().unwrap();
        let problem = Login::load(folder.path()).unwrap_err();
        assert_eq!(problem.code, code::NOT_CONNECTED);
        assert!(problem.help.as_ref().unwrap().contains("baton login"));
    }

    #[tokio::test]
    async fn a_socket_that_is_missing_or_that_nobody_listens_on_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing.sock");
        let deserted = folder.path().join("deserted.sock");
        drop(std::os::unix::net::UnixListener::bind(&deserted).unwrap());
        for (socket, seen) in [(missing, "No such file"), (deserted, "refused")] {
            let args = ConnectArgs { socket: Some(socket.clone()), ..ConnectArgs::default() };
            let problem = Connection::open(&args).unwrap().view("").await.unwrap_err();
            assert_eq!(problem.code, wire::UNREACHABLE);
            assert!(problem.what.contains(socket.to_str().unwrap()), "{problem:?}");
            assert!(problem.seen.iter().any(|(_, evidence)| evidence.contains(seen)), "{problem:?}");
            assert!(problem.help.is_some());
        }
    }
}
