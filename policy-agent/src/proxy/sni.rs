//! Parses the server name of a ClientHello that the TLS library read completely but whose name it
//! rejected: it allows no hyphens at either end of a label, and some names in use have them.

/// `host_name` (RFC 6066, 3).
const NAME_TYPE_HOST_NAME: usize = 0;
/// The extension `server_name`.
const EXTENSION_SERVER_NAME: usize = 0;
/// Length of version and random in a ClientHello (RFC 8446, 4.1.2).
const VERSION_AND_RANDOM_LEN: usize = 2 + 32;

/// The server name of a ClientHello, if it is exactly one `host_name`. `records` are the TLS
/// records of the ClientHello and any bytes after them.
pub(super) fn parse_server_name(records: &[u8]) -> Option<String> {
    let message = first_handshake_message(records)?;
    let mut hello = ByteReader(&message);
    hello.read_bytes(VERSION_AND_RANDOM_LEN)?;
    for width in [1, 2, 1] {
        hello.read_vector(width)?; // session ID, cipher suites, compression methods
    }
    let mut extensions = ByteReader(hello.read_vector(2)?);
    loop {
        let kind = extensions.read_uint(2)?;
        let content = extensions.read_vector(2)?;
        if kind == EXTENSION_SERVER_NAME {
            return single_host_name(content);
        }
    }
}

/// The first handshake message in the records, without its header.
fn first_handshake_message(records: &[u8]) -> Option<Vec<u8>> {
    let (mut records, mut bytes) = (ByteReader(records), Vec::new());
    loop {
        let mut message = ByteReader(&bytes);
        if let Some(body) = message.read_bytes(1).and_then(|_| message.read_vector(3)) {
            return Some(body.to_vec());
        }
        records.read_bytes(3)?; // type and version
        bytes.extend_from_slice(records.read_vector(2)?);
    }
}

fn single_host_name(extension: &[u8]) -> Option<String> {
    let mut list = ByteReader(ByteReader(extension).read_vector(2)?);
    let kind = list.read_uint(1)?;
    let name = list.read_vector(2)?;
    let is_only = kind == NAME_TYPE_HOST_NAME && list.0.is_empty();
    // RFC 6066: the name is in A-label form.
    let name = String::from_utf8(name.to_ascii_lowercase()).ok();
    name.filter(|name| is_only && name.is_ascii())
}

/// Reads fields from a byte slice.
struct ByteReader<'a>(&'a [u8]);

impl<'a> ByteReader<'a> {
    fn read_bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// Reads a big-endian integer of `width` bytes.
    fn read_uint(&mut self, width: usize) -> Option<usize> {
        Some(
            self.read_bytes(width)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)),
        )
    }

    /// Reads bytes that follow their length, which takes `width` bytes.
    fn read_vector(&mut self, width: usize) -> Option<&'a [u8]> {
        let length = self.read_uint(width)?;
        self.read_bytes(length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proxy::tests::hello_builder::{
        ClientHelloBuilder, TlsExtension, client_hello, refragment,
    };

    #[test]
    fn names_however_they_are_split() {
        for name in ["good.example", "-a.example", "a-.b-.example"] {
            let hello = ClientHelloBuilder::for_name(name).build();
            for length in [1, 2, 7, 100, 1000] {
                let records = refragment(&hello, length);
                assert_eq!(parse_server_name(&records).as_deref(), Some(name));
                for end in 0..records.len() {
                    assert_eq!(parse_server_name(&records[..end]), None, "{end} bytes of {name}");
                }
            }
        }
        assert_eq!(
            parse_server_name(&client_hello("Good.example")).as_deref(),
            Some("good.example")
        );
    }

    #[test]
    fn what_is_not_one_name() {
        let two = TlsExtension::sni(&[(0, b"-a.example"), (0, b"-b.example")]);
        for extensions in [
            vec![],
            vec![TlsExtension::sni(&[])],
            vec![TlsExtension::sni(&[(7, b"-a.example")])],
            vec![TlsExtension::sni(&[(0, b"\xff-")])],
            vec![two],
        ] {
            let hello =
                ClientHelloBuilder { extensions, ..ClientHelloBuilder::for_name("x.example") }
                    .build();
            assert_eq!(parse_server_name(&hello), None);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_server_name(&bytes);
        }
    }
}
