//! The response to a refused request: why it was refused, and what would allow it. For people, or as
//! JSON for clients that ask for it.

use std::net::IpAddr;

use http_body_util::{Either, Full};
use hyper::{
    Response, StatusCode,
    body::{Bytes, Incoming},
    header::{self, HeaderMap, HeaderValue},
};
use policy_common::reason::Reason;
use serde_json::{Value, json};

use crate::{
    policy::{AllowHint, SandboxId},
    proxy::decision::ConnectionDecision,
};

/// The body of a response: the server's, or one from the proxy.
pub(in crate::proxy) type ProxyResponseBody = Either<Incoming, Full<Bytes>>;

/// A refused request.
pub(in crate::proxy) struct Refusal<'a> {
    pub sandbox: &'a SandboxId,
    pub decision: &'a ConnectionDecision,
    /// The address that the sandbox connected to.
    pub address: IpAddr,
    pub name: Option<&'a str>,
    /// What exactly has failed, if the reason does not say it.
    pub detail: Option<&'a str>,
}

/// The form of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum RefusalForm {
    Text,
    Json,
}

impl RefusalForm {
    /// JSON if the client asks for it by `Accept`.
    pub(in crate::proxy) fn for_request(headers: &HeaderMap) -> Self {
        let accepted =
            headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut ranges = accepted.flat_map(|value| value.split(','));
        let is_json = |range: &str| {
            let kind = range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            kind == "application/json" || kind.ends_with("+json")
        };
        if ranges.any(is_json) { Self::Json } else { Self::Text }
    }
}

/// The response, after which the connection closes.
pub(in crate::proxy) fn refusal_response(
    refusal: &Refusal<'_>,
    form: RefusalForm,
) -> Response<Full<Bytes>> {
    let (body, kind) = match form {
        RefusalForm::Text => (refusal.text(), "text/plain; charset=utf-8"),
        RefusalForm::Json => (format!("{}\n", refusal.json()), "application/json"),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = refusal_status(refusal.decision.reason);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

impl Refusal<'_> {
    /// `reason: help (name)`, and a line about what would allow it.
    fn text(&self) -> String {
        let reason = self.decision.reason;
        let mut text = format!("{}: {}", reason.label(), reason.help());
        if let Some(name) = self.name {
            text.push_str(&format!(" ({name})"));
        }
        text.push('\n');
        if let Some(detail) = self.detail {
            text.push_str(&format!("{detail}\n"));
        }
        if let Some(hint) = self.hint() {
            text.push_str(&format!("To allow it: {}\n", hint.advice(self.sandbox)));
        }
        text
    }

    fn json(&self) -> Value {
        let reason = self.decision.reason;
        let mut body = json!({
            "code": refusal_status(reason).as_u16(),
            "message": reason.help(),
            "reason": reason.label(),
            "line": reason.line(),
        });
        if let Some(name) = self.name {
            body["name"] = name.into();
        }
        if let Some(detail) = self.detail {
            body["detail"] = detail.into();
        }
        // Which entry of the operator's decides is not the sandbox's business.
        let rule = self.decision.rule.as_ref().filter(|rule| rule.list.starts_with("network."));
        if let Some(rule) = rule {
            body["rule"] = serde_json::to_value(rule).unwrap_or_default();
        }
        if let Some(hint) = self.hint() {
            body["allowWith"] = hint.advice(self.sandbox).into();
            if let Some(entry) = hint.entry() {
                body["allowEntry"] = entry.into();
            }
        }
        body
    }

    fn hint(&self) -> Option<AllowHint> {
        AllowHint::for_denial(self.decision.reason, Some(self.address), self.name)
    }
}

const fn refusal_status(reason: Reason) -> StatusCode {
    match reason {
        Reason::NameConflict | Reason::InvalidName | Reason::NotJudgeable => {
            StatusCode::BAD_REQUEST
        }
        Reason::NameUnresolved
        | Reason::Unreachable
        | Reason::EgressProxyFailed
        | Reason::BadResponse
        | Reason::ServerBrokeOff
        | Reason::SecretUnknown
        | Reason::OriginNotVerified => StatusCode::BAD_GATEWAY,
        Reason::HostMismatch => StatusCode::MISDIRECTED_REQUEST,
        _ => StatusCode::FORBIDDEN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form_for(accept: &'static str) -> RefusalForm {
        let headers = [(header::ACCEPT, HeaderValue::from_static(accept))];
        RefusalForm::for_request(&headers.into_iter().collect())
    }

    #[test]
    fn the_client_chooses_the_form() {
        for accept in
            ["application/json", "text/html, application/JSON;q=0.9", "application/x+json"]
        {
            assert_eq!(form_for(accept), RefusalForm::Json, "{accept}");
        }
        for accept in ["*/*", "text/html", "application/jsonp"] {
            assert_eq!(form_for(accept), RefusalForm::Text, "{accept}");
        }
        assert_eq!(RefusalForm::for_request(&HeaderMap::new()), RefusalForm::Text);
    }

    #[test]
    fn a_refusal_says_why_and_what_would_allow_it() {
        let sandbox = "web".parse().expect("an ID");
        let mut decision = ConnectionDecision::from(Reason::NameNotAllowed);
        let address = IpAddr::from([198, 51, 100, 7]);
        let name = Some("a.example");
        let refusal =
            Refusal { sandbox: &sandbox, decision: &decision, address, name, detail: None };
        let text = refusal.text();
        assert!(text.starts_with("name_not_allowed: "), "{text}");
        assert!(text.ends_with("\nTo allow it: policy-agent allow web a.example\n"), "{text}");
        let body = refusal.json();
        assert_eq!((&body["code"], &body["line"]), (&json!(403), &json!(7)));
        assert_eq!(body["allowEntry"], "a.example");
        decision = Reason::PlatformDeny.into();
        let refusal =
            Refusal { sandbox: &sandbox, decision: &decision, address, name, detail: None };
        assert_eq!(refusal.json()["allowWith"], "the operator's platform_allow only");
        assert!(refusal.json().get("allowEntry").is_none());
    }
}
