//! The response of `explain`: a verdict and, where the request leaves something open, the verdicts
//! it depends on, by address of the name and by port.

use std::net::IpAddr;

use policy_common::reason::Reason;
use serde::Serialize;
use utoipa::ToSchema;

use super::ExplainQuery;
use crate::{
    policy::{
        DomainOrIp, DomainSet, Explanation, Floor, FlowDestination, Policy, RequestedName,
        ValidationError,
        evaluate::{HTTPS_PORT, is_judged_by_name},
        evaluate_by_name, evaluate_connection,
    },
    proxy::ResolvedAddress,
};

/// IP protocol number.
const TCP: u8 = 6;

/// A verdict with a description of its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ExplainVerdict {
    /// The verdict and what decided it.
    #[serde(flatten)]
    pub explanation: Explanation,
    /// The reason in one sentence.
    pub help: &'static str,
}

/// The verdict on a packet, and the verdicts it depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExplainResponse {
    /// The verdict. A name is allowed if one of its addresses is. Without a port, a name is judged
    /// as on TCP ports 80 and 443, and an address as on a port without a special meaning.
    #[serde(flatten)]
    pub verdict: ExplainVerdict,
    /// The name that the connection requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The destination port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// If the destination is a name: its addresses as the egress proxy resolves them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<AddressVerdict>,
    /// The verdicts by port, if the request has no port and the port decides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub by_port: Vec<PortVerdict>,
    /// The rule of `network.rules` for the name, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header_rule: Option<ExplainedHeaderRule>,
}

/// A rule of `network.rules`, without the values of its headers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ExplainedHeaderRule {
    /// The key of the rule.
    pub key: String,
    /// The names of the headers.
    pub headers: Vec<String>,
    /// Whether the agent sets them in this connection.
    pub applied: bool,
    /// Why, or why not.
    pub help: &'static str,
}

/// The verdict on one address of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AddressVerdict {
    /// The address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// The verdict on the address.
    #[serde(flatten)]
    pub verdict: ExplainVerdict,
}

/// The verdict on some ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct PortVerdict {
    /// `80, 443` or `others`.
    pub ports: &'static str,
    /// The verdict on these ports.
    #[serde(flatten)]
    pub verdict: ExplainVerdict,
}

impl From<Explanation> for ExplainVerdict {
    fn from(explanation: Explanation) -> Self {
        Self { help: explanation.reason.help(), explanation }
    }
}

impl ExplainResponse {
    /// Evaluates `query` under a policy and the floor. `resolved` holds the addresses of the
    /// destination, if that is a name; `None` means that it was not resolved.
    ///
    /// # Errors
    /// The verdict on the name depends on its addresses, and the name was not resolved.
    pub fn new(
        policy: &Policy,
        floor: &Floor,
        query: &ExplainQuery,
        resolved: Option<&[ResolvedAddress]>,
    ) -> Result<Self, ValidationError> {
        let context = ExplainContext { policy, floor, query, resolved };
        let depends_on_port =
            query.port.is_none() && is_judged_by_name(policy, query.protocol, Some(HTTPS_PORT));
        let is_name = matches!(query.destination, DomainOrIp::Domain(_));
        let port = if depends_on_port && is_name { Some(HTTPS_PORT) } else { query.port };
        let (verdict, addresses) = context.verdict_on_port(port)?;
        let by_port = if depends_on_port { context.verdicts_by_port() } else { Vec::new() };
        let header_rule = ExplainedHeaderRule::new(policy, query, &verdict.explanation);
        let host = query.host.clone();
        Ok(Self { verdict, host, port: query.port, addresses, by_port, header_rule })
    }
}

impl ExplainedHeaderRule {
    /// The rule for the name that the query requests.
    fn new(policy: &Policy, query: &ExplainQuery, verdict: &Explanation) -> Option<Self> {
        let name = RequestedName::parse(query.host.as_deref()?);
        let rule = policy.header_rules().rule_for(name.domain()?)?;
        let is_https = query.port.is_none_or(|port| port == HTTPS_PORT);
        let (applied, help) = match (verdict.allowed, verdict.reason) {
            _ if query.protocol != TCP || !is_https => {
                (false, "headers are set in HTTPS requests to port 443 only")
            }
            (true, Reason::AllowName) => (true, "the agent sets them in HTTPS requests"),
            (true, _) => {
                (false, "the address is allowed without its name, so that no header is set")
            }
            (false, Reason::NameNotAllowed) => {
                (false, "a rule grants nothing: allowOut has to hold the name too")
            }
            (false, _) => (false, "a rule grants nothing, and the connection is denied"),
        };
        let headers = rule.headers().map(|(name, _)| name.to_string()).collect();
        Some(Self { key: rule.key().to_string(), headers, applied, help })
    }
}

