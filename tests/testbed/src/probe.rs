//! Probes: real sockets in a sandbox, and the errors that the kernel reports to them.

use std::{
    fmt,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    sync::LazyLock,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use crate::{
    named_internet::dns_server,
    network::NetworkNamespace,
    test_servers,
    wait::{WAIT_LIMIT, retry_interrupted},
};

/// The time limit of an expected reply on a busy machine. It is shorter than [`WAIT_LIMIT`], so
/// that a probe can be repeated within that limit.
static REPLY_TIMEOUT: LazyLock<Duration> = LazyLock::new(|| *WAIT_LIMIT / 3);
/// An attempt that expects no reply counts as silent after this time.
const SILENCE_WINDOW: Duration = Duration::from_millis(300);

/// The payload for destinations that may be TLS or DNS servers instead of echo servers. Any reply
/// is accepted.
const PROBE_PAYLOAD: &[u8] = b"is anybody there?";

/// The kind of attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// A TCP connection to this port.
    Tcp(u16),
    /// A UDP datagram to this port.
    Udp(u16),
    /// An ICMP echo request.
    Ping,
}

impl fmt::Display for ProbeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "tcp {port}"),
            Self::Udp(port) => write!(f, "udp {port}"),
            Self::Ping => f.write_str("ping"),
        }
    }
}

/// The outcome of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// The connection was established, or the datagram came back.
    Answered,
    /// Immediately: "connection refused". For TCP, a reset.
    Refused,
    /// Immediately: the ICMP error "administratively prohibited".
    Prohibited,
    /// An HTTP server or the proxy responded with 403.
    Forbidden,
    /// No reply.
    NoReply,
    /// Another error.
    Failed(String),
}

impl fmt::Display for ProbeResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered => f.write_str("answered"),
            Self::Refused => f.write_str("refused"),
            Self::Prohibited => f.write_str("prohibited"),
            Self::Forbidden => f.write_str("forbidden"),
            Self::NoReply => f.write_str("silence"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

/// Attempts to reach `address` from inside a namespace.
pub fn probe(from: &NetworkNamespace, how: ProbeKind, address: IpAddr) -> ProbeResult {
    probe_within(*REPLY_TIMEOUT, from, how, address)
}

/// Like [`probe`], but expects no reply and waits less time for one.
pub fn probe_expecting_silence(
    from: &NetworkNamespace,
    how: ProbeKind,
    address: IpAddr,
) -> ProbeResult {
    probe_within(SILENCE_WINDOW, from, how, address)
}

fn probe_within(
    limit: Duration,
    from: &NetworkNamespace,
    how: ProbeKind,
    address: IpAddr,
) -> ProbeResult {
    let inside = match from.enter() {
        Ok(inside) => inside,
        Err(error) => return ProbeResult::Failed(format!("{error:#}")),
    };
    let result = match how {
        ProbeKind::Tcp(port) => probe_tcp((address, port).into(), limit),
        ProbeKind::Udp(port) => probe_udp((address, port).into(), limit),
        ProbeKind::Ping => probe_ping(address, limit),
    };
    drop(inside);
    match result {
        Ok(()) => ProbeResult::Answered,
        Err(error) => result_from_error(&error),
    }
}

/// Connects a TCP stream from inside a namespace, with a timeout for reads.
pub fn connect(from: &NetworkNamespace, to: SocketAddr) -> Result<TcpStream> {
    let _inside = from.enter()?;
    let stream =
        TcpStream::connect_timeout(&to, *REPLY_TIMEOUT).with_context(|| format!("to {to}"))?;
    stream.set_read_timeout(Some(*REPLY_TIMEOUT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Connects a UDP socket inside a namespace.
pub fn connect_udp(from: &NetworkNamespace, to: SocketAddr) -> Result<UdpSocket> {
    let _inside = from.enter()?;
    let socket = UdpSocket::bind((unspecified_address(to.ip()), 0))?;
    socket.connect(to).with_context(|| format!("a route to {to}"))?;
    socket.set_read_timeout(Some(*REPLY_TIMEOUT))?;
    Ok(socket)
}

/// Sends `bytes` over a stream to an echo server and expects them back.
pub fn echo(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)?;
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back)?;
    expect_same_bytes(&back, bytes)
}

/// Sends a datagram to an echo server and expects it back.
pub fn echo_datagram(socket: &UdpSocket, bytes: &[u8]) -> io::Result<()> {
    socket.send(bytes)?;
    let mut back = vec![0; 65_536];
    let length = retry_interrupted(|| socket.recv(&mut back))?;
    expect_same_bytes(&back[..length], bytes)
}

/// Converts a socket error to a result.
pub fn result_from_error(error: &io::Error) -> ProbeResult {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED | libc::ECONNRESET | libc::EPIPE) => ProbeResult::Refused,
        Some(libc::EHOSTUNREACH | libc::EACCES) => ProbeResult::Prohibited,
        Some(libc::EAGAIN | libc::ETIMEDOUT) => ProbeResult::NoReply,
        _ if error.kind() == io::ErrorKind::TimedOut => ProbeResult::NoReply,
        _ => ProbeResult::Failed(error.to_string()),
    }
}

fn probe_tcp(to: SocketAddr, limit: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, limit)?;
    stream.set_read_timeout(Some(limit))?;
    match to.port() {
        test_servers::SSH_PORT => stream.read_exact(&mut [0; 4]),
        test_servers::HTTP_PORT => Ok(()),
        test_servers::HTTPS_PORT => {
            stream.write_all(PROBE_PAYLOAD)?;
            stream.read_exact(&mut [0])
        }
        test_servers::DNS_PORT => {
            stream.write_all(&dns_server::with_length_prefix(&dns_server::probe_query())?)?;
            stream.read_exact(&mut [0; 2])
        }
        _ => echo(&mut stream, PROBE_PAYLOAD),
    }
}

fn probe_udp(to: SocketAddr, limit: Duration) -> io::Result<()> {
    let socket = UdpSocket::bind((unspecified_address(to.ip()), 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(limit))?;
    if to.port() == test_servers::DNS_PORT {
        socket.send(&dns_server::probe_query())?;
        return retry_interrupted(|| socket.recv(&mut [0; 512])).map(|_| ());
    }
    echo_datagram(&socket, PROBE_PAYLOAD)
}

/// Pings through a ping socket, which reports ICMP errors like UDP does.
fn probe_ping(to: IpAddr, limit: Duration) -> io::Result<()> {
    let (family, protocol, request) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128),
    };
    let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?;
    let socket = UdpSocket::from(socket);
    socket.connect((to, 0))?;
    socket.set_read_timeout(Some(limit))?;
    // Type, code, checksum and identifier (the kernel fills in both), sequence number, data.
    socket.send(&[request, 0, 0, 0, 0, 0, 0, 1, b'?'])?;
    retry_interrupted(|| socket.recv(&mut [0; 64])).map(|_| ())
}

fn expect_same_bytes(back: &[u8], sent: &[u8]) -> io::Result<()> {
    let whole = back == sent;
    if whole { Ok(()) } else { Err(io::Error::other("the answer differs from what was sent")) }
}

fn unspecified_address(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
