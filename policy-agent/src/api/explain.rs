//! `POST /agent/v1/explain`: what would happen to a packet, and why.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Answer, Api, Problem, body::Body};
use crate::{
    agent::Error,
    policy::{Endpoint, Host, Invalid, SandboxSpec},
    proxy::Found,
};

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
    /// Where it goes: an IP address, a name or a URL.
    pub destination: String,
    /// `tcp`, `udp`, `icmp`, `icmpv6`, `sctp`, or a number.
    #[serde(default = "tcp")]
    pub protocol: String,
    /// The port it goes to. Absent: that of the destination, if it says one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The name that the connection asks for. Absent: the destination, if that is a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// A question that makes sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Where it goes.
    pub to: Host,
    /// IP protocol number.
    pub protocol: u8,
    /// The port, if it is known.
    pub port: Option<u16>,
    /// The name that the connection asks for, if it is known.
    pub host: Option<String>,
}

impl Question {
    /// What is asked.
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub fn asked(&self) -> Result<Asked, Invalid> {
        let endpoint = Endpoint::parse(&self.destination).map_err(|problem| {
            let problem = format!("write an IP address, a name or a URL; as a name: {problem}");
            Invalid::entry("destination", &self.destination, problem)
        })?;
        let protocol = protocol(&self.protocol)?;
        if self.port == Some(0) {
            return Err(Invalid::entry("port", "0", "a port is a number from 1 to 65535"));
        }
        if let (Some(port), Some(other)) = (self.port, endpoint.port)
            && port != other
        {
            let problem = format!("the destination says port {other}; give it once");
            return Err(Invalid::entry("port", port.to_string(), problem));
        }
        let name = match &endpoint.host {
            Host::Name(name) => Some(name.to_string()),
            Host::Address(_) => None,
        };
        Ok(Asked {
            to: endpoint.host,
            protocol,
            port: self.port.or(endpoint.port),
            host: self.host.clone().or(name),
        })
    }
}

/// Say what happens to a packet, and which rule decides
///
/// A name is resolved as the egress proxy would, and each of its addresses is judged. Without a port,
/// a name is judged as on TCP ports 80 and 443.
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
    let asked = question.asked()?;
    let law = api.agent.law();
    let netns = question.spec.as_ref().and_then(|spec| spec.netns.clone());
    let floor_of_spec = api.agent.floor_in(netns).await?;
    let judge = |found: &[Found]| match (&question.sandbox_id, &question.spec) {
        (Some(id), None) => {
            let sandbox = api.agent.table().find(id).ok_or_else(|| Error::Unknown(id.clone()))?;
            let rules = &sandbox.rules;
            Ok(Answer::new(&rules.policy, &rules.floor, &asked, Some(found))?)
        }
        (None, Some(spec)) => {
            spec.validate()?;
            Ok(Answer::new(&law.judge(spec)?, &floor_of_spec, &asked, Some(found))?)
        }
        _ => Err(Problem::bad_request("give either sandboxID or spec")),
    };
    let Host::Name(name) = &asked.to else { return judge(&[]).map(Json) };
    judge(&[])?; // a wrong question is answered without asking any DNS server
    judge(&api.proxy.look_up(name, asked.port).await).map(Json)
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

    fn question(json: &str) -> Result<Asked, Invalid> {
        crate::policy::parse::<Question>(json.as_bytes())?.asked()
    }

    #[test]
    fn what_is_not_said_is_tcp_to_no_certain_port() {
        let asked = question(r#"{"destination":"::ffff:1.2.3.4"}"#).expect("good");
        assert_eq!(asked.to, Host::Address([1, 2, 3, 4].into()));
        assert_eq!((asked.protocol, asked.port, asked.host), (6, None, None));
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
            let asked = question(json).expect(json);
            assert_eq!((asked.host.as_deref(), asked.port), (Some(host), port), "{json}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let field = |json| question(json).expect_err(json).field;
        assert_eq!(field(r#"{"destination":"*.example.com"}"#), "destination");
        assert_eq!(field(r#"{"destination":"https://"}"#), "destination");
        assert_eq!(field(r#"{"destination":"1.1.1.1","protocol":"tpc"}"#), "protocol");
        assert_eq!(field(r#"{"destination":"1.1.1.1","port":0}"#), "port");
        assert_eq!(field(r#"{"destination":"https://a.example","port":80}"#), "port");
        assert_eq!(field(r#"{"destination":"1.1.1.1","prot":"tcp"}"#), "prot");
    }
}
