//! `POST /agent/v1/explain`: what would happen to a packet, and why.

use std::net::IpAddr;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Api, Problem, body::Body};
use crate::policy::{Destination, Explanation, Invalid, SandboxSpec};

/// Protocols by name.
const PROTOCOLS: [(&str, u8); 5] =
    [("icmp", 1), ("tcp", 6), ("udp", 17), ("icmpv6", 58), ("sctp", 132)];

/// The body: a known sandbox or the description of one, and a destination.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct Question {
    /// A sandbox that the agent knows.
    #[serde(
        rename = "sandboxID",
        alias = "sandboxId",
        alias = "sandbox_id",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub sandbox_id: Option<String>,
    /// Or one that is described.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<SandboxSpec>,
    /// Where the packet goes.
    pub destination: String,
    /// `tcp`, `udp`, `icmp`, `icmpv6`, `sctp`, or a number.
    #[serde(default = "tcp")]
    pub protocol: String,
    /// The port it goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The name that the connection asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

impl Question {
    /// The destination that is asked about.
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub fn destination(&self) -> Result<Destination, Invalid> {
        let Ok(address) = self.destination.parse::<IpAddr>() else {
            let problem = "write an IP address; a name goes into host (--host)";
            return Err(Invalid::entry("destination", &self.destination, problem));
        };
        let protocol = protocol(&self.protocol)?;
        if self.port == Some(0) {
            return Err(Invalid::entry("port", "0", "a port is a number from 1 to 65535"));
        }
        Ok(Destination {
            address: address.to_canonical(),
            protocol,
            port: self.port,
            host: self.host.clone(),
        })
    }
}

/// Say what happens to a packet, and which rule decides
#[utoipa::path(
    post, path = "/agent/v1/explain", tag = "Agent", operation_id = "explain",
    request_body = Question,
    responses(
        (status = 200, description = "The verdict", body = Answer),
        (status = 400, response = Problem), (status = 404, response = Problem),
        (status = 413, response = Problem),
    )
)]
pub async fn explain(State(api): State<Api>, body: Body) -> Result<Json<Answer>, Problem> {
    let question: Question = body.parse()?;
    let destination = question.destination()?;
    let explanation = match (&question.sandbox_id, &question.spec) {
        (Some(id), None) => api.agent.explain(id, &destination)?,
        (None, Some(spec)) => api.agent.explain_spec(spec, &destination)?,
        _ => return Err(Problem::bad_request("give either sandboxID or spec")),
    };
    Ok(Json(explanation.into()))
}

/// The explanation, and what its reason means.
#[derive(Debug, Serialize, ToSchema)]
pub struct Answer {
    /// What decided.
    #[serde(flatten)]
    pub explanation: Explanation,
    /// One sentence for people.
    pub help: &'static str,
}

impl From<Explanation> for Answer {
    fn from(explanation: Explanation) -> Self {
        Self { help: explanation.reason.help(), explanation }
    }
}

fn protocol(text: &str) -> Result<u8, Invalid> {
    let name = text.to_ascii_lowercase();
    let known = PROTOCOLS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    known.or_else(|| text.parse().ok()).ok_or_else(|| {
        Invalid::entry("protocol", text, "write tcp, udp, icmp, icmpv6, sctp or a number to 255")
    })
}

fn tcp() -> String {
    "tcp".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(json: &str) -> Result<Destination, Invalid> {
        crate::policy::parse::<Question>(json.as_bytes())?.destination()
    }

    #[test]
    fn what_is_not_said_is_tcp_to_no_certain_port() {
        let destination = question(r#"{"destination":"::ffff:1.2.3.4"}"#).expect("good");
        assert_eq!(destination.address, IpAddr::from([1, 2, 3, 4]));
        assert_eq!((destination.protocol, destination.port), (6, None));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let field = |json| question(json).expect_err(json).field;
        assert_eq!(field(r#"{"destination":"example.com"}"#), "destination");
        assert_eq!(field(r#"{"destination":"1.1.1.1","protocol":"tpc"}"#), "protocol");
        assert_eq!(field(r#"{"destination":"1.1.1.1","port":0}"#), "port");
        assert_eq!(field(r#"{"destination":"1.1.1.1","prot":"tcp"}"#), "prot");
    }
}
