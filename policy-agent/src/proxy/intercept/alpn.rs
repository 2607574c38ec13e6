//! The protocol inside TLS (ALPN, RFC 7301). The server chooses from what the sandbox offers, and the
//! sandbox gets what the server chose.

use rustls::server::ClientHello;

const HTTP_1_1: &[u8] = b"http/1.1";
const HTTP_2: &[u8] = b"h2";

/// What a client offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AlpnOffer {
    /// Nothing, so it expects HTTP/1.
    Nothing,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Both.
    Both,
}

/// What a server chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AlpnChoice {
    /// Nothing, so it speaks HTTP/1.
    Nothing,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl AlpnOffer {
    /// All offers, by their index.
    pub(super) const ALL: [Self; 4] = [Self::Nothing, Self::Http1, Self::Http2, Self::Both];

    /// The offer of a ClientHello. `None` if it offers only other protocols.
    pub(super) fn of_client(client_hello: &ClientHello<'_>) -> Option<Self> {
        let Some(mut offered) = client_hello.alpn() else { return Some(Self::Nothing) };
        let (mut http1, mut http2) = (false, false);
        offered.by_ref().for_each(|protocol| {
            http1 |= protocol == HTTP_1_1;
            http2 |= protocol == HTTP_2;
        });
        match (http1, http2) {
            (true, true) => Some(Self::Both),
            (true, false) => Some(Self::Http1),
            (false, true) => Some(Self::Http2),
            (false, false) => None,
        }
    }

    /// The protocols, the preferred one first.
    pub(super) fn protocols(self) -> Vec<Vec<u8>> {
        let protocols: &[&[u8]] = match self {
            Self::Nothing => &[],
            Self::Http1 => &[HTTP_1_1],
            Self::Http2 => &[HTTP_2],
            Self::Both => &[HTTP_2, HTTP_1_1],
        };
        protocols.iter().map(|protocol| protocol.to_vec()).collect()
    }

    /// The choice for a client whose server chose nothing yet.
    pub(super) const fn fallback(self) -> AlpnChoice {
        match self {
            Self::Nothing => AlpnChoice::Nothing,
            Self::Http1 | Self::Both => AlpnChoice::Http1,
            Self::Http2 => AlpnChoice::Http2,
        }
    }
}

impl AlpnChoice {
    /// What a TLS connection has agreed on.
    pub(super) fn from_protocol(protocol: Option<&[u8]>) -> Self {
        match protocol {
            Some(HTTP_2) => Self::Http2,
            Some(_) => Self::Http1,
            None => Self::Nothing,
        }
    }

    /// The offer that leaves no other choice.
    pub(super) const fn only_offer(self) -> AlpnOffer {
        match self {
            Self::Nothing => AlpnOffer::Nothing,
            Self::Http1 => AlpnOffer::Http1,
            Self::Http2 => AlpnOffer::Http2,
        }
    }
}
