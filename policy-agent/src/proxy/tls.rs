//! Reads a ClientHello, however it is split over segments and records, and keeps its bytes for the
//! server that it is meant for.

use std::io;

use policy_common::reason::Reason;
use rustls::{Error, InvalidMessage, PeerMisbehaved, server::Acceptor};
use tokio::net::TcpStream;

use super::sni;
use crate::policy::Name;

/// Bytes that are read at a time.
const CHUNK: usize = 4096;
/// Bytes that a ClientHello may take, records included. Real ones stay below 16 KiB.
const LONGEST: usize = 64 * 1024;

/// What a ClientHello asks for: its SNI in lower case; `None` without one, and with an IP address in
/// its place.
pub type Asked = Option<String>;

/// Why there is no ClientHello.
#[derive(Debug, PartialEq, Eq)]
pub enum NoHello {
    /// The client has closed the connection.
    Closed,
    /// What it sent cannot be judged.
    Bad(Reason),
}

/// Reads a ClientHello from a client.
pub async fn read(client: &TcpStream, reader: &mut Reader) -> Result<Asked, NoHello> {
    loop {
        client.readable().await.map_err(|_| NoHello::Closed)?;
        let read = client.try_read_buf(reader.room());
        match read {
            Ok(0) => return Err(NoHello::Closed),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return Err(NoHello::Closed),
        }
        if let Some(asked) = reader.advance().map_err(NoHello::Bad)? {
            return Ok(asked);
        }
    }
}

/// Finds the ClientHello in bytes that come bit by bit.
#[derive(Default)]
pub struct Reader {
    acceptor: Acceptor,
    bytes: Vec<u8>,
    /// Of them, these have been looked at.
    seen: usize,
}

impl Reader {
    /// The bytes that were read: all of the ClientHello, and whatever came with it.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Where to put what is read next.
    fn room(&mut self) -> &mut Vec<u8> {
        self.bytes.reserve(CHUNK);
        &mut self.bytes
    }

    /// Looks at what has come: the name that the ClientHello asks for, once that is complete.
    fn advance(&mut self) -> Result<Option<Asked>, Reason> {
        if self.bytes.len() > LONGEST {
            return Err(Reason::NotJudgeable);
        }
        while self.seen < self.bytes.len() {
            let mut rest = &self.bytes[self.seen..];
            let count = self.acceptor.read_tls(&mut rest).map_err(|_| Reason::NotJudgeable)?;
            self.seen += count;
            match self.acceptor.accept() {
                Ok(Some(accepted)) => {
                    return Ok(Some(accepted.client_hello().server_name().map(str::to_owned)));
                }
                Ok(None) if count == 0 => return Err(Reason::NotJudgeable),
                Ok(None) => {}
                Err((error, _)) => return self.odd_name(reason(&error)).map(Some),
            }
        }
        Ok(None)
    }

    /// A name that the library does not take for one, and that the proxy does.
    fn odd_name(&self, problem: Reason) -> Result<Asked, Reason> {
        let name = match problem {
            Reason::InvalidName => sni::server_name(&self.bytes),
            _ => None,
        };
        name.filter(|name| Name::asked(name).is_ok()).map(Some).ok_or(problem)
    }
}

