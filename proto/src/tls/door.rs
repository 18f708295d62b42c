//! The door: whoever knocks too often is not heard for a while, and costs nothing meanwhile.
//!
//! To accept a connection and to close it takes a processor some time, most of it in the kernel. So the kernel is told whom not to
//! hear: a filter on the listener drops what would open a connection, before anything is made for it. That takes no right, and
//! concerns no connection that is open. Where the kernel takes no filter, whoever knocks too often is accepted and closed.

use socket2::{SockFilter, SockRef};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout_at};

/// Between two accepts after one failed, for want of file descriptors above all: others must end first.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Whoever tries again by itself does so after a second: it is heard then, unless it still comes too often.
const SHUT: Duration = Duration::from_secs(1);

/// The filter is looked through for every connection that begins; of more addresses than this each is accepted and closed.
const MOST: usize = 16;

/// A listener, and whom it does not hear.
#[derive(Debug)]
pub(super) struct Door {
    listener: TcpListener,
    /// Each source, as [`source`](super::handshakes::source) has it, until when.
    out: BTreeMap<IpAddr, Instant>,
}

impl Door {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self { listener, out: BTreeMap::new() }
    }

    /// The next one who is heard. Nothing is lost when this is dropped.
    pub(super) async fn next(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            self.open(Instant::now());
            let accepted = match self.out.values().min() {
                None => self.listener.accept().await,
                Some(until) => match timeout_at(*until, self.listener.accept()).await {
                    Ok(accepted) => accepted,
                    Err(_) => continue,
                },
            };
            match accepted {
                Ok(accepted) => return accepted,
                // The peer went away between its knock and our answer: the next one waits already.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }

    /// Does not hear a source for a while. Who knocked before is still let in by [`Door::next`].
    pub(super) fn shut(&mut self, source: IpAddr, now: Instant) {
        if self.out.len() >= MOST || self.out.contains_key(&source) {
            return;
        }
        self.out.insert(source, now + SHUT);
        tracing::debug!(%source, "connects too often, and is not heard for a while");
        self.tell_kernel();
    }

    fn open(&mut self, now: Instant) {
        let shut = self.out.len();
        self.out.retain(|_, until| *until > now);
        if self.out.len() < shut {
            self.tell_kernel();
        }
    }

    fn tell_kernel(&self) {
        let socket = SockRef::from(&self.listener);
        let told = match self.out.is_empty() {
            true => socket.detach_filter(),
            false => socket.attach_filter(&filter(self.out.keys().copied())),
        };
        if let Err(error) = told {
            tracing::debug!(%error, "the kernel takes no filter: who connects too often is accepted and closed");
        }
    }
}

/// Instructions of the classic Berkeley packet filter.
mod code {
    /// Four bytes of the packet, in its order.
    pub(super) const LOAD_WORD: u16 = 0x20;
    pub(super) const LOAD_BYTE: u16 = 0x30;
    pub(super) const AND: u16 = 0x54;
    /// So many further on where it is equal, so many where it is not.
    pub(super) const JUMP_IF_EQUAL: u16 = 0x15;
    /// How much of the packet is kept.
    pub(super) const RETURN: u16 = 0x06;
}

/// On a socket of TCP offsets count from TCP's own header, and from here from the network's.
const NETWORK: u32 = 0xfff0_0000;
const TCP_FLAGS: u32 = 13;
const SYN: u32 = 0x02;
const SYN_ACK: u32 = 0x12;
const SOURCE_V4: u32 = NETWORK + 12;
const SOURCE_V6: u32 = NETWORK + 8;

/// Drops what opens a connection from one of these sources, and keeps everything else.
fn filter(sources: impl Iterator<Item = IpAddr>) -> Vec<SockFilter> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for source in sources {
        match source {
            IpAddr::V4(source) => v4.push(u32::from(source)),
            IpAddr::V6(source) => {
                let [a, b, c, d, ..] = source.segments().map(u32::from);
                v6.push((a << 16 | b, c << 16 | d));
            }
        }
    }
    // Where everything is: the last two instructions keep and drop.
    let begin_v6 = 6 + 1 + v4.len() + 1;
    let keep = begin_v6 + 4 * v6.len();
    let drop = keep + 1;
    let mut program = Vec::with_capacity(drop + 1);
    let load = |code, from| SockFilter::new(code, 0, 0, from);
    let equal = |at: usize, to, then: usize, otherwise: usize| {
        // Of the most sources it is less than a hundred instructions.
        let steps = |target: usize| u8::try_from(target - at - 1).unwrap_or_default();
        SockFilter::new(code::JUMP_IF_EQUAL, steps(then), steps(otherwise), to)
    };
    program.push(load(code::LOAD_BYTE, TCP_FLAGS));
    program.push(load(code::AND, SYN_ACK));
    program.push(equal(2, SYN, 3, keep));
    program.push(load(code::LOAD_BYTE, NETWORK));
    program.push(load(code::AND, 0xf0));
    program.push(equal(5, 0x40, 6, begin_v6));
    program.push(load(code::LOAD_WORD, SOURCE_V4));
    for source in v4 {
        let at = program.len();
        program.push(equal(at, source, drop, at + 1));
    }
    program.push(load(code::RETURN, u32::MAX));
    for (high, low) in v6 {
        let at = program.len();
        program.push(load(code::LOAD_WORD, SOURCE_V6));
        program.push(equal(at + 1, high, at + 2, at + 4));
        program.push(load(code::LOAD_WORD, SOURCE_V6 + 4));
        program.push(equal(at + 3, low, drop, at + 4));
    }
    program.push(load(code::RETURN, u32::MAX));
    program.push(load(code::RETURN, 0));
    program
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use tokio::net::TcpSocket;
    use tokio::task::JoinHandle;

    fn from(source: [u8; 4], to: SocketAddr) -> JoinHandle<io::Result<TcpStream>> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        tokio::spawn(socket.connect(to))
    }

    async fn door(at: &str) -> (Door, SocketAddr) {
        let listener = TcpListener::bind(at).await.unwrap();
        let address = listener.local_addr().unwrap();
        (Door::new(listener), address)
    }

    #[tokio::test]
    async fn who_is_not_heard_waits_and_is_heard_later_and_nobody_else_is_concerned() {
        let (mut door, address) = door("127.0.0.1:0").await;
        // An open connection is none of the door's business.
        let early = from([127, 0, 66, 6], address);
        let (mut kept, _) = door.next().await;
        for last in 1..MOST {
            door.shut(Ipv4Addr::new(192, 0, 2, u8::try_from(last).unwrap()).into(), Instant::now());
        }
        let began = Instant::now();
        door.shut(Ipv4Addr::new(127, 0, 66, 6).into(), began);
        let shut_out = from([127, 0, 66, 6], address);
        // Time enough to be there first.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let honest = from([127, 0, 66, 7], address);
        assert_eq!(door.next().await.1.ip().to_string(), "127.0.66.7");
        assert!(began.elapsed() < SHUT, "{:?}", began.elapsed());
        honest.await.unwrap().unwrap();
        let mut early = early.await.unwrap().unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut early, b"1").await.unwrap();
        assert_eq!(tokio::io::AsyncReadExt::read_u8(&mut kept).await.unwrap(), b'1');

        assert_eq!(door.next().await.1.ip().to_string(), "127.0.66.6", "it tried again");
        assert!(began.elapsed() >= SHUT && door.out.is_empty(), "{:?}", began.elapsed());
        shut_out.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_network_of_version_6_is_one_source() {
        let (mut door, address) = door("[::]:0").await;
        let network = |last: u16| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, last, 0, 0, 0, 0));
        (1..MOST).for_each(|last| door.shut(network(u16::try_from(last).unwrap()), Instant::now()));
        let began = Instant::now();
        // Of ::1, which is all that there is of it without a network.
        door.shut(Ipv6Addr::UNSPECIFIED.into(), began);
        let at = |ip: IpAddr| SocketAddr::new(ip, address.port());
        let shut_out = tokio::spawn(TcpStream::connect(at(Ipv6Addr::LOCALHOST.into())));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let honest = from([127, 0, 66, 7], at(Ipv4Addr::LOCALHOST.into()));
        assert!(door.next().await.1.ip().to_canonical().is_ipv4());
        honest.await.unwrap().unwrap();
        assert_eq!(door.next().await.1.ip(), IpAddr::from(Ipv6Addr::LOCALHOST));
        assert!(began.elapsed() >= SHUT, "{:?}", began.elapsed());
        shut_out.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn no_more_are_shut_out_than_the_kernel_is_told_of() {
        let (mut door, _) = door("127.0.0.1:0").await;
        for last in 0..=u8::MAX {
            door.shut(Ipv4Addr::new(192, 0, 2, last).into(), Instant::now());
        }
        assert_eq!(door.out.len(), MOST);
        assert!(filter(door.out.keys().copied()).len() < usize::from(u8::MAX));
    }
}
