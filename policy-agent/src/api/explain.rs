//! `POST /agent/v1/explain`: the verdict on a hypothetical packet, and the rule behind it.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ApiState, ExplainResponse, Problem, json_body::JsonBody};
use crate::policy::{DomainOrIp, Floor, HostAndPort, Policy, SandboxSpec, ValidationError};

/// Protocol names and their IP protocol numbers.
const PROTOCOLS: [(&str, u8); 5] =
    [("icmp", 1), ("tcp", 6), ("udp", 17), ("icmpv6", 58), ("sctp", 132)];

/// A packet to explain: a sandbox, known to the agent or described here, and a destination.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct ExplainRequest {
    /// The ID of a sandbox that the agent knows.
    #[serde(
        rename = "sandboxID",
        alias = "sandboxId",
        alias = "sandbox_id",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub sandbox_id: Option<String>,
    /// The description of a sandbox, in place of an ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<SandboxSpec>,
    /// The destination: an IP address, a name or a URL.
    pub destination: String,
    /// `tcp`, `udp`, `icmp`, `icmpv6`, `sctp`, or an IP protocol number.
    #[serde(default = "tcp")]
    pub protocol: String,
    /// The destination port. Default: the port of the destination URL, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The name that the connection requests (Host or SNI). Default: the destination, if that is a
    /// name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// A validated [`ExplainRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainQuery {
    /// The destination.
    pub destination: DomainOrIp,
    /// IP protocol number.
    pub protocol: u8,
    /// The destination port, if known.
    pub port: Option<u16>,
    /// The name that the connection requests, if known.
    pub host: Option<String>,
}

impl ExplainRequest {
    /// Validates the request.
    ///
    /// # Errors
    /// A field is invalid; the error names it.
    pub fn to_query(&self) -> Result<ExplainQuery, ValidationError> {
        let endpoint = HostAndPort::parse_host_or_url(&self.destination).map_err(|problem| {
            let problem = format!("write an IP address, a name or a URL; as a name: {problem}");
            ValidationError::about_entry("destination", &self.destination, problem)
        })?;
        let protocol = parse_protocol(&self.protocol)?;
        if self.port == Some(0) {
            return Err(ValidationError::about_entry(
                "port",
                "0",
                "a port is a number from 1 to 65535",
            ));
        }
        if let (Some(port), Some(other)) = (self.port, endpoint.port)
            && port != other
        {
            let problem = format!("the destination says port {other}; give it once");
            return Err(ValidationError::about_entry("port", port.to_string(), problem));
        }
        let name = match &endpoint.host {
            DomainOrIp::Domain(name) => Some(name.to_string()),
            DomainOrIp::Address(_) => None,
        };
        Ok(ExplainQuery {
            destination: endpoint.host,
            protocol,
            port: self.port.or(endpoint.port),
            host: self.host.clone().or(name),
        })
    }
}

/// Explain what happens to a packet, and which rule decides
///
/// A name is resolved as the egress proxy resolves it, and each of its addresses gets a verdict.
/// Without a port, a name is judged as on TCP ports 80 and 443.
#[utoipa::path(
    post, path = "/agent/v1/explain", tag = "Agent", operation_id = "explain",
    request_body = ExplainRequest,
    responses(
        (status = 200, description = "The verdict", body = ExplainResponse),
        (status = 400, response = Problem), (status = 404, response = Problem),
        (status = 413, response = Problem),
    )
)]
pub(super) async fn explain(
    State(api): State<ApiState>,
    body: JsonBody,
) -> Result<Json<ExplainResponse>, Problem> {
    let request: ExplainRequest = body.parse()?;
    let query = request.to_query()?;
    let (known, described);
    let (policy, floor): (&Policy, &Floor) = match (&request.sandbox_id, &request.spec) {
        (Some(id), None) => {
            known = api.agent.registry().require(id)?;
            (&known.active_policy.policy, &known.active_policy.floor)
        }
        (None, Some(spec)) => {
            spec.validate()?;
            let policy = api.agent.platform_policy().policy_for_spec(spec)?;
            described = (policy, api.agent.floor_in_namespace(spec.netns.clone()).await?);
            (&described.0, &described.1)
        }
        _ => return Err(Problem::bad_request("give either sandboxID or spec")),
    };
    let resolved = match &query.destination {
        DomainOrIp::Domain(name) => api.proxy.lookup_addresses(name, query.port).await,
        DomainOrIp::Address(_) => Vec::new(),
    };
    Ok(Json(ExplainResponse::new(policy, floor, &query, Some(&resolved))?))
}

fn parse_protocol(text: &str) -> Result<u8, ValidationError> {
    let name = text.to_ascii_lowercase();
    let known = PROTOCOLS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    known.or_else(|| text.parse().ok()).ok_or_else(|| {
        ValidationError::about_entry(
            "protocol",
            text,
            "write tcp, udp, icmp, icmpv6, sctp or a number to 255",
        )
    })
}

fn tcp() -> String {
    "tcp".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_query(json: &str) -> Result<ExplainQuery, ValidationError> {
        crate::policy::parse_json::<ExplainRequest>(json.as_bytes())?.to_query()
    }

    #[test]
    fn what_is_not_said_is_tcp_to_no_certain_port() {
        let query = parse_query(r#"{"destination":"::ffff:1.2.3.4"}"#).expect("good");
        assert_eq!(query.destination, DomainOrIp::Address([1, 2, 3, 4].into()));
        assert_eq!((query.protocol, query.port, query.host), (6, None, None));
    }

    #[test]
    fn names_and_urls_say_what_is_asked_for() {
        for (json, host, port) in [
            (r#"{"destination":"Example.com"}"#, "example.com", None),
            (r#"{"destination":"https://example.com/x"}"#, "example.com", Some(443)),
            (r#"{"destination":"http://example.com:8080"}"#, "example.com", Some(8080)),
            (r#"{"destination":"example.com","port":22}"#, "example.com", Some(22)),
            (r#"{"destination":"https://a.example","port":443}"#, "a.example", Some(443)),
            (r#"{"destination":"https://a.example","host":"b.example"}"#, "b.example", Some(443)),
        ] {
            let query = parse_query(json).expect(json);
            assert_eq!((query.host.as_deref(), query.port), (Some(host), port), "{json}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let field = |json| parse_query(json).expect_err(json).field;
        assert_eq!(field(r#"{"destination":"*.example.com"}"#), "destination");
        assert_eq!(field(r#"{"destination":"https://"}"#), "destination");
        assert_eq!(field(r#"{"destination":"1.1.1.1","protocol":"tpc"}"#), "protocol");
        assert_eq!(field(r#"{"destination":"1.1.1.1","port":0}"#), "port");
        assert_eq!(field(r#"{"destination":"https://a.example","port":80}"#), "port");
        assert_eq!(field(r#"{"destination":"1.1.1.1","prot":"tcp"}"#), "prot");
    }
}
