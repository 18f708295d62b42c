//! The socket table over `sock_diag` netlink.

use super::{Connection, Listener};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
use netlink_packet_sock_diag::{SockDiagMessage, inet};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr as KernelAddress};
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;

/// The kernel fills dumps in pages of at most 32 KiB.
const RECEIVE_BUFFER: usize = 32 * 1024;

/// `SOCK_DESTROY` of linux/sock_diag.h: asked like a look-up of one socket, and ends it.
const SOCK_DESTROY: u16 = 21;

pub(super) fn listeners(port: Option<u16>) -> io::Result<Vec<Listener>> {
    let sockets = dump(&StateFlags::LISTEN, port.unwrap_or(0))?;
    Ok(sockets
        .into_iter()
        .map(|socket| Listener { address: local(&socket.header), inode: u64::from(socket.header.inode) })
        .collect())
}

pub(super) fn established(port: u16) -> io::Result<Vec<Connection>> {
    Ok(dump(&StateFlags::ESTABLISHED, port)?.iter().map(connection).collect())
}

/// The connections to a port, and whether somebody waits there for an answer.
pub(super) fn exchanges(port: u16) -> io::Result<Vec<(Connection, bool)>> {
    let states = StateFlags::ESTABLISHED | StateFlags::CLOSE_WAIT;
    let found = dump_with(&states, port, &ExtensionFlags::INFO)?;
    let of = |response: &InetResponse| {
        let info = response.nlas.iter().find_map(|nla| match nla {
            Nla::TcpInfo(bytes) => Some(bytes.as_slice()),
            _ => None,
        });
        // One of which nothing is said may be the one.
        (connection(response), info.and_then(waits).unwrap_or(true))
    };
    Ok(found.iter().map(of).collect())
}

/// Reads `struct tcp_info` of linux/tcp.h; None: it is of a kernel that says less.
fn waits(info: &[u8]) -> Option<bool> {
    let field = |at: usize| Some(u32::from_ne_bytes(info.get(at..at + 4)?.try_into().ok()?));
    let (unacknowledged, unsent) = (field(24)?, field(144)?);
    let (sent_ago, received_ago) = (field(44)?, field(52)?);
    let (came_in, went_out) = (field(152)?, field(156)?);
    let first = came_in > 0 && went_out == 0;
    Some(unacknowledged > 0 || unsent > 0 || first || received_ago < sent_ago)
}

pub(super) fn open() -> io::Result<Vec<Connection>> {
    let states = StateFlags::ESTABLISHED | StateFlags::SYN_SENT | StateFlags::CLOSE_WAIT;
    Ok(dump(&states, 0)?.iter().map(connection).collect())
}

pub(super) fn end(connection: &Connection) -> io::Result<()> {
    let (family, mut socket_id) = match connection.local {
        SocketAddr::V4(_) => (AF_INET, SocketId::new_v4()),
        SocketAddr::V6(_) => (AF_INET6, SocketId::new_v6()),
    };
    (socket_id.source_address, socket_id.source_port) = (connection.local.ip(), connection.local.port());
    (socket_id.destination_address, socket_id.destination_port) = (connection.remote.ip(), connection.remote.port());
    // Any socket with these addresses.
    socket_id.cookie = [0xff; 8];
    let mut bytes = request(family, StateFlags::all(), ExtensionFlags::empty(), socket_id);
    let flags = NLM_F_REQUEST | NLM_F_ACK;
    for (place, byte) in (4..).zip(SOCK_DESTROY.to_ne_bytes().into_iter().chain(flags.to_ne_bytes())) {
        bytes.get_mut(place..=place).into_iter().flatten().for_each(|at: &mut u8| *at = byte);
    }
    LINE.ask(&bytes, &mut Vec::new())
}

