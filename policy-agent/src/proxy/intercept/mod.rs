//! Connections to names with `network.rules`: the proxy ends their TLS, sets the headers of the rule in
//! each request, and forwards it over TLS of its own.
//!
//! ```text
//! ClientHello ─► decide ─► connect_origin (dial, TLS, verify) ─► client_tls (certificate of the CA)
//!   ─► session: check Host ─► render rule ─► send ─► response
//! ```
//!
//! The server is connected first, because the sandbox gets the protocol that the server chose.
//! Connections to other names never come here.

mod alpn;
mod client_tls;
mod origin;
mod origin_failure;
mod origin_tls;
mod origin_verifier;
mod request_body;
mod request_check;
mod response_body;
mod rule_headers;
mod sending;
mod serve;
mod session;
mod settings;
mod upgrade;

use std::{sync::Arc, time::Duration};

use policy_common::reason::Reason;
use tokio::{sync::Mutex, time::timeout};
use tokio_rustls::{LazyConfigAcceptor, StartHandshake, client::TlsStream};

pub use self::origin_tls::OriginRoots;
use self::{
    alpn::{AlpnChoice, AlpnOffer},
    client_tls::{ReplayedStream, replayed_stream},
    origin::{NewOrigin, OriginDrivers, start_http},
    origin_failure::OriginFailure,
    origin_tls::connect_tls,
    session::{InterceptedSession, RequestFailure},
};
pub(super) use self::{
    client_tls::ClientTls,
    settings::{Interception, SandboxInterception},
};
use super::{
    admitted::{AdmittedConnection, AllowDecision},
    decision::{ConnectionEnd, MatchKey},
    dial::{DialTarget, dial},
    proxy_metrics::ConnectionProtocol,
    serve_connection::refuse_connection,
    socket::{SharedTcpStream, reset_connection},
    upstream::UpstreamIo,
};
use crate::{
    agent::ActivePolicy,
    policy::{DomainName, RequestedName},
};

/// Bytes that TLS may hold unsent, in addition to those of the socket.
const TLS_UNSENT_LIMIT: usize = 16 * 1024;
/// Maximum idle time of an HTTP/2 connection between two pings.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(60);

/// Whether a policy has headers for a connection that is decided by this.
pub(super) fn has_rule(active_policy: &ActivePolicy, match_key: &MatchKey) -> bool {
    let domain = match_key.name().and_then(RequestedName::domain);
    domain.is_some_and(|domain| active_policy.header_rule_for(domain).is_some())
}

/// Serves an allowed connection to a name with a rule. `client_hello` has the bytes read so far.
pub(super) async fn serve_intercepted(
    admitted: AdmittedConnection,
    allowed: AllowDecision,
    name: Arc<RequestedName>,
    client_hello: Vec<u8>,
) {
    let mut connection = InterceptedConnection { admitted, allowed, name };
    let refused = match connection.open(&client_hello).await {
        Ok(opened) => return connection.serve(opened).await,
        Err(end) => end,
    };
    let InterceptedConnection { admitted, name, .. } = connection;
    refuse_connection(admitted, ConnectionProtocol::Tls, Some(&name), refused, &client_hello);
}

/// A connection that is being opened.
struct InterceptedConnection {
    admitted: AdmittedConnection,
    allowed: AllowDecision,
    name: Arc<RequestedName>,
}

/// A connection whose server is known, and whose client waits for the handshake.
struct OpenedConnection {
    handshake: StartHandshake<ReplayedStream>,
    tls: Arc<ClientTls>,
    choice: AlpnChoice,
    origin: Result<NewOrigin, OriginFailure>,
    drivers: Arc<OriginDrivers>,
    permits: settings::InterceptionPermits,
    domain: DomainName,
}

