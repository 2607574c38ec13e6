//! Reads PROXY protocol headers, versions 1 and 2, with which TCP load balancers pass on the
//! client's address. Only trusted proxies are expected to send one, and they must always do so.

use std::{io, net::IpAddr};

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The signature of version 2. A version 1 header is never shorter.
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Maximum length of a version 1 header in bytes.
const V1_MAX_LEN: usize = 107;
/// Maximum number of bytes after the first sixteen of a version 2 header: far more than addresses
/// and known fields take.
const V2_MAX_PAYLOAD: usize = 4096;

/// The client of a proxied connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProxiedClient {
    /// The client's address. `None` for the proxy's own connections, such as health checks.
    pub address: Option<IpAddr>,
    /// Whether the client used TLS, which the proxy has terminated.
    pub is_tls: bool,
}

/// Reads the header and nothing after it. Returns `None` if the connection closes before its first
/// byte.
///
/// # Errors
/// Reading fails, or the connection does not start with a header.
pub(super) async fn read_proxy_header<S: AsyncRead + Unpin>(
    stream: &mut S,
) -> io::Result<Option<ProxiedClient>> {
    let mut header = vec![0; V2_SIGNATURE.len()];
    let read = stream.read(&mut header).await?;
    if read == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut header[read..]).await?;
    if header == V2_SIGNATURE {
        read_v2_payload(stream, &mut header).await?;
    } else {
        read_v1_line(stream, &mut header).await?;
    }
    let parsed = ProxyHeader::parse(&header, ParseConfig::default());
    let (parsed, _) = parsed.map_err(|_| io::ErrorKind::InvalidData)?;
    let client = parsed.proxied_address().map(|address| address.source.ip().to_canonical());
    Ok(Some(ProxiedClient {
        address: client,
        is_tls: parsed.ssl().is_some_and(|ssl| ssl.client_ssl()),
    }))
}

async fn read_v2_payload<S: AsyncRead + Unpin>(
    stream: &mut S,
    header: &mut Vec<u8>,
) -> io::Result<()> {
    let mut fixed = [0; 4];
    stream.read_exact(&mut fixed).await?;
    let length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if length > V2_MAX_PAYLOAD {
        return Err(io::ErrorKind::InvalidData.into());
    }
    header.extend(fixed);
    let payload_start = header.len();
    header.resize(payload_start + length, 0);
    stream.read_exact(&mut header[payload_start..]).await.map(drop)
}

/// Reads byte by byte, because the bytes after the line belong to the next reader.
async fn read_v1_line<S: AsyncRead + Unpin>(stream: &mut S, line: &mut Vec<u8>) -> io::Result<()> {
    while !line.ends_with(b"\n") {
        if !line.starts_with(b"PROXY ") || line.len() >= V1_MAX_LEN {
            return Err(io::ErrorKind::InvalidData.into());
        }
        line.push(stream.read_u8().await?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header read from these bytes, and the bytes left over.
    fn read_of(bytes: &[u8]) -> (io::Result<Option<ProxiedClient>>, Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut stream = bytes;
        let read = runtime.block_on(read_proxy_header(&mut stream));
        (read, stream.to_vec())
    }

    fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("a short header").to_be_bytes();
        [&V2_SIGNATURE[..], &[0x20 | command, family], &length, rest, b"GET /"].concat()
    }

    #[test]
    fn both_versions_name_the_client() {
        let client = |address: &str| Some(address.parse().expect("an address"));
        let v4 = [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x34, 0, 80];
        let ssl = [0x20, 0, 5, 1, 0, 0, 0, 0];
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        for (bytes, expected, tls) in [
            (
                b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\nGET /".to_vec(),
                client("192.0.2.7"),
                false,
            ),
            (
                b"PROXY TCP6 2001:db8:: 2001:db8::1 4711 80\r\nGET /".to_vec(),
                client("2001:db8::"),
                false,
            ),
            (b"PROXY UNKNOWN\r\nGET /".to_vec(), None, false),
            (version_2(1, 0x11, &v4), client("192.0.2.7"), false),
            (version_2(1, 0x11, &[&v4[..], &ssl].concat()), client("192.0.2.7"), true),
            (version_2(1, 0x21, &v6), client("2001:db8::"), false),
            (version_2(0, 0, &[]), None, false),
        ] {
            let (read, rest) = read_of(&bytes);
            assert_eq!(
                read.expect("a header"),
                Some(ProxiedClient { address: expected, is_tls: tls })
            );
            assert_eq!(rest, b"GET /");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let long = [0; V2_MAX_PAYLOAD + 1];
        for bytes in [
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7\r\n".to_vec(),
            b"PROXY TCP4 a b c d\r\n".to_vec(),
            [&b"PROXY "[..], &[b'x'; 200]].concat(),
            b"PROXY TCP4 ".to_vec(),
            b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\0".to_vec(),
            version_2(1, 0x11, &[1, 2, 3]),
            version_2(1, 0x11, &long),
        ] {
            assert!(read_of(&bytes).0.is_err(), "{bytes:?}");
        }
        assert_eq!(read_of(b"").0.expect("nothing"), None);
    }
}
