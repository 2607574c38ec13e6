//! The connection to the server of a name with a rule.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::{sync::oneshot, task::JoinSet, time::timeout};
use tokio_rustls::client::TlsStream;

use super::{
    alpn::AlpnChoice, origin_failure::OriginFailure, request_body::InterceptedRequestBody,
};
use crate::{
    net::settings_probe::{Http2Settings, SettingsProbe},
    proxy::upstream::{UpstreamIo, http2_client, lenient_http1_client},
};

/// Maximum number of header fields in a response.
const MAX_RESPONSE_HEADERS: usize = 256;
/// How long a server has to send its settings. One that does not is taken to have none.
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(3);
/// Flow control windows in bytes: what is buffered for a sandbox that does not read.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// The tasks that drive the connections of a session. They end with it.
#[derive(Default)]
pub(super) struct OriginDrivers(Mutex<JoinSet<()>>);

impl OriginDrivers {
    fn spawn(&self, driver: impl Future<Output = ()> + Send + 'static) {
        let mut drivers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while drivers.try_join_next().is_some() {}
        drivers.spawn(driver);
    }
}

/// Sends requests to the server.
pub(super) enum OriginSender {
    /// One after the other.
    Http1(http1::SendRequest<InterceptedRequestBody>),
    /// Many at a time.
    Http2(http2::SendRequest<InterceptedRequestBody>),
}

impl OriginSender {
    /// Whether the server has closed the connection.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }
}

/// A connection that has carried no request yet.
pub(super) struct NewOrigin {
    pub sender: OriginSender,
    /// The server's settings, once they have arrived.
    pub settings: Option<oneshot::Receiver<Http2Settings>>,
}

/// Starts HTTP on a connection.
///
/// # Errors
/// The server has closed it.
pub(super) async fn start_http(
    stream: TlsStream<UpstreamIo>,
    choice: AlpnChoice,
    drivers: &Arc<OriginDrivers>,
) -> Result<NewOrigin, OriginFailure> {
    let broke_off = |error: hyper::Error| OriginFailure::broke_off(&error);
    if choice == AlpnChoice::Http2 {
        let (probe, settings) = SettingsProbe::new(stream, ());
        let handshake =
            http2_client(STREAM_WINDOW, CONNECTION_WINDOW).handshake(TokioIo::new(probe)).await;
        let (sender, connection) = handshake.map_err(broke_off)?;
        // Its end ends the requests, which report it.
        drivers.spawn(connection.map(drop));
        return Ok(NewOrigin { sender: OriginSender::Http2(sender), settings: Some(settings) });
    }
    let mut client = lenient_http1_client(MAX_RESPONSE_HEADERS);
    client.preserve_header_case(true);
    let (sender, connection) = client.handshake(TokioIo::new(stream)).await.map_err(broke_off)?;
    drivers.spawn(connection.with_upgrades().map(drop));
    Ok(NewOrigin { sender: OriginSender::Http1(sender), settings: None })
}

impl NewOrigin {
    /// Whether WebSockets can be opened over HTTP/2 (RFC 8441).
    pub(super) async fn accepts_extended_connect(&mut self) -> bool {
        let Some(settings) = self.settings.take() else { return false };
        let settings = timeout(SETTINGS_TIMEOUT, settings).await;
        matches!(settings, Ok(Ok(settings)) if settings.extended_connect)
    }
}