fn reason(error: &Error) -> Reason {
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
    use crate::proxy::tests::hello::{Extension, Hello as Built, client_hello, refragment};

    /// What the reader says about bytes that come in these pieces.
    fn ask<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Option<Option<String>>, Reason> {
        let mut reader = Reader::default();
        for piece in pieces {
            reader.room().extend_from_slice(piece);
            if let Some(name) = reader.advance()? {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    fn asked(bytes: &[u8]) -> Result<Option<Option<String>>, Reason> {
        ask([bytes])
    }

    fn name(name: &str) -> Result<Option<Option<String>>, Reason> {
        Ok(Some(Some(name.to_owned())))
    }

    #[test]
    fn however_it_is_split() {
        let hello = client_hello("www.good.example");
        assert_eq!(asked(&hello), name("www.good.example"));
        assert_eq!(ask(hello.chunks(1)), name("www.good.example"), "byte by byte");
        for length in [1, 2, 3, 7, 100, 1000] {
            let records = refragment(&hello, length);
            assert_eq!(asked(&records), name("www.good.example"), "records of {length}");
            assert_eq!(ask(records.chunks(1)), name("www.good.example"), "and byte by byte");
        }
        for place in 1..hello.len() {
            let (start, end) = hello.split_at(place);
            assert_eq!(asked(start), Ok(None), "{place}");
            assert_eq!(ask([start, end]), name("www.good.example"), "{place}");
        }
    }

    #[test]
    fn long_ones() {
        let long = Built { padding: 40_000, ..Built::of("good.example") }.bytes();
        assert!(long.len() > 40_000);
        assert_eq!(asked(&long), name("good.example"));
        assert_eq!(ask(long.chunks(1400)), name("good.example"));
        // As many records as there is room for, byte by byte: no work without bound.
        let start = std::time::Instant::now();
        let records = refragment(&Built { padding: 9_000, ..Built::of("good.example") }.bytes(), 1);
        assert!(records.len() < LONGEST);
        assert_eq!(ask(records.chunks(1)), name("good.example"));
        println!("{:?} for {} bytes", start.elapsed(), records.len());
        let longer = Built { padding: 70_000, ..Built::of("good.example") };
        assert_eq!(asked(&longer.bytes()), Err(Reason::NotJudgeable));
    }

    #[test]
    fn names_that_are_none_and_names_that_are_several() {
        let with = |extensions| Built { extensions, ..Built::of("x.example") }.bytes();
        let sni = |name: &[u8]| Extension::sni(&[(0, name)]);
        for (extensions, expected) in [
            (vec![], Ok(Some(None))),
            (vec![sni(b"GOOD.example")], name("good.example")),
            (vec![sni(b"good.example.")], name("good.example.")),
            (vec![sni(b"192.0.2.1")], Ok(Some(None))),
            (vec![sni(b"2001:db8::1")], Ok(Some(None))),
            (vec![sni(b"good.example\0")], Err(Reason::InvalidName)),
            (vec![sni(b"good.example\0.evil.example")], Err(Reason::InvalidName)),
            (vec![sni("bücher.example".as_bytes())], Err(Reason::InvalidName)),
            (vec![sni(b"a b")], Err(Reason::InvalidName)),
            (vec![sni(b"my_bucket.example")], name("my_bucket.example")),
            (vec![sni(b"-A.b-.example")], name("-a.b-.example")),
            (vec![sni(b"-a.192.0.2.1")], Err(Reason::InvalidName)),
            (vec![sni(&[b'a'; 64])], Err(Reason::InvalidName)),
            (vec![sni(b"a..b")], Err(Reason::InvalidName)),
            (vec![Extension::sni(&[])], Err(Reason::NotJudgeable)),
            (vec![sni(b"")], Err(Reason::NotJudgeable)),
            (vec![Extension::sni(&[(7, b"good.example")])], Err(Reason::InvalidName)),
            (
                vec![Extension::sni(&[(0, b"good.example"), (0, b"evil.example")])],
                Err(Reason::NameConflict),
            ),
            (vec![sni(b"good.example"), sni(b"evil.example")], Err(Reason::NameConflict)),
        ] {
            assert_eq!(asked(&with(extensions.clone())), expected, "{extensions:?}");
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
            assert_ne!(asked(bytes), name("good.example"));
        }
        assert_eq!(asked(&two), name("good.example"), "what follows is the server's business");
    }

    /// The name that a real server sees in these bytes.
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
            let found = ask(pieces.iter().map(Vec::as_slice));
            prop_assert!(!matches!(found, Ok(Some(Some(_)))));
        }

        #[test]
        fn a_mutated_hello_asks_for_what_a_server_would_see(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            record in 1_usize..600,
            lengths in prop::collection::vec(1_usize..300, 1..20),
        ) {
            let mut hello = client_hello("good.example");
            for (place, byte) in changes {
                let place = place.index(hello.len());
                hello[place] = byte;
            }
            let bytes = refragment(&hello, record);
            let pieces = pieces(&bytes, &lengths);
            let found = ask(pieces.iter().map(Vec::as_slice));
            // A real server takes no labels with hyphens at their ends.
            if let Ok(Some(Some(name))) = found && Name::parse(&name).is_ok() {
                prop_assert_eq!(Some(name), seen_by_a_server(&bytes));
            }
        }
    }
}
