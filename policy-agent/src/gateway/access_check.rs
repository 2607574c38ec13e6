//! Decides whether a client may reach a sandbox.

use std::borrow::Cow;

use http_body_util::Full;
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    header,
};

use super::{
    Gateway, cors, refusal::GatewayRefusal, request::RequestContext, target, token_redirect,
};
use crate::{agent::Sandbox, policy::SecretString};

impl RequestContext {
    /// Checks the access to the sandbox. Returns `None` if the request may be forwarded, or the
    /// gateway's own response.
    ///
    /// # Errors
    /// The client may not reach the sandbox.
    pub(super) fn check_access(
        &self,
        gateway: &Gateway,
        sandbox: &Sandbox,
        request: &Request<Incoming>,
    ) -> Result<Option<Response<Full<Bytes>>>, GatewayRefusal> {
        self.check_client(sandbox)?;
        let is_envd = self.target.port == gateway.envd_port;
        if is_envd || sandbox.active_policy.policy.allow_public_traffic() {
            return Ok(None);
        }
        self.authorize(gateway, sandbox, request)
    }

    /// Checks that the sandbox admits the client's network.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn check_client(&self, sandbox: &Sandbox) -> Result<(), GatewayRefusal> {
        if sandbox.active_policy.policy.admits_client(self.client.address) {
            return Ok(());
        }
        Err(GatewayRefusal::client_not_admitted(&self.target, self.client.address))
    }

    /// Authorizes a request to a private sandbox. Returns `None` if it may be forwarded, or the
    /// gateway's own response.
    fn authorize(
        &self,
        gateway: &Gateway,
        sandbox: &Sandbox,
        request: &Request<Incoming>,
    ) -> Result<Option<Response<Full<Bytes>>>, GatewayRefusal> {
        let accepted = presented_token(sandbox, |token| {
            let by_cookie =
                || self.tokens.contains(token) && !self.is_from_other_sandbox(gateway, request);
            self.tokens.contains_outside_cookies(token) || by_cookie()
        });
        let Some(token) = accepted else {
            let refusal = GatewayRefusal::token_required(&self.target);
            return cors::is_preflight(request)
                .then(|| Some(cors::preflight_response(request)))
                .ok_or(refusal);
        };
        let needs_redirect =
            self.tokens.query_contains(&token) && token_redirect::is_page_navigation(request);
        let redirect = || token_redirect::token_redirect(request.uri(), &token, self.client.scheme);
        Ok(needs_redirect.then(redirect).flatten())
    }

    /// Whether the request comes from a page of another sandbox. Browsers consider all sandboxes
    /// one site, so such requests carry the user's cookie for this one.
    fn is_from_other_sandbox(&self, gateway: &Gateway, request: &Request<Incoming>) -> bool {
        let origin = request.headers().get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
        let sandbox = origin.and_then(|origin| target::sandbox_of_origin(origin, &gateway.domains));
        sandbox.is_some_and(|sandbox| sandbox != self.target.sandbox)
    }
}

/// A valid token of the sandbox that a request presents.
pub(super) fn presented_token(
    sandbox: &Sandbox,
    is_presented: impl Fn(&SecretString) -> bool,
) -> Option<SecretString> {
    // All are compared, so that the time tells nothing about them.
    let presented = sandbox.lifetime.valid_tokens().filter(|token| is_presented(token));
    presented.last().map(Cow::into_owned)
}
