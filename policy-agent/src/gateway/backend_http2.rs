//! HTTP/2 from the gateway to a service.

use std::{sync::Arc, time::Duration};

use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::{
    backend::{BackendError, BackendRequestBody, BackendTarget, DialedService, SandboxBackend},
    connection_pool::PoolKey,
    http2_pool::{CONNECTION_WINDOW, Http2Connection, Http2Stream, STREAM_WINDOW},
    http2_request,
    service_protocol::Http2Use,
};
use crate::net::{settings_probe::SettingsProbe, socket::reset_connection, upstream::http2_client};

/// How long a service has to send its settings. A service of HTTP/1 answers the preface with an
/// error or closes the connection, and one that does neither is taken for one.
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(3);

impl SandboxBackend {
    /// Opens a stream to the service, if it speaks HTTP/2 and the request may use that. Connects if
    /// necessary.
    ///
    /// # Errors
    /// The service cannot be reached, or does not speak HTTP/2 although it has to.
    pub(super) async fn open_http2_stream(
        &self,
        target: &BackendTarget<'_>,
        key: PoolKey,
    ) -> Result<Option<Http2Stream>, BackendError> {
        if !self.protocols.try_http2(key, target.http2_use) {
            return Ok(None);
        }
        if let Some(stream) = self.pool.http2().open_stream(key) {
            return Ok(Some(stream));
        }
        let connecting = self.pool.http2().connecting(key);
        let _connecting = connecting.lock().await;
        // Another request may have connected, or found out that the service speaks HTTP/1.
        if !self.protocols.try_http2(key, target.http2_use) {
            return Ok(None);
        }
        if let Some(stream) = self.pool.http2().open_stream(key) {
            return Ok(Some(stream));
        }
        let stream = Box::pin(self.connect_http2(target, key)).await?;
        self.protocols.record(key, stream.is_some());
        match stream {
            None if target.http2_use == Http2Use::Always => Err(BackendError::NotHttp2),
            stream => Ok(stream),
        }
    }

    async fn connect_http2(
        &self,
        target: &BackendTarget<'_>,
        key: PoolKey,
    ) -> Result<Option<Http2Stream>, BackendError> {
        let dialed = self.dial(target, true).await?;
        if key.is_tls && !dialed.is_http2 {
            // The connection serves the request, which takes it from the pool.
            let connection = self.start_http1(dialed).await?;
            self.pool.put(key, connection);
            return Ok(None);
        }
        let DialedService { io, socket, socket_permit, .. } = dialed;
        let (probe, settings) = SettingsProbe::new(io, socket_permit);
        let handshake =
            http2_client(STREAM_WINDOW, CONNECTION_WINDOW).handshake(TokioIo::new(probe)).await;
        let Ok((sender, connection)) = handshake else { return Ok(None) };
        let (retired, weak) = (self.retired().clone(), Arc::downgrade(&socket));
        tokio::spawn(async move {
            let ended = retired.run_until_cancelled(connection).await;
            if ended.is_none() {
                reset_connection(&socket);
            }
        });
        let Ok(Ok(settings)) = timeout(SETTINGS_TIMEOUT, settings).await else {
            weak.upgrade().inspect(|socket| reset_connection(socket));
            return Ok(None);
        };
        Ok(self.pool.http2().insert(key, Http2Connection::new(sender, settings, weak)))
    }

    /// Sends a request on a stream and waits for the head of the response.
    ///
    /// # Errors
    /// There is no valid response.
    pub(super) async fn send_over_http2(
        stream: &mut Http2Stream,
        request: Request<BackendRequestBody>,
        is_tls: bool,
    ) -> Result<Response<Incoming>, BackendError> {
        let request = http2_request::into_http2(request, is_tls)?;
        Ok(stream.sender.send_request(request).await?)
    }
}
