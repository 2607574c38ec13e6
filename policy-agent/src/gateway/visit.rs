//! One request, from the client to a service in a sandbox and back.
//!
//! ```text
//! token (taken out) ─► target ─► sandbox ─► is it open? ─► a place ─► prepare ─► backend ─► answer
//!                       400       502        403            429                   502
//! ```

use std::{net::SocketAddr, sync::Arc};

use http_body_util::{Either, Empty, Full};
use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::{Body as _, Incoming},
    header::{self, HeaderMap, HeaderValue},
};

use super::{
    Gateway,
    backend::{Backend, Failure, Outgoing, Way},
    body::{Answer, Held},
    counts::Visit,
    forwarded,
    framing::digits,
    listen::Scheme,
    refusal::{Refusal, is_for_browser},
    target::{self, Misdirected, Target},
    token::Shown,
    upgrade,
};
use crate::{
    agent::{Sandbox, Status},
    net::hop,
};

/// Where the agent inside a sandbox listens in E2B's world. Clients ask it whether the sandbox
/// lives, which the gateway can tell as well.
const ENVD_PORT: u16 = 49983;

/// Answers a request, whatever it is.
pub async fn answer(
    gateway: Arc<Gateway>,
    mut request: Request<Incoming>,
    client: SocketAddr,
    scheme: Scheme,
) -> Response<Answer> {
    let for_browser = is_for_browser(request.headers());
    let shown = Shown::take(&mut request);
    let visit = Visit::of(&request, client.ip());
    let target = check_length(request.headers())
        .and_then(|()| target::of(&request, &gateway.domain))
        .map_err(Refusal::bad_request);
    let answered = match &target {
        Ok(target) => {
            let from = From { client, scheme, target, shown };
            from.pass(&gateway, request).await
        }
        Err(refusal) => Err(refusal.clone()),
    };
    let response =
        answered.unwrap_or_else(|refusal| refusal.answer(for_browser).map(Either::Right));
    visit.answered(&gateway.counts, target.as_ref().ok(), response.status());
    response
}

/// Who asks for what.
struct From<'a> {
    client: SocketAddr,
    scheme: Scheme,
    target: &'a Target,
    shown: Shown,
}

impl From<'_> {
    async fn pass(
        &self,
        gateway: &Gateway,
        request: Request<Incoming>,
    ) -> Result<Response<Answer>, Refusal> {
        let target = self.target;
        let known = gateway.table.get(&target.sandbox);
        let sandbox = known.ok_or_else(|| Refusal::unknown(target))?;
        let asks_for_life = self.asks_for_life(&request);
        if !self.may_enter(&sandbox) {
            return if asks_for_life { Ok(alive()) } else { Err(Refusal::forbidden(target)) };
        }
        if sandbox.status == Status::InterfaceMissing {
            return Err(Refusal::no_service(target, "the sandbox's network interface is gone"));
        }
        let backend = gateway.backends.of(&sandbox);
        match self.visit(gateway, &sandbox, &backend, request).await {
            Err(Outcome::Failed(Failure::Closed)) if asks_for_life => Ok(alive()),
            Err(Outcome::Failed(Failure::BadBody)) => {
                Err(Refusal::bad_request(Failure::BadBody.to_string()))
            }
            Err(Outcome::Failed(failure)) => Err(Refusal::no_service(target, &failure.to_string())),
            Err(Outcome::Full) => Err(Refusal::too_many(target)),
            Ok(response) => Ok(response),
        }
    }

    fn may_enter(&self, sandbox: &Sandbox) -> bool {
        sandbox.rules.policy.allow_public_traffic() || self.shown.proves(sandbox.life.token())
    }

    fn asks_for_life(&self, request: &Request<Incoming>) -> bool {
        let path = request.uri().path();
        self.target.port == ENVD_PORT && request.method() == Method::GET && path == "/health"
    }

    async fn visit(
        &self,
        gateway: &Gateway,
        sandbox: &Sandbox,
        backend: &Backend,
        request: Request<Incoming>,
    ) -> Result<Response<Answer>, Outcome> {
        let place = backend.enter().ok_or(Outcome::Full)?;
        let policy = &sandbox.rules.policy;
        let mask = policy.mask_request_host().map(|mask| mask.render(self.target.port));
        let is_tls = policy.https_ports().contains(&self.target.port);
        let mut request = request;
        let offers = self.prepare(&mut request, mask.as_deref().unwrap_or(&self.target.host));
        let client = offers.then(|| hyper::upgrade::on(&mut request));
        let way = Way { port: self.target.port, tls: is_tls.then_some(&gateway.tls) };
        let sent = backend.send(&way, request.map(outgoing)).await;
        let mut response = sent.map_err(Outcome::Failed)?;
        *response.version_mut() = Version::HTTP_11;
        match (response.status(), client) {
            (StatusCode::SWITCHING_PROTOCOLS, Some(client)) => {
                let service = hyper::upgrade::on(&mut response);
                tokio::spawn(upgrade::join(client, service, backend.gone().clone(), place));
                Ok(response.map(|_| Either::Right(Full::default())))
            }
            (StatusCode::SWITCHING_PROTOCOLS, None) => Err(Outcome::Failed(Failure::Broken)),
            _ => {
                hop::strip(response.headers_mut());
                Ok(response.map(|body| Either::Left(Held::new(body, place))))
            }
        }
    }

    /// Makes the client's request the one that the service gets. Whether it offers to go on in
    /// another protocol.
    fn prepare(&self, request: &mut Request<Incoming>, host: &str) -> bool {
        let is_http1 = request.version() < Version::HTTP_2;
        if !is_http1 || !request.body().is_end_stream() {
            // Such an offer has no place in HTTP/2, and behind a body nobody makes one.
            request.headers_mut().remove(header::UPGRADE);
        }
        let offers = hop::send_on(request);
        let headers = request.headers_mut();
        // The HTTP library has told the client to go on, or will when the body is asked for.
        headers.remove(header::EXPECT);
        join_cookies(headers);
        forwarded::set(headers, self.client.ip(), self.scheme, &self.target.host);
        if let Ok(host) = HeaderValue::from_str(host) {
            headers.insert(header::HOST, host);
        }
        offers
    }
}

enum Outcome {
    /// The sandbox has all the connections it may have.
    Full,
    /// There is no answer.
    Failed(Failure),
}

fn alive() -> Response<Answer> {
    let mut response = Response::new(Either::Right(Full::default()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

fn outgoing(body: Incoming) -> Outgoing {
    if body.is_end_stream() { Either::Right(Empty::new()) } else { Either::Left(body) }
}

/// In HTTP/2 nothing rests on the length, but the service would read it in HTTP/1.
fn check_length(headers: &HeaderMap) -> Result<(), Misdirected> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let sound = lengths.next().is_none_or(|length| digits(length.as_bytes()).is_some());
    if sound && lengths.next().is_none() { Ok(()) } else { Err("Content-Length is not one number") }
}

/// Clients of HTTP/2 send cookies one by one (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let cookies = headers.get_all(header::COOKIE);
    if cookies.iter().nth(1).is_none() {
        return;
    }
    let cookies: Vec<&[u8]> = cookies.iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}
