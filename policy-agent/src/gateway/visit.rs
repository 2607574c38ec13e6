//! One request, from the client to a service in a sandbox and back.
//!
//! ```text
//! token (taken out) ─► target ─► sandbox ─► is it open? ─► a place ─► prepare ─► backend ─► answer
//!                       400       502     403, 204, 303      429                   502
//!                             └ 404: the operator's own path
//! ```

use std::sync::Arc;

use http_body_util::{Either, Full};
use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::{Bytes, Incoming},
    header,
};

use super::{
    Gateway, answer,
    backend::{Backend, Failure, Way},
    body::{Answer, Held},
    cors,
    counts::Visit,
    envd, navigation,
    prepare::{self, Told},
    refusal::{Reader, Refusal},
    target::{self, Target},
    token::Shown,
    trusted_proxies::{Client, Peer},
    upgrade,
};
use crate::agent::{Sandbox, Status};

/// Answers a request, whatever it is.
pub async fn answer(
    gateway: Arc<Gateway>,
    mut request: Request<Incoming>,
    peer: Peer,
) -> Response<Answer> {
    let reader = Reader::of(request.headers());
    let client = gateway.proxies.client(peer, request.headers());
    let shown = Shown::take(&mut request);
    let mut visit = Visit::of(&request, client.address, &gateway.counts);
    let target = prepare::check(&request).and_then(|()| {
        let target = target::of(&request, &gateway.domain, client.host.as_deref());
        target.map_err(Refusal::bad_request)
    });
    let answered = match target {
        Ok(target) => {
            visit.is_for(&target);
            From { client, target, shown }.pass(&gateway, request).await
        }
        Err(refusal) => Err(refusal),
    };
    let response = answered.unwrap_or_else(|refusal| refusal.answer(&reader).map(Either::Right));
    visit.answered(response.status());
    response
}

/// Who asks for what.
struct From {
    client: Client,
    target: Target,
    shown: Shown,
}

impl From {
    async fn pass(
        &self,
        gateway: &Gateway,
        request: Request<Incoming>,
    ) -> Result<Response<Answer>, Refusal> {
        let target = &self.target;
        let is_envd = target.port == gateway.envd_port;
        if is_envd && envd::is_operators(request.uri().path()) {
            return Err(Refusal::not_public(target));
        }
        let known = gateway.table.get(&target.sandbox);
        let sandbox = known.ok_or_else(|| Refusal::unknown(target))?;
        if !is_envd
            && !sandbox.rules.policy.allow_public_traffic()
            && let Some(response) = self.enter(gateway, &sandbox, &request)?
        {
            return Ok(response.map(Either::Right));
        }
        if sandbox.status == Status::InterfaceMissing {
            return Err(Refusal::no_service(target, "the sandbox's network interface is gone"));
        }
        let asks_for_life =
            is_envd && request.method() == Method::GET && request.uri().path() == "/health";
        let backend = gateway.backends.of(&sandbox);
        // Whether it lives is to be said at once.
        let may_wait = !asks_for_life;
        match self.visit(gateway, &sandbox, &backend, request, may_wait).await {
            Err(Outcome::Failed(Failure::Closed)) if asks_for_life => Ok(alive()),
            Err(Outcome::Failed(Failure::BadBody)) => {
                Err(Refusal::bad_request(Failure::BadBody.to_string()))
            }
            Err(Outcome::Full | Outcome::Failed(Failure::Crowded)) => {
                Err(Refusal::too_many(target))
            }
            Err(Outcome::Failed(failure)) => Err(Refusal::no_service(target, &failure.to_string())),
            Ok(response) => Ok(response),
        }
    }

    /// At the door of a private sandbox: nothing, where the request may go on; or the gateway's own
    /// answer.
    fn enter(
        &self,
        gateway: &Gateway,
        sandbox: &Sandbox,
        request: &Request<Incoming>,
    ) -> Result<Option<Response<Full<Bytes>>>, Refusal> {
        let token = sandbox.life.token();
        let by_cookie = || self.shown.proves(token) && !self.is_of_other_sandbox(gateway, request);
        if !self.shown.proves_itself(token) && !by_cookie() {
            let refusal = Refusal::forbidden(&self.target);
            return cors::is_preflight(request)
                .then(|| Some(cors::preflight(request)))
                .ok_or(refusal);
        }
        let to_be_led = self.shown.is_in_query(token) && navigation::is_of(request);
        let redirect = || navigation::redirect(request.uri(), token, self.client.scheme);
        Ok(to_be_led.then(redirect).flatten())
    }

    /// Whether a page of another sandbox asks. To browsers all sandboxes are one site, so its requests
    /// come with the visitor's cookie for this one.
    fn is_of_other_sandbox(&self, gateway: &Gateway, request: &Request<Incoming>) -> bool {
        let origin = request.headers().get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
        let sandbox = origin.and_then(|origin| target::sandbox_of(origin, &gateway.domain));
        sandbox.is_some_and(|sandbox| sandbox != self.target.sandbox)
    }

    async fn visit(
        &self,
        gateway: &Gateway,
        sandbox: &Sandbox,
        backend: &Backend,
        mut request: Request<Incoming>,
        may_wait: bool,
    ) -> Result<Response<Answer>, Outcome> {
        let place = backend.enter().ok_or(Outcome::Full)?;
        let (port, policy) = (self.target.port, &sandbox.rules.policy);
        let mask = policy.mask_request_host().filter(|_| port != gateway.envd_port);
        let mask = mask.map(|mask| mask.render(port));
        let is_tls = policy.https_ports().contains(&port);
        let told = Told {
            client: &self.client,
            asked: &self.target.host,
            host: mask.as_deref().unwrap_or(&self.target.host),
        };
        let offers = told.prepare(&mut request);
        let client = offers.then(|| hyper::upgrade::on(&mut request));
        let tls = is_tls.then_some(&gateway.tls);
        let way = Way { port, tls, may_wait };
        let sent = backend.send(&way, request.map(prepare::outgoing)).await;
        let (mut response, source) = sent.map_err(Outcome::Failed)?;
        *response.version_mut() = Version::HTTP_11;
        match (response.status(), client) {
            (StatusCode::SWITCHING_PROTOCOLS, Some(client)) => {
                let service = hyper::upgrade::on(&mut response);
                tokio::spawn(upgrade::join(client, service, backend.gone().clone(), place));
                Ok(response.map(|_| Either::Right(Full::default())))
            }
            (StatusCode::SWITCHING_PROTOCOLS, None) => Err(Outcome::Failed(Failure::Broken)),
            _ => {
                answer::pass_on(&mut response).map_err(Outcome::Failed)?;
                Ok(response.map(|body| Either::Left(Held::new(body, source, place))))
            }
        }
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
