//! ClientHellos of a real client, and ones that no real client sends.

use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::ring, pki_types::ServerName};

/// The ClientHello of a real client for this name, in one record.
pub(crate) fn client_hello(name: &str) -> Vec<u8> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    let config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("a hello");
    bytes
}

/// The same handshake message in records of this length.
pub(crate) fn refragment(record: &[u8], length: usize) -> Vec<u8> {
    record.get(5..).unwrap_or_default().chunks(length).flat_map(tls_record).collect()
}

fn tls_record(payload: &[u8]) -> Vec<u8> {
    let mut record = vec![22, 3, 1];
    record.extend(u16::try_from(payload.len()).expect("short").to_be_bytes());
    record.extend(payload);
    record
}

/// A TLS extension: its number and content.
#[derive(Clone, Debug)]
pub(crate) struct TlsExtension(u16, Vec<u8>);

impl TlsExtension {
    /// server_name (RFC 6066, 3) with these name types and names.
    pub(crate) fn sni(names: &[(u8, &[u8])]) -> Self {
        let names =
            names.iter().flat_map(|(kind, name)| [vec![*kind], length_prefixed(name)].concat());
        Self(0, length_prefixed(&names.collect::<Vec<_>>()))
    }
}

fn length_prefixed(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("short");
    [&length.to_be_bytes()[..], bytes].concat()
}

/// Builds a ClientHello (RFC 8446, 4.1.2).
pub(crate) struct ClientHelloBuilder {
    /// In addition to those that every ClientHello needs.
    pub extensions: Vec<TlsExtension>,
    /// Number of padding bytes.
    pub padding: usize,
}

impl ClientHelloBuilder {
    /// A ClientHello with this server name.
    pub(crate) fn for_name(name: &str) -> Self {
        Self { extensions: vec![TlsExtension::sni(&[(0, name.as_bytes())])], padding: 0 }
    }

    /// Encodes it in as many records as necessary.
    pub(crate) fn build(&self) -> Vec<u8> {
        let mut extensions = vec![
            TlsExtension(13, length_prefixed(&[4, 3])), // signature_algorithms
            TlsExtension(10, length_prefixed(&[0, 29])), // supported_groups
            TlsExtension(43, vec![2, 3, 4]),            // supported_versions
        ];
        extensions.extend(self.extensions.clone());
        let mut left = self.padding;
        for number in 0xff10.. {
            let length = left.min(16_000);
            extensions.push(TlsExtension(number, vec![0; length]));
            left -= length;
            if left == 0 {
                break;
            }
        }
        let listed = extensions.iter().flat_map(|TlsExtension(number, content)| {
            [number.to_be_bytes().to_vec(), length_prefixed(content)].concat()
        });
        let listed: Vec<u8> = listed.collect();
        let mut body = vec![3, 3];
        body.extend([7; 32]); // random
        body.extend([0, 0, 2, 0x13, 1, 1, 0]); // session ID, cipher suites, compression methods
        let short = u16::try_from(listed.len()).unwrap_or(u16::MAX);
        body.extend(short.to_be_bytes());
        body.extend(listed);
        let length = u32::try_from(body.len()).expect("short").to_be_bytes();
        let message = [&[1], &length[1..], &body].concat();
        message.chunks(16_000).flat_map(tls_record).collect()
    }
}