/// A query and what it is evaluated against.
struct ExplainContext<'a> {
    policy: &'a Policy,
    floor: &'a Floor,
    query: &'a ExplainQuery,
    resolved: Option<&'a [ResolvedAddress]>,
}

impl ExplainContext<'_> {
    /// The verdict on a port, and the verdicts on each address of a name.
    fn verdict_on_port(
        &self,
        port: Option<u16>,
    ) -> Result<(ExplainVerdict, Vec<AddressVerdict>), ValidationError> {
        match (&self.query.destination, self.resolved) {
            (DomainOrIp::Address(address), _) => {
                Ok((self.evaluate_address(*address, port, self.floor).into(), Vec::new()))
            }
            (DomainOrIp::Domain(_), None) => {
                Ok((self.evaluate_unresolved(port, true)?.into(), Vec::new()))
            }
            (DomainOrIp::Domain(_), Some([])) => {
                Ok((self.evaluate_unresolved(port, false)?.into(), Vec::new()))
            }
            (DomainOrIp::Domain(_), Some(resolved)) => {
                let address_verdict = |address: &ResolvedAddress| AddressVerdict {
                    address: address.address,
                    verdict: self.evaluate_resolved(*address, port).into(),
                };
                let verdicts: Vec<_> = resolved.iter().map(address_verdict).collect();
                let deciding =
                    verdicts.iter().find(|candidate| candidate.verdict.explanation.allowed);
                let deciding = deciding.unwrap_or(&verdicts[0]).verdict.clone();
                Ok((deciding, verdicts))
            }
        }
    }

    /// The verdicts on the name ports and on the others, if they differ and both can be determined.
    fn verdicts_by_port(&self) -> Vec<PortVerdict> {
        let verdict_on = |ports, port| {
            let (verdict, _) = self.verdict_on_port(port).ok()?;
            Some(PortVerdict { ports, verdict })
        };
        let verdicts: Vec<_> =
            [verdict_on("80, 443", Some(HTTPS_PORT)), verdict_on("others", None)]
                .into_iter()
                .flatten()
                .collect();
        match verdicts.as_slice() {
            [name_ports, other_ports] if name_ports.verdict != other_ports.verdict => verdicts,
            _ => Vec::new(),
        }
    }

    fn evaluate_address(&self, address: IpAddr, port: Option<u16>, floor: &Floor) -> Explanation {
        let ExplainQuery { protocol, host, .. } = self.query;
        let packet = FlowDestination { address, protocol: *protocol, port, host: host.clone() };
        evaluate_connection(self.policy, floor, &packet)
    }

    /// Also checks the address itself where the egress proxy dials it.
    fn evaluate_resolved(&self, resolved: ResolvedAddress, port: Option<u16>) -> Explanation {
        let floor =
            if resolved.is_gateway { &self.floor.with_host_addresses(&[]) } else { self.floor };
        let explanation = self.evaluate_address(resolved.address, port, floor);
        let by_name = [Reason::AllowName, Reason::NameNotAllowed].contains(&explanation.reason);
        let is_dialled = by_name && explanation.allowed && !explanation.tunnel;
        match resolved.undialable_reason.filter(|_| is_dialled) {
            Some(reason) => proxy_refusal(reason),
            None => explanation,
        }
    }

    /// The verdict on a name without known addresses.
    fn evaluate_unresolved(
        &self,
        port: Option<u16>,
        is_offline: bool,
    ) -> Result<Explanation, ValidationError> {
        let explanation = self.evaluate_name_only(port);
        match explanation {
            Some(explanation) if is_offline || !explanation.allowed || explanation.tunnel => {
                Ok(explanation)
            }
            None if is_offline => {
                let problem = "its address decides here, and is not looked up without an agent; \
                               give the address in place of the name";
                Err(ValidationError::about_entry(
                    "destination",
                    self.query.destination.to_string(),
                    problem,
                ))
            }
            _ => Ok(proxy_refusal(Reason::NameUnresolved)),
        }
    }

    /// The egress proxy's verdict by name, if the name alone decides.
    fn evaluate_name_only(&self, port: Option<u16>) -> Option<Explanation> {
        if !is_judged_by_name(self.policy, self.query.protocol, port) {
            return None;
        }
        let name = self.query.host.as_deref().map(RequestedName::parse);
        let unspecified = IpAddr::from([0, 0, 0, 0]);
        let names = DomainSet::from_policy(self.policy);
        let explanation =
            evaluate_by_name(self.policy, &names, self.floor, name.as_ref(), unspecified);
        let is_name_reason = [Reason::AllowName, Reason::NameNotAllowed, Reason::InvalidName]
            .contains(&explanation.reason);
        is_name_reason.then_some(explanation)
    }
}

