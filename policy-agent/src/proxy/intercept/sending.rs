//! Sends the requests of an opened connection to its server, and connects again if that has closed.

use std::sync::atomic::Ordering;

use hyper::{Request, Response, body::Incoming};
use policy_common::reason::Reason;

use super::{
    alpn::AlpnChoice,
    connect_origin,
    origin::{OriginSender, start_http},
    request_body::InterceptedRequestBody,
    session::{InterceptedSession, RequestFailure},
};
use crate::proxy::http::missing_response_reason;

impl InterceptedSession {
    /// Sends a request and waits for the head of the response. If the server has closed the
    /// connection before it received the request, a new connection gets it.
    pub(super) async fn send(
        &self,
        mut request: Request<InterceptedRequestBody>,
    ) -> Result<(Response<Incoming>, OriginSender), RequestFailure> {
        if let Some(mut sender) = self.open_sender().await
            && sender.wait_ready().await
        {
            match sender.try_send(request).await {
                Ok(response) => return Ok((response, sender)),
                Err((Some(unsent), _)) => request = unsent,
                Err((None, error)) => return Err(self.broken_request(&error)),
            }
        }
        let mut sender = self.reconnect().await?;
        let sent = sender.try_send(request).await;
        let response = sent.map_err(|(_, error)| missing_response_reason(&error))?;
        Ok((response, sender))
    }

    /// A request in a used connection that may have reached the server gets no response, so that
    /// clients repeat it only if they may (RFC 9110, 9.2.2). Other streams of an HTTP/2 connection are
    /// not ended for it.
    fn broken_request(&self, error: &hyper::Error) -> RequestFailure {
        match missing_response_reason(error) {
            Reason::ServerBrokeOff
                if self.choice != AlpnChoice::Http2
                    && self.has_response.load(Ordering::Relaxed) =>
            {
                RequestFailure::Closed
            }
            reason => reason.into(),
        }
    }

    /// The connection to the server, if it is open. HTTP/1 takes it, and returns it after the
    /// response.
    async fn open_sender(&self) -> Option<OriginSender> {
        let mut origin = self.origin.lock().await;
        match origin.take()? {
            sender if sender.is_closed() => None,
            OriginSender::Http1(sender) => Some(OriginSender::Http1(sender)),
            OriginSender::Http2(sender) => {
                *origin = Some(OriginSender::Http2(sender.clone()));
                Some(OriginSender::Http2(sender))
            }
        }
    }

    /// Connects to the server again. Concurrent requests share an HTTP/2 connection.
    async fn reconnect(&self) -> Result<OriginSender, RequestFailure> {
        let mut origin = self.origin.lock().await;
        if let Some(OriginSender::Http2(sender)) = &*origin
            && !sender.is_closed()
        {
            return Ok(OriginSender::Http2(sender.clone()));
        }
        let allowed = self.admitted.active_policy();
        let offer = self.choice.only_offer();
        let connecting = connect_origin(&self.admitted, &allowed, &self.name, &self.domain, offer);
        let (stream, choice) = Box::pin(connecting).await.map_err(RequestFailure::from)?;
        if (choice == AlpnChoice::Http2) != (self.choice == AlpnChoice::Http2) {
            return Err(Reason::BadResponse.into());
        }
        let sender = start_http(stream, choice, &self.drivers).await?.sender;
        if let OriginSender::Http2(sender) = &sender {
            *origin = Some(OriginSender::Http2(sender.clone()));
        }
        Ok(sender)
    }
}

impl OriginSender {
    async fn wait_ready(&mut self) -> bool {
        match self {
            Self::Http1(sender) => sender.ready().await.is_ok(),
            Self::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    /// Sends a request. A request that was not sent comes back with the error.
    async fn try_send(
        &mut self,
        request: Request<InterceptedRequestBody>,
    ) -> Result<Response<Incoming>, (Option<Request<InterceptedRequestBody>>, hyper::Error)> {
        let sent = match self {
            Self::Http1(sender) => sender.try_send_request(request).await,
            Self::Http2(sender) => sender.try_send_request(request).await,
        };
        sent.map_err(|mut error| (error.take_message(), error.into_error()))
    }
}