impl InterceptedConnection {
    async fn open(&mut self, client_hello: &[u8]) -> Result<OpenedConnection, ConnectionEnd> {
        let domain = self.name.domain().ok_or(Reason::InvalidName)?.clone();
        let interception = &self.admitted.sandbox_proxy.interception;
        let permits = interception.acquire(&self.admitted.context().interception);
        let permits = permits.ok_or(Reason::TooManyConnections)?;
        let tls = self.admitted.sandbox_proxy.client_tls().map_err(|error| {
            tracing::error!(sandbox = %self.admitted.sandbox_proxy.sandbox, "no CA: {error:#}");
            ConnectionEnd::from(Reason::ProxyUnavailable)
        })?;
        let handshake = self.read_hello(client_hello).await?;
        let offer = AlpnOffer::of_client(&handshake.client_hello()).ok_or(Reason::NotJudgeable)?;
        let (admitted, drivers) = (&self.admitted, Arc::<OriginDrivers>::default());
        let connecting =
            connect_origin(admitted, &self.allowed.active_policy, &self.name, &domain, offer);
        let connected = admitted.while_client_connected(async { Ok(connecting.await) }).await?;
        let (choice, origin) = match connected {
            Ok((stream, choice)) => (choice, start_http(stream, choice, &drivers).await),
            Err(ConnectFailure::Origin(failure)) => (offer.fallback(), Err(failure)),
            Err(ConnectFailure::Connection(end)) => return Err(end),
        };
        Ok(OpenedConnection { handshake, tls, choice, origin, drivers, permits, domain })
    }

    /// Parses the ClientHello again, now to answer it.
    async fn read_hello(
        &self,
        client_hello: &[u8],
    ) -> Result<StartHandshake<ReplayedStream>, ConnectionEnd> {
        let client = SharedTcpStream(Arc::clone(&self.admitted.client));
        let stream = replayed_stream(client_hello.to_vec(), client);
        let acceptor = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
        // The library accepts fewer names than the proxy.
        acceptor.await.map_err(|_| Reason::InvalidName.into())
    }

    async fn serve(self, opened: OpenedConnection) {
        let Self { admitted, allowed, name } = self;
        admitted.record_allowed(ConnectionProtocol::Tls, Some(&name), allowed.decision);
        let OpenedConnection { handshake, tls, choice, origin, drivers, permits, domain } = opened;
        let limit = admitted.context().timeouts.name_detection;
        let accepted = timeout(limit, tls.accept(handshake, choice)).await;
        let Ok(Ok(stream)) = accepted else { return reset_connection(&admitted.client) };
        let (origin, failure) = match origin {
            Ok(origin) => (Some(origin), None),
            Err(failure) => (None, Some(failure)),
        };
        let (sender, extended_connect) = match origin {
            Some(mut origin) => {
                let extended_connect = origin.accepts_extended_connect().await;
                (Some(origin.sender), extended_connect)
            }
            None => (None, false),
        };
        let session = InterceptedSession {
            admitted,
            name,
            domain,
            choice,
            origin: Mutex::new(sender),
            drivers,
            failure,
            has_response: false.into(),
            is_last_refused: false.into(),
        };
        // A separate, smaller task: the memory needed to open the connection is freed.
        let serving = serve::serve_requests(Arc::new(session), stream, extended_connect, permits);
        tokio::spawn(serving);
    }
}

/// Why a server is not connected.
enum ConnectFailure {
    /// The policy, or the network, as for any other name.
    Connection(ConnectionEnd),
    /// The server itself.
    Origin(OriginFailure),
}

impl From<ConnectFailure> for RequestFailure {
    fn from(failure: ConnectFailure) -> Self {
        match failure {
            ConnectFailure::Connection(end) => end.into(),
            ConnectFailure::Origin(failure) => failure.into(),
        }
    }
}

/// Dials the server of a name, as for any other name, and completes TLS with it.
async fn connect_origin(
    admitted: &AdmittedConnection,
    active_policy: &ActivePolicy,
    name: &RequestedName,
    domain: &DomainName,
    offer: AlpnOffer,
) -> Result<(TlsStream<UpstreamIo>, AlpnChoice), ConnectFailure> {
    let target = DialTarget::new(admitted.original_destination(), Some(name));
    let dialed = dial(&admitted.sandbox_proxy, active_policy, &target).await;
    let upstream = dialed.map_err(ConnectFailure::Connection)?;
    admitted.attach_upstream(&upstream.socket).map_err(ConnectFailure::Connection)?;
    let connecting = connect_tls(admitted.context(), domain, offer, upstream.io);
    let stream = connecting.await.map_err(ConnectFailure::Origin)?;
    let choice = AlpnChoice::from_protocol(stream.get_ref().1.alpn_protocol());
    Ok((stream, choice))
}