/// A denial by the egress proxy.
fn proxy_refusal(reason: Reason) -> Explanation {
    let line = reason.line();
    Explanation {
        allowed: false,
        would_deny: false,
        reason,
        line,
        rule: None,
        by_name: true,
        tunnel: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::ExplainRequest,
        policy::{NetworkConfig, PolicyDefaults, parse_json},
    };

    const NAMES: &str = r#"{"allowOut":["*.good.example","203.0.113.7"],"denyOut":["0.0.0.0/0"]}"#;

    fn resolved_addresses(addresses: &[&str]) -> Vec<ResolvedAddress> {
        let one = |text: &&str| ResolvedAddress {
            address: text.parse().expect(text),
            undialable_reason: None,
            is_gateway: false,
        };
        addresses.iter().map(one).collect()
    }

    fn explain_response(
        network: &str,
        question: &str,
        found: Option<&[ResolvedAddress]>,
    ) -> Result<ExplainResponse, ValidationError> {
        let network: NetworkConfig = parse_json(network.as_bytes()).expect(network);
        let floor = Floor::default();
        let policy =
            Policy::new(&network, None, &PolicyDefaults::default(), &floor).expect("a policy");
        let question: ExplainRequest = parse_json(question.as_bytes()).expect(question);
        ExplainResponse::new(&policy, &floor, &question.to_query().expect("a question"), found)
    }

    fn reason_label(verdict: &ExplainVerdict) -> &'static str {
        verdict.explanation.reason.label()
    }

    #[test]
    fn a_name_is_allowed_if_one_of_its_addresses_is() {
        for (destination, addresses, expected, each) in [
            ("https://a.good.example/x", &["198.51.100.1"][..], "allow_name", "allow_name"),
            (
                "https://a.good.example",
                &["10.0.0.5", "198.51.100.1"],
                "allow_name",
                "platform_deny allow_name",
            ),
            ("https://a.good.example", &["10.0.0.5"], "platform_deny", "platform_deny"),
            ("https://a.good.example", &[], "name_unresolved", ""),
            ("https://evil.example", &["198.51.100.1"], "name_not_allowed", "name_not_allowed"),
            ("https://evil.example", &[], "name_not_allowed", ""),
            ("https://evil.example", &["203.0.113.7"], "allow_out", "allow_out"),
            ("ssh://a.good.example", &["198.51.100.1"], "deny_out", "deny_out"),
            (
                "ssh://a.good.example",
                &["198.51.100.1", "203.0.113.7"],
                "allow_out",
                "deny_out allow_out",
            ),
            ("ssh://a.good.example", &[], "name_unresolved", ""),
        ] {
            let question = format!(r#"{{"destination":"{destination}"}}"#);
            let answer = explain_response(NAMES, &question, Some(&resolved_addresses(addresses)))
                .expect("an answer");
            let of_each: Vec<_> =
                answer.addresses.iter().map(|one| reason_label(&one.verdict)).collect();
            assert_eq!(
                (reason_label(&answer.verdict), of_each.join(" ").as_str()),
                (expected, each),
                "{destination} at {addresses:?}"
            );
            assert!(answer.by_port.is_empty(), "the port is known");
        }
    }

    #[test]
    fn what_the_proxy_does_not_dial_is_denied() {
        let own = ResolvedAddress {
            undialable_reason: Some(Reason::HostAddress),
            ..resolved_addresses(&["198.51.100.1"])[0]
        };
        let question = r#"{"destination":"https://a.good.example"}"#;
        let answer = explain_response(NAMES, question, Some(&[own])).expect("an answer");
        assert_eq!(reason_label(&answer.verdict), "host_address");
    }

    #[test]
    fn without_a_port_it_says_what_differs() {
        let ports = |network: &str, question: &str, addresses: &[&str]| {
            let answer = explain_response(network, question, Some(&resolved_addresses(addresses)))
                .expect("an answer");
            let verdict_on =
                |on: &PortVerdict| format!("{}: {}", on.ports, reason_label(&on.verdict));
            let by_port: Vec<_> = answer.by_port.iter().map(verdict_on).collect();
            (reason_label(&answer.verdict), by_port.join("; "))
        };
        let name = r#"{"destination":"a.good.example"}"#;
        let differs = "80, 443: allow_name; others: deny_out".to_owned();
        assert_eq!(ports(NAMES, name, &["198.51.100.1"]), ("allow_name", differs));
        assert_eq!(ports(NAMES, name, &["203.0.113.7"]), ("allow_out", String::new()));
        assert_eq!(ports("{}", name, &["198.51.100.1"]), ("no_rule", String::new()));
        let address = r#"{"destination":"198.51.100.1","host":"a.good.example"}"#;
        let differs = "80, 443: allow_name; others: deny_out".to_owned();
        assert_eq!(ports(NAMES, address, &[]), ("deny_out", differs));
        let udp = r#"{"destination":"198.51.100.1","protocol":"udp"}"#;
        assert_eq!(ports(NAMES, udp, &[]), ("deny_out", String::new()));
    }

    #[test]
    fn without_an_agent_a_name_is_judged_where_its_address_does_not_decide() {
        let offline = |network: &str, destination: &str| {
            let question = format!(r#"{{"destination":"{destination}"}}"#);
            explain_response(network, &question, None).map(|answer| reason_label(&answer.verdict))
        };
        assert_eq!(offline(NAMES, "https://a.good.example"), Ok("allow_name"));
        assert_eq!(offline(NAMES, "a.good.example"), Ok("allow_name"));
        assert_eq!(offline(NAMES, "http://evil.example"), Ok("name_not_allowed"));
        for (network, destination) in [(NAMES, "ssh://a.good.example"), ("{}", "https://a.example")]
        {
            let error = offline(network, destination).expect_err("the address decides");
            assert_eq!(error.field, "destination");
        }
    }

    #[test]
    fn behind_a_tunnel_the_name_need_not_be_known() {
        let network = r#"{"allowOut":["a.example"],"denyOut":["0.0.0.0/0"],
            "egressProxy":{"address":"203.0.113.5:1080"}}"#;
        let question = r#"{"destination":"https://a.example"}"#;
        let answer = explain_response(network, question, Some(&[])).expect("an answer");
        assert!(answer.verdict.explanation.allowed && answer.verdict.explanation.tunnel);
    }

    #[test]
    fn the_rule_for_a_name_is_told_without_values() {
        const RULES: &str = r#"{"allowOut":["api.good.example","203.0.113.7"],
            "denyOut":["0.0.0.0/0"],"rules":{"*.good.example":[{"transform":{"headers":
            {"Authorization":"hunter2"}}}]}}"#;
        let rule = |destination: &str| {
            let request: ExplainRequest = parse_json(destination.as_bytes()).expect("a request");
            let network: NetworkConfig = parse_json(RULES.as_bytes()).expect("a network");
            let floor = Floor::default();
            let policy = Policy::new(&network, None, &PolicyDefaults::default(), &floor);
            let query = request.to_query().expect("a query");
            let response = ExplainResponse::new(&policy.expect("a policy"), &floor, &query, None);
            let response = serde_json::to_value(response.expect("a verdict")).expect("JSON");
            assert!(!response.to_string().contains("hunter2"), "{response}");
            response.get("headerRule").cloned()
        };
        let applied = rule(r#"{"destination":"https://api.good.example"}"#).expect("a rule");
        assert_eq!(applied["key"], "*.good.example");
        assert_eq!(applied["headers"], serde_json::json!(["authorization"]));
        assert_eq!(applied["applied"], true);
        for (request, why) in [
            (r#"{"destination":"other.good.example"}"#, "allowOut has to hold the name"),
            (r#"{"destination":"http://api.good.example"}"#, "port 443 only"),
            (
                r#"{"destination":"203.0.113.7","port":443,"host":"api.good.example"}"#,
                "no header is set",
            ),
        ] {
            let rule = rule(request).expect("a rule");
            assert_eq!(rule["applied"], false, "{request}");
            assert!(rule["help"].as_str().is_some_and(|help| help.contains(why)), "{rule}");
        }
        assert_eq!(rule(r#"{"destination":"good.example"}"#), None);
    }
}
