//! ClientHellos: those of a TLS library, split in various ways, and those that no library would
//! send.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    sync::Arc,
};

use anyhow::{Context as _, Result};
use rustls::{ClientConfig, ClientConnection, Stream, pki_types::ServerName};

/// The server name extension.
const EXTENSION_SERVER_NAME: u16 = 0;
/// The alert when the policy denies a name.
pub const ALERT_ACCESS_DENIED: u8 = 49;
/// The alert when something else fails.
pub const ALERT_INTERNAL_ERROR: u8 = 80;
/// Padding (RFC 7685).
pub const EXTENSION_PADDING: u16 = 21;
/// Encrypted ClientHello (RFC 9849).
const EXTENSION_ECH: u16 = 0xfe0d;
/// The extensions of any current ClientHello: groups, signature algorithms, versions, and a key
/// share.
const USUAL_EXTENSIONS: [(u16, &[u8]); 4] = [
    (10, &[0, 4, 0, 0x1d, 0, 0x17]),
    (13, &[0, 8, 4, 3, 8, 4, 4, 1, 8, 6]),
    (43, &[4, 3, 4, 3, 3]),
    (51, &{
        let mut share = [9; 38];
        [share[0], share[1], share[2], share[3], share[4], share[5]] = [0, 36, 0, 0x1d, 0, 32];
        share
    }),
];
/// The maximum number of bytes in a record.
pub const MAX_RECORD_BYTES: usize = 16_384;

/// Builds a ClientHello (the handshake message) with these bytes as the server name, and with these
/// extensions in addition to the usual ones.
pub fn hello_message(name: Option<&[u8]>, more: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut extensions = Vec::new();
    if let Some(name) = name {
        // A list with one entry of type host_name (0).
        let entry = [&[0], &*with_length_prefix(name)].concat();
        extensions.extend(encode_extension(EXTENSION_SERVER_NAME, &with_length_prefix(&entry)));
    }
    for (kind, body) in USUAL_EXTENSIONS {
        extensions.extend(encode_extension(kind, body));
    }
    for (kind, body) in more {
        extensions.extend(encode_extension(*kind, body));
    }
    let mut hello = vec![3, 3];
    hello.extend([7; 32]); // random
    hello.push(32);
    hello.extend([8; 32]); // session ID
    hello.extend(with_length_prefix(&[0x13, 1, 0x13, 2, 0xc0, 0x2b, 0xc0, 0x2f]));
    hello.extend([1, 0]); // no compression
    hello.extend(with_length_prefix(&extensions));
    let length = u32::try_from(hello.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[1], &length[1..], &hello].concat()
}

/// An extension with the encrypted server name. The cleartext name is then only the outer one.
pub fn ech_extension(length: usize) -> (u16, Vec<u8>) {
    // Outer (0), HKDF-SHA256, AES-128-GCM, the ID of the server's key.
    let head = [0, 0, 1, 0, 1, 42];
    (
        EXTENSION_ECH,
        [&head, &*with_length_prefix(&[5; 32]), &*with_length_prefix(&vec![6; length])].concat(),
    )
}

/// A ClientHello for a name, in records of the usual size.
pub fn hello_records(name: &str) -> Vec<u8> {
    split_into_records(&hello_message(Some(name.as_bytes()), &[]), MAX_RECORD_BYTES)
}

fn encode_extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes(), &*with_length_prefix(body)].concat()
}

fn with_length_prefix(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), bytes].concat()
}

/// Splits a handshake message into records of `size` bytes.
pub fn split_into_records(message: &[u8], size: usize) -> Vec<u8> {
    let records = message.chunks(size);
    records.flat_map(|piece| [&[22, 3, 1], &*with_length_prefix(piece)].concat()).collect()
}

/// Splits the same handshake messages into records of another size.
pub fn resplit_records(mut records: &[u8], size: usize) -> Vec<u8> {
    let mut message = Vec::new();
    while let [_, _, _, high, low, rest @ ..] = records {
        let (piece, rest) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        message.extend_from_slice(piece);
        records = rest;
    }
    split_into_records(&message, size)
}

/// Fails unless the server continues the handshake, which the first byte of its response shows.
pub fn expect_handshake_record(stream: &mut TcpStream) -> io::Result<()> {
    let mut first = [0];
    stream.read_exact(&mut first)?;
    if first == [22] { Ok(()) } else { Err(io::Error::other(format!("an alert: {first:?}"))) }
}

/// Requests `/` over TLS and returns the response. `send` receives the bytes of the ClientHello and
/// the stream to send them on.
pub fn fetch_over_tls(
    stream: &mut TcpStream,
    config: ClientConfig,
    name: &str,
    send: impl FnOnce(&mut TcpStream, Vec<u8>) -> io::Result<()>,
) -> Result<String> {
    let server = ServerName::try_from(name.to_owned()).context("a server's name")?;
    let mut tls = ClientConnection::new(Arc::new(config), server)?;
    let mut hello = Vec::new();
    tls.write_tls(&mut hello)?;
    send(stream, hello).context("sending the ClientHello")?;
    let mut stream = Stream::new(&mut tls, stream);
    let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).context("after the ClientHello")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("reading the answer")?;
    Ok(answer)
}

/// Sends each byte in its own segment.
pub fn send_byte_by_byte(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    bytes.iter().try_for_each(|byte| stream.write_all(&[*byte]))
}
