//! DNS on the wire: the internet's servers, and a client for what a sandbox asks them itself.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
};

use anyhow::{Context as _, Result};
use hickory_proto::{
    op::{Message, OpCode, Query},
    rr::{Name, RecordType},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::zone::Zone;
use crate::{probe, world::Namespace};

/// The port.
pub const PORT: u16 = 53;

/// Serves a zone at an address of the namespace that the thread is in.
pub(super) fn serve(zone: &Zone, address: IpAddr) -> Result<()> {
    let at = SocketAddr::new(address, PORT);
    let datagrams = UdpSocket::bind(at).with_context(|| format!("UDP {at}"))?;
    let streams = TcpListener::bind(at).with_context(|| format!("TCP {at}"))?;
    datagrams.set_nonblocking(true)?;
    streams.set_nonblocking(true)?;
    tokio::spawn(over_udp(zone.clone(), tokio::net::UdpSocket::from_std(datagrams)?));
    tokio::spawn(over_tcp(zone.clone(), tokio::net::TcpListener::from_std(streams)?));
    Ok(())
}

async fn over_udp(zone: Zone, socket: tokio::net::UdpSocket) {
    let mut query = [0; 4096];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut query).await else { continue };
        if let Ok(Some(response)) = zone.respond(&query[..length], peer.ip(), false) {
            // A peer that is gone is no matter of the server's.
            let _ = socket.send_to(&response, peer).await;
        }
    }
}

async fn over_tcp(zone: Zone, listener: tokio::net::TcpListener) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else { continue };
        tokio::spawn(conversation(zone.clone(), stream, peer.ip()));
    }
}

/// A connection that fails has a peer that notices.
async fn conversation(zone: Zone, mut stream: tokio::net::TcpStream, peer: IpAddr) -> Result<()> {
    loop {
        let mut query = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut query).await?;
        if let Some(response) = zone.respond(&query, peer, true)? {
            stream.write_all(&prefixed(&response)?).await?;
        }
    }
}

/// Asks for a name's addresses over UDP, from inside a namespace. The error is what the socket says.
pub fn ask_over_udp(from: &Namespace, server: IpAddr, name: &str) -> Result<Vec<IpAddr>> {
    let socket = probe::datagrams(from, (server, PORT).into())?;
    socket.send(&query(name)?)?;
    let mut response = [0; 4096];
    let length = socket.recv(&mut response)?;
    addresses(&response[..length])
}

/// The same over TCP.
pub fn ask_over_tcp(from: &Namespace, server: IpAddr, name: &str) -> Result<Vec<IpAddr>> {
    let mut stream: TcpStream = probe::connect(from, (server, PORT).into())?;
    stream.write_all(&prefixed(&query(name)?)?)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut response = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut response)?;
    addresses(&response)
}

/// A query that any server has an answer to.
pub(crate) fn any_query() -> Vec<u8> {
    query("anybody.example").unwrap_or_default()
}

fn query(name: &str) -> Result<Vec<u8>> {
    let mut query = Message::new(4711, hickory_proto::op::MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(format!("{name}."))?, RecordType::A));
    Ok(query.to_vec()?)
}

fn addresses(response: &[u8]) -> Result<Vec<IpAddr>> {
    let response = Message::from_vec(response)?;
    Ok(response.answers.iter().filter_map(|record| record.data.ip_addr()).collect())
}

/// A message as it goes over TCP.
pub(crate) fn prefixed(message: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    Ok([&length.to_be_bytes(), message].concat())
}
