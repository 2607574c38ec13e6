//! Serves one connection of a sandbox.

use std::{io, sync::Arc};

use policy_common::reason::Reason;
use tokio::{
    io::{AsyncWriteExt as _, copy_bidirectional},
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use super::{
    admitted::{AdmittedConnection, AllowDecision},
    client_hello::{self, ClientHelloError},
    context::ProxyContext,
    decision::{ConnectionEnd, ConnectionHandling, MatchKey, classify_connection},
    dial::{DialTarget, dial},
    http,
    intercept::{has_rule, serve_intercepted},
    proxy_metrics::ConnectionProtocol,
    socket::{SharedSocket, SharedTcpStream, reset_connection, wait_for_reset, write_all},
    splice,
    tls_alert::TlsAlert,
    upstream::{UpstreamConnection, UpstreamIo},
};
use crate::policy::{RequestedName, evaluate::HTTP_PORT};

/// Serves a connection from its admission to its end. Each kind of connection gets its own task
/// type, so that it only takes the memory it needs.
pub(super) fn spawn_serve(admitted: AdmittedConnection) {
    let handling = classify_connection(&admitted.active_policy(), admitted.original_destination());
    match handling {
        ConnectionHandling::ByName if admitted.original_destination().port() == HTTP_PORT => {
            drop(tokio::spawn(http::serve_http(admitted)))
        }
        ConnectionHandling::ByName => drop(tokio::spawn(serve_by_sni(admitted))),
        ConnectionHandling::ViaEgressProxy(_) => drop(tokio::spawn(serve_by_address(admitted))),
        ConnectionHandling::Unexpected(explanation) => {
            refuse_connection(admitted, ConnectionProtocol::Tcp, None, explanation.into(), &[])
        }
    }
}

async fn serve_by_sni(admitted: AdmittedConnection) {
    let mut reader = client_hello::ClientHelloReader::default();
    let client_hello = timeout(
        admitted.context().timeouts.name_detection,
        client_hello::read_client_hello(&admitted.client, &mut reader),
    )
    .await;
    let bytes = reader.into_bytes();
    let reason = match client_hello {
        Ok(Ok(name)) => return serve_decided_by_sni(admitted, name.map(Arc::new), bytes).await,
        Ok(Err(ClientHelloError::Closed)) => return,
        Ok(Err(ClientHelloError::Invalid(reason))) => reason,
        Err(_) => Reason::ProxyTimeout,
    };
    refuse_connection(admitted, ConnectionProtocol::Tls, None, reason.into(), &bytes);
}

/// Decides on the connection, and relays it. If the name has a rule, opens it instead.
async fn serve_decided_by_sni(
    admitted: AdmittedConnection,
    name: Option<Arc<RequestedName>>,
    bytes: Vec<u8>,
) {
    let (match_key, protocol) = (MatchKey::Name(name), ConnectionProtocol::Tls);
    let allowed = match admitted.decide(&match_key) {
        Ok(allowed) => allowed,
        Err(end) => return refuse_connection(admitted, protocol, match_key.name(), end, &bytes),
    };
    match match_key {
        MatchKey::Name(Some(name))
            if has_rule(&allowed.active_policy, &MatchKey::Name(Some(Arc::clone(&name)))) =>
        {
            // A separate task: other connections need not have room for it.
            drop(tokio::spawn(serve_intercepted(admitted, allowed, name, bytes)));
        }
        match_key => relay_decided(admitted, allowed, protocol, &match_key, &bytes).await,
    }
}

async fn serve_by_address(admitted: AdmittedConnection) {
    let (match_key, protocol) = (MatchKey::Address, ConnectionProtocol::Tcp);
    match admitted.decide(&match_key) {
        Ok(allowed) => relay_decided(admitted, allowed, protocol, &match_key, &[]).await,
        Err(end) => refuse_connection(admitted, protocol, None, end, &[]),
    }
}

/// Connects to the upstream of an allowed connection, and forwards the bytes read so far.
async fn relay_decided(
    admitted: AdmittedConnection,
    allowed: AllowDecision,
    protocol: ConnectionProtocol,
    match_key: &MatchKey,
    bytes: &[u8],
) {
    match connect_upstream(&admitted, allowed, protocol, match_key, bytes).await {
        // A separate, small task: the memory needed for the decision is freed.
        Ok(upstream) => drop(tokio::spawn(relay_admitted(admitted, upstream))),
        Err(end) => refuse_connection(admitted, protocol, match_key.name(), end, bytes),
    }
}

async fn connect_upstream(
    admitted: &AdmittedConnection,
    allowed: AllowDecision,
    protocol: ConnectionProtocol,
    match_key: &MatchKey,
    bytes: &[u8],
) -> Result<UpstreamConnection, ConnectionEnd> {
    let target = DialTarget::new(admitted.original_destination(), match_key.name());
    let dial = dial(&admitted.sandbox_proxy, &allowed.active_policy, &target);
    let mut upstream = admitted.while_client_connected(dial).await?;
    admitted.attach_upstream(&upstream.socket)?;
    admitted.record_allowed(protocol, match_key.name(), allowed.decision);
    let sent =
        async { send_buffered(&mut upstream, bytes).await.map_err(|_| ConnectionEnd::Closed) };
    admitted.while_client_connected(sent).await?;
    Ok(upstream)
}

async fn send_buffered(upstream: &mut UpstreamConnection, bytes: &[u8]) -> io::Result<()> {
    match &mut upstream.io {
        UpstreamIo::Plain(SharedTcpStream(socket)) => write_all(socket, bytes).await,
        UpstreamIo::Tls(stream) => {
            stream.write_all(bytes).await?;
            stream.flush().await
        }
    }
}

/// Relays an admitted connection until it ends.
async fn relay_admitted(admitted: AdmittedConnection, upstream: UpstreamConnection) {
    relay(admitted.context(), &admitted.client, upstream).await;
}

/// Relays bytes in both directions until the connection ends.
pub(super) async fn relay(
    context: &ProxyContext,
    client: &SharedSocket,
    upstream: UpstreamConnection,
) {
    let UpstreamConnection { socket, io } = upstream;
    match io {
        // On an error both sides are already reset, and there is nothing to report.
        UpstreamIo::Plain(_) => {
            drop(splice::splice_bidirectional(&context.pipe_pool, client, &socket).await)
        }
        // Boxed because it is by far the larger future, and rare.
        UpstreamIo::Tls(stream) => Box::pin(relay_tls(client, &socket, stream)).await,
    }
}

/// Relays through this process, which encrypts and decrypts.
async fn relay_tls(
    client: &SharedSocket,
    upstream: &SharedSocket,
    mut stream: Box<TlsStream<SharedTcpStream>>,
) {
    let mut client_stream = SharedTcpStream(Arc::clone(client));
    let completed = tokio::select! {
        copied = copy_bidirectional(&mut client_stream, &mut stream) => copied.is_ok(),
        // A reset of a half-closed side would go unnoticed otherwise.
        () = wait_for_reset(client) => false,
        () = wait_for_reset(upstream) => false,
    };
    if !completed {
        reset_connection(client);
        reset_connection(upstream);
    }
}

/// Ends a connection that is not allowed. A client that has sent TLS, as seen in `sent`, receives
/// an alert.
pub(super) fn refuse_connection(
    admitted: AdmittedConnection,
    protocol: ConnectionProtocol,
    name: Option<&RequestedName>,
    end: ConnectionEnd,
    sent: &[u8],
) {
    let ConnectionEnd::Refused(decision) = end else { return reset_connection(&admitted.client) };
    let alert =
        TlsAlert::for_client(decision.reason, sent).filter(|_| protocol == ConnectionProtocol::Tls);
    admitted.record_refused(protocol, name, decision);
    match alert {
        // A separate, small task: the memory needed for the decision is freed.
        Some(alert) => drop(tokio::spawn(send_alert(admitted, alert))),
        None => reset_connection(&admitted.client),
    }
}

async fn send_alert(admitted: AdmittedConnection, alert: TlsAlert) {
    alert.send(&admitted.client, admitted.context().timeouts).await;
}

/// Size in bytes of the task of an established connection.
#[cfg(test)]
pub(super) fn relay_task_size() -> usize {
    fn size<F: Future>(_: impl FnOnce(AdmittedConnection, UpstreamConnection) -> F) -> usize {
        size_of::<F>()
    }
    size(relay_admitted)
}
