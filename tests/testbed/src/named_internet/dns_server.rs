//! DNS messages: the internet's servers, and a client for queries from a sandbox.

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

use super::dns_zone::DnsZone;
use crate::{network::NetworkNamespace, probe, test_servers::DNS_PORT, wait::retry_interrupted};

/// Serves a zone at an address of the calling thread's namespace.
pub(super) fn serve(zone: &DnsZone, address: IpAddr) -> Result<()> {
    let at = SocketAddr::new(address, DNS_PORT);
    let datagrams = UdpSocket::bind(at).with_context(|| format!("UDP {at}"))?;
    let streams = TcpListener::bind(at).with_context(|| format!("TCP {at}"))?;
    datagrams.set_nonblocking(true)?;
    streams.set_nonblocking(true)?;
    tokio::spawn(serve_udp(zone.clone(), tokio::net::UdpSocket::from_std(datagrams)?));
    tokio::spawn(serve_tcp(zone.clone(), tokio::net::TcpListener::from_std(streams)?));
    Ok(())
}

async fn serve_udp(zone: DnsZone, socket: tokio::net::UdpSocket) {
    let mut query = [0; 4096];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut query).await else { continue };
        if let Ok(Some(response)) = zone.respond(&query[..length], peer.ip(), false) {
            // The peer may have closed its socket, which does not affect the server.
            let _ = socket.send_to(&response, peer).await;
        }
    }
}

async fn serve_tcp(zone: DnsZone, listener: tokio::net::TcpListener) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else { continue };
        tokio::spawn(serve_stream(zone.clone(), stream, peer.ip()));
    }
}

/// Serves one connection. If it fails, the peer reports that.
async fn serve_stream(
    zone: DnsZone,
    mut stream: tokio::net::TcpStream,
    peer: IpAddr,
) -> Result<()> {
    loop {
        let mut query = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut query).await?;
        if let Some(response) = zone.respond(&query, peer, true)? {
            stream.write_all(&with_length_prefix(&response)?).await?;
        }
    }
}

/// Queries the addresses of a name over UDP from inside a namespace. Errors are those of the
/// socket.
pub fn query_over_udp(from: &NetworkNamespace, server: IpAddr, name: &str) -> Result<Vec<IpAddr>> {
    let socket = probe::connect_udp(from, (server, DNS_PORT).into())?;
    socket.send(&address_query(name)?)?;
    let mut response = [0; 4096];
    let length = retry_interrupted(|| socket.recv(&mut response))?;
    parse_addresses(&response[..length])
}

/// Queries the addresses of a name over TCP.
pub fn query_over_tcp(from: &NetworkNamespace, server: IpAddr, name: &str) -> Result<Vec<IpAddr>> {
    let mut stream: TcpStream = probe::connect(from, (server, DNS_PORT).into())?;
    stream.write_all(&with_length_prefix(&address_query(name)?)?)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut response = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut response)?;
    parse_addresses(&response)
}

/// A query that any server responds to.
pub(crate) fn probe_query() -> Vec<u8> {
    address_query("anybody.example").unwrap_or_default()
}

fn address_query(name: &str) -> Result<Vec<u8>> {
    let mut query = Message::new(4711, hickory_proto::op::MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(format!("{name}."))?, RecordType::A));
    Ok(query.to_vec()?)
}

fn parse_addresses(response: &[u8]) -> Result<Vec<IpAddr>> {
    let response = Message::from_vec(response)?;
    Ok(response.answers.iter().filter_map(|record| record.data.ip_addr()).collect())
}

/// A message in TCP framing, with its length in front.
pub(crate) fn with_length_prefix(message: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    Ok([&length.to_be_bytes(), message].concat())
}