/// Datagrams for which the UDP socket with this inode, at this address, had no room; None: the kernel does not tell so.
pub(super) fn dropped(address: SocketAddr, inode: u64) -> Option<u64> {
    let (family, nowhere) = match address {
        SocketAddr::V4(_) => (AF_INET, SocketId::new_v4()),
        SocketAddr::V6(_) => (AF_INET6, SocketId::new_v6()),
    };
    let cookie = [0xff; 8];
    let as_source = SocketId { source_address: address.ip(), source_port: address.port(), cookie, ..nowhere };
    // Kernels look for it from the side of a datagram that arrives: there it is the destination.
    let as_destination = SocketId { destination_address: address.ip(), destination_port: address.port(), cookie, ..nowhere };
    [as_destination, as_source].into_iter().find_map(|socket_id| {
        let question = InetRequest {
            family,
            protocol: IPPROTO_UDP,
            extensions: ExtensionFlags::SKMEMINFO,
            states: StateFlags::all(),
            socket_id,
        };
        let mut found = Vec::new();
        LINE.ask(&packet(NLM_F_REQUEST | NLM_F_ACK, question), &mut found).ok()?;
        let own = found.iter().find(|response| u64::from(response.header.inode) == inode)?;
        own.nlas.iter().find_map(|nla| match nla {
            Nla::MemInfo(memory) => Some(u64::from(memory.drops)),
            _ => None,
        })
    })
}

fn connection(InetResponse { header, .. }: &InetResponse) -> Connection {
    let remote = SocketAddr::new(header.socket_id.destination_address, header.socket_id.destination_port);
    Connection { local: local(header), remote, inode: u64::from(header.inode) }
}

fn local(header: &inet::InetResponseHeader) -> SocketAddr {
    SocketAddr::new(header.socket_id.source_address, header.socket_id.source_port)
}

fn dump(states: &StateFlags, port: u16) -> io::Result<Vec<InetResponse>> {
    dump_with(states, port, &ExtensionFlags::empty())
}

fn dump_with(states: &StateFlags, port: u16, extensions: &ExtensionFlags) -> io::Result<Vec<InetResponse>> {
    let mut found = Vec::new();
    for (family, mut socket_id) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
        socket_id.source_port = port;
        LINE.ask(&request(family, states.clone(), extensions.clone(), socket_id), &mut found)?;
    }
    // A filter the kernel does not know is a filter it does not apply.
    found.retain(|socket| port == 0 || socket.header.socket_id.source_port == port);
    Ok(found)
}

/// The way to the kernel stays open: it is asked at every probe. Who finds it in use opens another for itself.
static LINE: Line = Line(Mutex::new(None));

struct Line(Mutex<Option<Open>>);

struct Open {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Line {
    /// Asks one question, and gathers all of its answer. After an error the way is opened anew: half an answer may be in it.
    fn ask(&self, question: &[u8], found: &mut Vec<InetResponse>) -> io::Result<()> {
        let kept = self.0.lock().ok().and_then(|mut kept| kept.take());
        let mut open = kept.map_or_else(connected, Ok)?;
        open.socket.send(question, 0)?;
        receive(&mut open, found)?;
        if let Ok(mut kept) = self.0.lock() {
            kept.get_or_insert(open);
        }
        Ok(())
    }
}

fn connected() -> io::Result<Open> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&KernelAddress::new(0, 0))?;
    // The kernel answers before `send` returns; an answer that is not there will not come.
    socket.set_non_blocking(true)?;
    Ok(Open { socket, buffer: vec![0; RECEIVE_BUFFER] })
}

fn request(family: u8, states: StateFlags, extensions: ExtensionFlags, socket_id: SocketId) -> Vec<u8> {
    packet(NLM_F_REQUEST | NLM_F_DUMP, InetRequest { family, protocol: IPPROTO_TCP, extensions, states, socket_id })
}

fn packet(flags: u16, request: InetRequest) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut packet = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    bytes
}

fn receive(Open { socket, buffer }: &mut Open, found: &mut Vec<InetResponse>) -> io::Result<()> {
    loop {
        let size = socket.recv(&mut &mut buffer[..], 0)?;
        let mut rest = buffer.get(..size).unwrap_or_default();
        while !rest.is_empty() {
            let packet = NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(io::Error::other)?;
            match packet.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => found.push(*response),
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return error.code.map_or(Ok(()), |_| Err(error.to_io())),
                _ => {}
            }
            let length = (packet.header.length as usize).next_multiple_of(4);
            rest = if length == 0 { &[] } else { rest.get(length..).unwrap_or_default() };
        }
    }
}
