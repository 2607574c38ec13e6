//! The server name of a ClientHello that the TLS library has found whole, but with a name that it does
//! not take for one: its labels may neither begin nor end with hyphens, and some names in use do.

/// `host_name` of RFC 6066, 3.
const HOST_NAME: usize = 0;
/// The extension `server_name`.
const SERVER_NAME: usize = 0;
/// Version and random of a ClientHello (RFC 8446, 4.1.2).
const VERSION_AND_RANDOM: usize = 2 + 32;

/// The name that a ClientHello asks for, if it is one name of the only kind that there is.
/// `records`: the TLS records that the ClientHello is in, and whatever follows.
pub fn server_name(records: &[u8]) -> Option<String> {
    let message = first_message(records)?;
    let mut hello = Fields(&message);
    hello.take(VERSION_AND_RANDOM)?;
    for width in [1, 2, 1] {
        hello.vector(width)?; // session, cipher suites, compression methods
    }
    let mut extensions = Fields(hello.vector(2)?);
    loop {
        let kind = extensions.number(2)?;
        let content = extensions.vector(2)?;
        if kind == SERVER_NAME {
            return only_name(content);
        }
    }
}

/// The handshake message that the records begin with, without its header.
fn first_message(records: &[u8]) -> Option<Vec<u8>> {
    let (mut records, mut bytes) = (Fields(records), Vec::new());
    loop {
        let mut message = Fields(&bytes);
        if let Some(body) = message.take(1).and_then(|_| message.vector(3)) {
            return Some(body.to_vec());
        }
        records.take(3)?; // kind and version
        bytes.extend_from_slice(records.vector(2)?);
    }
}

fn only_name(extension: &[u8]) -> Option<String> {
    let mut list = Fields(Fields(extension).vector(2)?);
    let kind = list.number(1)?;
    let name = list.vector(2)?;
    let is_only = kind == HOST_NAME && list.0.is_empty();
    // RFC 6066: in A-label form.
    let name = String::from_utf8(name.to_ascii_lowercase()).ok();
    name.filter(|name| is_only && name.is_ascii())
}

/// Bytes that are read field by field.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of this many bytes.
    fn number(&mut self, width: usize) -> Option<usize> {
        Some(self.take(width)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// Bytes behind their length, which has this many bytes.
    fn vector(&mut self, width: usize) -> Option<&'a [u8]> {
        let length = self.number(width)?;
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proxy::tests::hello::{Extension, Hello, client_hello, refragment};

    #[test]
    fn names_however_they_are_split() {
        for name in ["good.example", "-a.example", "a-.b-.example"] {
            let hello = Hello::of(name).bytes();
            for length in [1, 2, 7, 100, 1000] {
                let records = refragment(&hello, length);
                assert_eq!(server_name(&records).as_deref(), Some(name));
                for end in 0..records.len() {
                    assert_eq!(server_name(&records[..end]), None, "{end} bytes of {name}");
                }
            }
        }
        assert_eq!(server_name(&client_hello("Good.example")).as_deref(), Some("good.example"));
    }

    #[test]
    fn what_is_not_one_name() {
        let two = Extension::sni(&[(0, b"-a.example"), (0, b"-b.example")]);
        for extensions in [
            vec![],
            vec![Extension::sni(&[])],
            vec![Extension::sni(&[(7, b"-a.example")])],
            vec![Extension::sni(&[(0, b"\xff-")])],
            vec![two],
        ] {
            let hello = Hello { extensions, ..Hello::of("x.example") }.bytes();
            assert_eq!(server_name(&hello), None);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = server_name(&bytes);
        }
    }
}
