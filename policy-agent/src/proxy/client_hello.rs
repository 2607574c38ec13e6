//! Reads a ClientHello, however it is split into segments and records, and keeps its bytes for the
//! upstream.

use std::io;

use policy_common::reason::Reason;
use rustls::{Error, InvalidMessage, PeerMisbehaved, server::Acceptor};
use tokio::net::TcpStream;

use super::{sni, socket::try_read_buf};
use crate::policy::RequestedName;

/// Bytes to read at a time.
const READ_CHUNK: usize = 4096;
/// Maximum size of a ClientHello in bytes, including record headers. Real ones stay below 16 KiB.
const MAX_CLIENT_HELLO: usize = 64 * 1024;

/// The SNI of a ClientHello in lower case. `None` if there is none, or if it is an IP address.
pub(super) type SniName = Option<RequestedName>;

/// Why no ClientHello was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ClientHelloError {
    /// The client has closed the connection.
    Closed,
    /// The bytes are not a ClientHello that can be decided on.
    Invalid(Reason),
}

/// Reads a ClientHello from a client.
pub(super) async fn read_client_hello(
    client: &TcpStream,
    reader: &mut ClientHelloReader,
) -> Result<SniName, ClientHelloError> {
    loop {
        client.readable().await.map_err(|_| ClientHelloError::Closed)?;
        let read = try_read_buf(client, reader.read_buffer());
        match read {
            Ok(0) => return Err(ClientHelloError::Closed),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return Err(ClientHelloError::Closed),
        }
        if let Some(sni) = reader.parse_available().map_err(ClientHelloError::Invalid)? {
            return Ok(sni);
        }
    }
}

/// Incremental reader of a ClientHello.
#[derive(Default)]
pub(super) struct ClientHelloReader {
    acceptor: Acceptor,
    bytes: Vec<u8>,
    /// How many of the bytes are already parsed.
    parsed: usize,
}

impl ClientHelloReader {
    /// All bytes read: the ClientHello and anything after it.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The buffer for the next read.
    fn read_buffer(&mut self) -> &mut Vec<u8> {
        self.bytes.reserve(READ_CHUNK);
        &mut self.bytes
    }

    /// Parses the bytes received so far. Returns the SNI once the ClientHello is complete.
    fn parse_available(&mut self) -> Result<Option<SniName>, Reason> {
        if self.bytes.len() > MAX_CLIENT_HELLO {
            return Err(Reason::NotJudgeable);
        }
        while self.parsed < self.bytes.len() {
            let mut rest = &self.bytes[self.parsed..];
            let count = self.acceptor.read_tls(&mut rest).map_err(|_| Reason::NotJudgeable)?;
            self.parsed += count;
            match self.acceptor.accept() {
                Ok(Some(accepted)) => {
                    return Ok(Some(
                        accepted.client_hello().server_name().map(RequestedName::parse),
                    ));
                }
                Ok(None) if count == 0 => return Err(Reason::NotJudgeable),
                Ok(None) => {}
                Err((error, _)) => return self.lenient_sni(rejection_reason(&error)).map(Some),
            }
        }
        Ok(None)
    }

    /// Parses a name that the library rejects and the proxy accepts.
    fn lenient_sni(&self, problem: Reason) -> Result<SniName, Reason> {
        let name = match problem {
            Reason::InvalidName => sni::parse_server_name(&self.bytes),
            _ => None,
        };
        let name = name.map(|name| RequestedName::parse(&name));
        name.filter(|name| name.domain().is_some()).map(Some).ok_or(problem)
    }
}

