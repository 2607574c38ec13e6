//! Fatal TLS alerts (RFC 8446, 6) for clients whose connection is not allowed, so that their
//! program can tell a denial from an outage.

use std::net::Shutdown;

use policy_common::reason::Reason;
use socket2::SockRef;
use tokio::{net::TcpStream, time::timeout};

use super::{
    context::ProxyTimeouts,
    socket::{drain_to_eof, reset_connection, write_all},
};

/// TLS record types.
const CONTENT_TYPE_ALERT: u8 = 21;
const CONTENT_TYPE_HANDSHAKE: u8 = 22;
/// The level that ends a connection.
const LEVEL_FATAL: u8 = 2;
/// Alert descriptions.
const ACCESS_DENIED: u8 = 49;
const INTERNAL_ERROR: u8 = 80;

/// Versions in record headers. Every client accepts the first before it has negotiated a version.
/// No record header contains a version newer than the last.
const TLS_1_0: [u8; 2] = [3, 1];
const TLS_1_2: [u8; 2] = [3, 3];
/// Offset of the client version in a ClientHello at the start of a record.
const CLIENT_VERSION: std::ops::Range<usize> = 9..11;

/// An alert in an unencrypted record of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TlsAlert([u8; 7]);

impl TlsAlert {
    /// The alert for a client that has sent these bytes, or `None` if they are not TLS.
    pub(super) fn for_client(reason: Reason, sent: &[u8]) -> Option<Self> {
        let version = sent.get(CLIENT_VERSION).and_then(|bytes| bytes.try_into().ok());
        let version = version.map_or(TLS_1_0, |version: [u8; 2]| version.clamp(TLS_1_0, TLS_1_2));
        (sent.first() == Some(&CONTENT_TYPE_HANDSHAKE)).then(|| Self::with_version(version, reason))
    }

    /// The alert for a client that may not have sent anything yet.
    pub(super) const fn without_client_hello(reason: Reason) -> Self {
        Self::with_version(TLS_1_0, reason)
    }

    const fn with_version([major, minor]: [u8; 2], reason: Reason) -> Self {
        Self([CONTENT_TYPE_ALERT, major, minor, 0, 2, LEVEL_FATAL, description(reason)])
    }

    /// Sends the alert and closes the connection gracefully. For a while it keeps reading what the
    /// client still sends: closing a socket with unread bytes causes a reset, which may overtake
    /// the alert.
    pub(super) async fn send(self, client: &TcpStream, timeouts: ProxyTimeouts) {
        let sent = async {
            write_all(client, &self.0).await?;
            SockRef::from(client).shutdown(Shutdown::Write)?;
            drain_to_eof(client).await
        };
        if !matches!(timeout(timeouts.linger, sent).await, Ok(Ok(()))) {
            reset_connection(client);
        }
    }
}

/// `access_denied` for decisions of the policy. Other failures may be temporary.
const fn description(reason: Reason) -> u8 {
    match reason {
        Reason::NameNotAllowed
        | Reason::InvalidName
        | Reason::DenyOut
        | Reason::PlatformDeny
        | Reason::HostAddress => ACCESS_DENIED,
        _ => INTERNAL_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::tests::hello_builder::client_hello;

    #[test]
    fn records_are_fit_for_the_client() {
        let denied = Reason::NameNotAllowed;
        let hello = client_hello("good.example");
        assert_eq!(TlsAlert::for_client(denied, &hello), Some(TlsAlert([21, 3, 3, 0, 2, 2, 49])));
        assert_eq!(
            TlsAlert::for_client(denied, &hello[..5]),
            Some(TlsAlert([21, 3, 1, 0, 2, 2, 49]))
        );
        for (client_version, record_minor) in
            [([3, 0], 1), ([3, 1], 1), ([3, 2], 2), ([3, 4], 3), ([9, 9], 3)]
        {
            let mut hello = hello.clone();
            hello[CLIENT_VERSION].copy_from_slice(&client_version);
            let alert = TlsAlert([21, 3, record_minor, 0, 2, 2, 80]);
            assert_eq!(TlsAlert::for_client(Reason::Unreachable, &hello), Some(alert));
        }
        for other in [&b""[..], b"SSH-2.0-x\r\n", b"GET / HTTP/1.1\r\n"] {
            assert_eq!(TlsAlert::for_client(denied, other), None);
        }
    }
}
