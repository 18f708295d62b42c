//! A server that tells every caller who it is, and callers.

use crate::problem::{from_status, to_status};
use crate::tls::{Connection, Credentials, Hot, channel, client_config, hot, incoming, joining_config, peer, server_config};
use crate::v1::enrollment_client::EnrollmentClient;
use crate::v1::enrollment_server::{Enrollment, EnrollmentServer};
use crate::v1::{GreetRequest, Greeting, JoinReply, JoinRequest, KeptReply, KeptRequest, RenewRequest};
use baton_core::problem::{Code, Problem};
use rustls::ServerConfig;
use rustls::pki_types::ServerName;
use std::io;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_stream::Stream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

pub(in crate::tls) struct Server {
    pub(in crate::tls) address: SocketAddr,
    pub(in crate::tls) config: Hot<ServerConfig>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    pub(in crate::tls) async fn start(credentials: &Credentials) -> Self {
        Self::on("127.0.0.1:0".parse().unwrap(), credentials).await
    }

    pub(in crate::tls) async fn on(address: SocketAddr, credentials: &Credentials) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let config = hot(server_config(credentials).unwrap());
        let address = listener.local_addr().unwrap();
        let (stop, task) = serve(incoming(listener, config.clone()));
        Self { address, config, stop, task }
    }
}

impl Server {
    /// Ends the listener and, politely, every connection.
    pub(in crate::tls) async fn stop(self) -> SocketAddr {
        drop(self.stop);
        self.task.await.unwrap();
        self.address
    }
}

/// Does one handshake and holds the connection until the other side has seen it.
pub(in crate::tls) async fn connect_to(address: SocketAddr, credentials: Credentials) {
    let connector = TlsConnector::from(client_config(&credentials).unwrap());
    let tcp = TcpStream::connect(address).await.unwrap();
    connector.connect(ServerName::try_from("coordinator").unwrap(), tcp).await.unwrap();
}

/// Serves until the sender is dropped.
pub(in crate::tls) fn serve(
    connections: impl Stream<Item = io::Result<Connection>> + Send + 'static,
) -> (oneshot::Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(async move {
        let router = tonic::transport::Server::builder().add_service(EnrollmentServer::new(Mirror));
        router.serve_with_incoming_shutdown(connections, async { drop(stopped.await) }).await.unwrap();
    });
    (stop, task)
}

/// Answers with who asks; asked for a `name`, it refuses with as much evidence.
struct Mirror;

#[tonic::async_trait]
impl Enrollment for Mirror {
    async fn greet(&self, request: Request<GreetRequest>) -> Result<Response<Greeting>, Status> {
        Ok(Response::new(Greeting { identity: peer(&request).identity.to_string(), ..Greeting::default() }))
    }

    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<JoinReply>, Status> {
        Err(Status::unimplemented("a mirror renews nothing"))
    }

    async fn kept(&self, _: Request<KeptRequest>) -> Result<Response<KeptReply>, Status> {
        Err(Status::unimplemented("nor does it hear what became of it"))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        let peer = peer(&request);
        if let Ok(evidence) = request.get_ref().name.parse() {
            let problem = Problem::new(Code(210), "shop did not become ready").help("look at its log");
            return Err(to_status(problem.saw("log", "x".repeat(evidence)).saw("probe", "503")));
        }
        Ok(Response::new(JoinReply {
            identity: peer.identity.to_string(),
            certificate_pem: peer.serial.unwrap_or_default(),
            authority_pem: peer.remote.map(|remote| remote.ip().to_string()).unwrap_or_default(),
        }))
    }
}

pub(in crate::tls) fn connect(server: &Server, credentials: &Credentials) -> Channel {
    channel(&server.address.to_string(), hot(client_config(credentials).unwrap())).unwrap()
}

pub(in crate::tls) fn join_with(server: &Server, pin: [u8; 32]) -> Channel {
    channel(&server.address.to_string(), hot(joining_config(pin).unwrap())).unwrap()
}

/// Asks who we are.
pub(in crate::tls) async fn ask(channel: &Channel) -> Result<JoinReply, Problem> {
    ask_for(channel, "").await
}

pub(in crate::tls) async fn ask_for(channel: &Channel, name: &str) -> Result<JoinReply, Problem> {
    let request = JoinRequest { name: name.to_owned(), ..JoinRequest::default() };
    let reply = EnrollmentClient::new(channel.clone()).join(request).await;
    reply.map(Response::into_inner).map_err(|status| from_status(&status))
}
