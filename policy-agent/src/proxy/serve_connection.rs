//! Serves one connection of a sandbox.

use std::{io, sync::Arc};

use policy_common::reason::Reason;
use tokio::{
    io::{AsyncWriteExt as _, copy_bidirectional},
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use super::{
    admitted::AdmittedConnection,
    client_hello::{self, ClientHelloError},
    context::ProxyContext,
    decision::{ConnectionEnd, ConnectionHandling, HTTP_PORT, MatchKey, classify_connection},
    dial::{DialTarget, dial},
    http,
    proxy_metrics::ConnectionProtocol,
    socket::{SharedSocket, SharedTcpStream, reset_connection, wait_for_reset, write_all},
    splice,
    tls_alert::TlsAlert,
    upstream::{UpstreamConnection, UpstreamIo},
};

/// Serves a connection from when it is accepted until it goes out or ends. Each kind has a task of
/// its own size.
pub fn spawn_serve(admitted: AdmittedConnection) {
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
        Ok(Ok(name)) => {
            let match_key = MatchKey::Name(name.map(Arc::from));
            return decide_and_relay(admitted, ConnectionProtocol::Tls, &match_key, &bytes).await;
        }
        Ok(Err(ClientHelloError::Closed)) => return,
        Ok(Err(ClientHelloError::Invalid(reason))) => reason,
        Err(_) => Reason::ProxyTimeout,
    };
    refuse_connection(admitted, ConnectionProtocol::Tls, None, reason.into(), &bytes);
}

async fn serve_by_address(admitted: AdmittedConnection) {
    decide_and_relay(admitted, ConnectionProtocol::Tcp, &MatchKey::Address, &[]).await;
}

/// Judges, connects, and sends on what was read.
async fn decide_and_relay(
    admitted: AdmittedConnection,
    protocol: ConnectionProtocol,
    match_key: &MatchKey,
    bytes: &[u8],
) {
    match connect_upstream(&admitted, protocol, match_key, bytes).await {
        // A small task of its own: what judging needed is given back.
        Ok(upstream) => drop(tokio::spawn(relay_admitted(admitted, upstream))),
        Err(end) => refuse_connection(admitted, protocol, match_key.name(), end, bytes),
    }
}

async fn connect_upstream(
    admitted: &AdmittedConnection,
    protocol: ConnectionProtocol,
    match_key: &MatchKey,
    bytes: &[u8],
) -> Result<UpstreamConnection, ConnectionEnd> {
    let allowed = admitted.decide(match_key)?;
    let target = DialTarget::new(admitted.original_destination(), match_key.name());
    let dial = dial(admitted.context(), &allowed.active_policy, &target);
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

/// Carries the connection until it is over.
async fn relay_admitted(admitted: AdmittedConnection, upstream: UpstreamConnection) {
    relay(admitted.context(), &admitted.client, upstream).await;
}

/// Carries bytes both ways until the end.
pub async fn relay(context: &ProxyContext, client: &SharedSocket, upstream: UpstreamConnection) {
    let UpstreamConnection { socket, io } = upstream;
    match io {
        // An error has reset both, which is all that there is to say about it.
        UpstreamIo::Plain(_) => {
            drop(splice::splice_bidirectional(&context.pipe_pool, client, &socket).await)
        }
        // Boxed: it is the larger by far, and rare.
        UpstreamIo::Tls(stream) => Box::pin(relay_tls(client, &socket, stream)).await,
    }
}

/// The same, through this process, which encrypts.
async fn relay_tls(
    client: &SharedSocket,
    upstream: &SharedSocket,
    mut stream: Box<TlsStream<SharedTcpStream>>,
) {
    let mut near = SharedTcpStream(Arc::clone(client));
    let whole = tokio::select! {
        copied = copy_bidirectional(&mut near, &mut stream) => copied.is_ok(),
        // Where a side is half-closed nobody would notice.
        () = wait_for_reset(client) => false,
        () = wait_for_reset(upstream) => false,
    };
    if !whole {
        reset_connection(client);
        reset_connection(upstream);
    }
}

/// Ends a connection that is not let out. A client that speaks TLS is told so in its own way; these
/// bytes have come from it.
fn refuse_connection(
    admitted: AdmittedConnection,
    protocol: ConnectionProtocol,
    name: Option<&str>,
    end: ConnectionEnd,
    sent: &[u8],
) {
    let ConnectionEnd::Refused(decision) = end else { return reset_connection(&admitted.client) };
    let alert =
        TlsAlert::for_client(decision.reason, sent).filter(|_| protocol == ConnectionProtocol::Tls);
    admitted.record_refused(protocol, name, decision);
    match alert {
        // A small task of its own: what judging needed is given back.
        Some(alert) => drop(tokio::spawn(send_alert(admitted, alert))),
        None => reset_connection(&admitted.client),
    }
}

async fn send_alert(admitted: AdmittedConnection, alert: TlsAlert) {
    alert.send(&admitted.client, admitted.context().timeouts).await;
}

/// Bytes that the task of an established connection takes.
#[cfg(test)]
pub fn relay_task_size() -> usize {
    fn size<F: Future>(_: impl FnOnce(AdmittedConnection, UpstreamConnection) -> F) -> usize {
        size_of::<F>()
    }
    size(relay_admitted)
}