fn rejection_reason(error: &Error) -> Reason {
    match error {
        Error::PeerMisbehaved(PeerMisbehaved::ServerNameMustContainOneHostName) => {
            Reason::InvalidName
        }
        // RFC 6066, 3: one host_name, in one extension.
        Error::InvalidMessage(
            InvalidMessage::InvalidServerName | InvalidMessage::DuplicateExtension(0),
        ) => Reason::NameConflict,
        _ => Reason::NotJudgeable,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::DomainName;
    use crate::proxy::tests::hello_builder::{
        ClientHelloBuilder as Built, TlsExtension, client_hello, refragment,
    };

    /// The reader's result for bytes that arrive in these pieces.
    fn sni_in_pieces<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Option<Option<String>>, Reason> {
        let mut reader = ClientHelloReader::default();
        for piece in pieces {
            reader.read_buffer().extend_from_slice(piece);
            if let Some(name) = reader.parse_available()? {
                return Ok(Some(name.map(|name| name.as_str().to_owned())));
            }
        }
        Ok(None)
    }

    fn sni_in(bytes: &[u8]) -> Result<Option<Option<String>>, Reason> {
        sni_in_pieces([bytes])
    }

    fn found_name(name: &str) -> Result<Option<Option<String>>, Reason> {
        Ok(Some(Some(name.to_owned())))
    }

    #[test]
    fn however_it_is_split() {
        let hello = client_hello("www.good.example");
        assert_eq!(sni_in(&hello), found_name("www.good.example"));
        assert_eq!(sni_in_pieces(hello.chunks(1)), found_name("www.good.example"), "byte by byte");
        for length in [1, 2, 3, 7, 100, 1000] {
            let records = refragment(&hello, length);
            assert_eq!(sni_in(&records), found_name("www.good.example"), "records of {length}");
            assert_eq!(
                sni_in_pieces(records.chunks(1)),
                found_name("www.good.example"),
                "and byte by byte"
            );
        }
        for position in 1..hello.len() {
            let (start, end) = hello.split_at(position);
            assert_eq!(sni_in(start), Ok(None), "{position}");
            assert_eq!(sni_in_pieces([start, end]), found_name("www.good.example"), "{position}");
        }
    }

    #[test]
    fn long_ones() {
        let long = Built { padding: 40_000, ..Built::for_name("good.example") }.build();
        assert!(long.len() > 40_000);
        assert_eq!(sni_in(&long), found_name("good.example"));
        assert_eq!(sni_in_pieces(long.chunks(1400)), found_name("good.example"));
        // As many one-byte records as fit, fed byte by byte: the work must stay bounded.
        let start = std::time::Instant::now();
        let records =
            refragment(&Built { padding: 9_000, ..Built::for_name("good.example") }.build(), 1);
        assert!(records.len() < MAX_CLIENT_HELLO);
        assert_eq!(sni_in_pieces(records.chunks(1)), found_name("good.example"));
        println!("{:?} for {} bytes", start.elapsed(), records.len());
        let longer = Built { padding: 70_000, ..Built::for_name("good.example") };
        assert_eq!(sni_in(&longer.build()), Err(Reason::NotJudgeable));
    }

    #[test]
    fn names_that_are_none_and_names_that_are_several() {
        let with = |extensions| Built { extensions, ..Built::for_name("x.example") }.build();
        let sni = |name: &[u8]| TlsExtension::sni(&[(0, name)]);
        for (extensions, expected) in [
            (vec![], Ok(Some(None))),
            (vec![sni(b"GOOD.example")], found_name("good.example")),
            (vec![sni(b"good.example.")], found_name("good.example.")),
            (vec![sni(b"192.0.2.1")], Ok(Some(None))),
            (vec![sni(b"2001:db8::1")], Ok(Some(None))),
            (vec![sni(b"good.example\0")], Err(Reason::InvalidName)),
            (vec![sni(b"good.example\0.evil.example")], Err(Reason::InvalidName)),
            (vec![sni("bücher.example".as_bytes())], Err(Reason::InvalidName)),
            (vec![sni(b"a b")], Err(Reason::InvalidName)),
            (vec![sni(b"my_bucket.example")], found_name("my_bucket.example")),
            (vec![sni(b"-A.b-.example")], found_name("-a.b-.example")),
            (vec![sni(b"-a.192.0.2.1")], Err(Reason::InvalidName)),
            (vec![sni(&[b'a'; 64])], Err(Reason::InvalidName)),
            (vec![sni(b"a..b")], Err(Reason::InvalidName)),
            (vec![TlsExtension::sni(&[])], Err(Reason::NotJudgeable)),
            (vec![sni(b"")], Err(Reason::NotJudgeable)),
            (vec![TlsExtension::sni(&[(7, b"good.example")])], Err(Reason::InvalidName)),
            (
                vec![TlsExtension::sni(&[(0, b"good.example"), (0, b"evil.example")])],
                Err(Reason::NameConflict),
            ),
            (vec![sni(b"good.example"), sni(b"evil.example")], Err(Reason::NameConflict)),
        ] {
            assert_eq!(sni_in(&with(extensions.clone())), expected, "{extensions:?}");
        }
    }

    #[test]
    fn what_is_no_client_hello() {
        let hello = client_hello("good.example");
        let mut alert = hello.clone();
        alert[0] = 21;
        let mut server_hello = hello.clone();
        server_hello[5] = 2;
        let two = [hello.clone(), hello.clone()].concat();
        for bytes in [&alert, &server_hello, &b"SSH-2.0-x\r\n".to_vec(), &vec![0x80, 0x2e, 1, 0, 2]]
        {
            assert_ne!(sni_in(bytes), found_name("good.example"));
        }
        assert_eq!(
            sni_in(&two),
            found_name("good.example"),
            "what follows is the server's business"
        );
    }

    /// The name that a real server reads from these bytes.
    fn seen_by_a_server(bytes: &[u8]) -> Option<String> {
        let mut acceptor = Acceptor::default();
        let mut rest = bytes;
        while !rest.is_empty() {
            acceptor.read_tls(&mut rest).ok()?;
            if let Some(accepted) = acceptor.accept().ok()? {
                return accepted.client_hello().server_name().map(str::to_owned);
            }
        }
        None
    }

    fn pieces(bytes: &[u8], lengths: &[usize]) -> Vec<Vec<u8>> {
        let (mut rest, mut pieces) = (bytes, Vec::new());
        for length in lengths.iter().cycle().take(bytes.len().max(1)) {
            let (piece, more) = rest.split_at((*length).min(rest.len()));
            pieces.push(piece.to_vec());
            rest = more;
        }
        pieces
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_never_a_name(
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
            lengths in prop::collection::vec(1_usize..300, 1..20),
        ) {
            let pieces = pieces(&bytes, &lengths);
            let found = sni_in_pieces(pieces.iter().map(Vec::as_slice));
            prop_assert!(!matches!(found, Ok(Some(Some(_)))));
        }

        #[test]
        fn a_mutated_hello_asks_for_what_a_server_would_see(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            record in 1_usize..600,
            lengths in prop::collection::vec(1_usize..300, 1..20),
        ) {
            let mut hello = client_hello("good.example");
            for (position, byte) in changes {
                let position = position.index(hello.len());
                hello[position] = byte;
            }
            let bytes = refragment(&hello, record);
            let pieces = pieces(&bytes, &lengths);
            let found = sni_in_pieces(pieces.iter().map(Vec::as_slice));
            // A real server rejects labels with hyphens at either end.
            if let Ok(Some(Some(name))) = found && DomainName::parse(&name).is_ok() {
                prop_assert_eq!(Some(name), seen_by_a_server(&bytes));
            }
        }
    }
}
