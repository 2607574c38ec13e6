//! What `explain` answers: a verdict, and where the question leaves something open, what depends on
//! it: each address of a name, and ports.

use std::net::IpAddr;

use policy_common::reason::Reason;
use serde::Serialize;
use utoipa::ToSchema;

use super::Asked;
use crate::{
    policy::{Destination, Explanation, Floor, Host, Invalid, Names, Policy, by_name, explain},
    proxy::Found,
};

/// IP protocol number of TCP.
const TCP: u8 = 6;
/// TCP ports on which names count.
const NAMED: [u16; 2] = [80, 443];

/// The explanation, and what its reason means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Verdict {
    /// What decided.
    #[serde(flatten)]
    pub explanation: Explanation,
    /// One sentence for people.
    pub help: &'static str,
}

/// The verdict, and those that it depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Of a name: allowed if one of its addresses is. Without a port, a name is judged as on TCP ports
    /// 80 and 443, and an address as on a port that means nothing special.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The name that the connection asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The addresses of the destination, if that is a name, as the egress proxy finds them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<OfAddress>,
    /// Where no port is given, and the port decides: what happens on which.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub by_port: Vec<OnPorts>,
}

/// The verdict about one address of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct OfAddress {
    /// The address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Its verdict.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// The verdict on some ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct OnPorts {
    /// `80, 443` or `others`.
    pub ports: &'static str,
    /// Their verdict.
    #[serde(flatten)]
    pub verdict: Verdict,
}

impl From<Explanation> for Verdict {
    fn from(explanation: Explanation) -> Self {
        Self { help: explanation.reason.help(), explanation }
    }
}

impl Answer {
    /// The answer under a policy and the floor. `found`: the addresses of the destination, if that is
    /// a name; `None`: nobody was asked for them.
    ///
    /// # Errors
    /// Its address decides about the name, and nobody was asked for it.
    pub fn new(
        policy: &Policy,
        floor: &Floor,
        asked: &Asked,
        found: Option<&[Found]>,
    ) -> Result<Self, Invalid> {
        let case = Case { policy, floor, asked, found };
        let open = asked.port.is_none() && asked.protocol == TCP && policy.has_names();
        let is_name = matches!(asked.to, Host::Name(_));
        let port = if open && is_name { Some(NAMED[1]) } else { asked.port };
        let (verdict, addresses) = case.verdict(port)?;
        let by_port = if open { case.by_port() } else { Vec::new() };
        Ok(Self { verdict, host: asked.host.clone(), port: asked.port, addresses, by_port })
    }
}

/// What is judged.
struct Case<'a> {
    policy: &'a Policy,
    floor: &'a Floor,
    asked: &'a Asked,
    found: Option<&'a [Found]>,
}

impl Case<'_> {
    /// The verdict on a port, and those about each address of a name.
    fn verdict(&self, port: Option<u16>) -> Result<(Verdict, Vec<OfAddress>), Invalid> {
        match (&self.asked.to, self.found) {
            (Host::Address(address), _) => {
                Ok((self.at(*address, port, self.floor).into(), Vec::new()))
            }
            (Host::Name(_), None) => Ok((self.unresolved(port, true)?.into(), Vec::new())),
            (Host::Name(_), Some([])) => Ok((self.unresolved(port, false)?.into(), Vec::new())),
            (Host::Name(_), Some(found)) => {
                let of = |found: &Found| OfAddress {
                    address: found.address,
                    verdict: self.of_found(*found, port).into(),
                };
                let all: Vec<_> = found.iter().map(of).collect();
                let decides = all.iter().find(|one| one.verdict.explanation.allowed);
                let decides = decides.unwrap_or(&all[0]).verdict.clone();
                Ok((decides, all))
            }
        }
    }

    /// The two verdicts that a port decides between, where they differ and can be told.
    fn by_port(&self) -> Vec<OnPorts> {
        let on = |ports, port| {
            let (verdict, _) = self.verdict(port).ok()?;
            Some(OnPorts { ports, verdict })
        };
        let both: Vec<_> =
            [on("80, 443", Some(NAMED[1])), on("others", None)].into_iter().flatten().collect();
        match both.as_slice() {
            [named, others] if named.verdict != others.verdict => both,
            _ => Vec::new(),
        }
    }

    fn at(&self, address: IpAddr, port: Option<u16>, floor: &Floor) -> Explanation {
        let Asked { protocol, host, .. } = self.asked;
        let packet = Destination { address, protocol: *protocol, port, host: host.clone() };
        explain(self.policy, floor, &packet)
    }

    /// Where the egress proxy makes the connection, it looks at the address as well.
    fn of_found(&self, found: Found, port: Option<u16>) -> Explanation {
        let floor = if found.is_gateway { &self.floor.with_host(&[]) } else { self.floor };
        let explanation = self.at(found.address, port, floor);
        let dialled = explanation.reason == Reason::AllowName && !explanation.tunnel;
        match found.closed.filter(|_| dialled) {
            Some(reason) => refused(reason),
            None => explanation,
        }
    }

    /// The verdict about a name whose address is not known.
    fn unresolved(
        &self,
        port: Option<u16>,
        nobody_was_asked: bool,
    ) -> Result<Explanation, Invalid> {
        let decided = self.by_name_alone(port);
        match decided {
            Some(decided) if nobody_was_asked || !decided.allowed || decided.tunnel => Ok(decided),
            None if nobody_was_asked => {
                let problem = "its address decides here, and is not looked up without an agent; \
                               give the address in place of the name";
                Err(Invalid::entry("destination", self.asked.to.to_string(), problem))
            }
            _ => Ok(refused(Reason::NameUnresolved)),
        }
    }

    /// What the egress proxy decides by the name, if it is the one to decide.
    fn by_name_alone(&self, port: Option<u16>) -> Option<Explanation> {
        let named = self.asked.protocol == TCP && port.is_some_and(|port| NAMED.contains(&port));
        if !named || !self.policy.has_names() {
            return None;
        }
        let (host, nowhere) = (self.asked.host.as_deref(), IpAddr::from([0, 0, 0, 0]));
        let names = Names::of(self.policy);
        let decided = by_name(self.policy, &names, self.floor, host, nowhere);
        let by_the_name = [Reason::AllowName, Reason::NameNotAllowed, Reason::InvalidName]
            .contains(&decided.reason);
        by_the_name.then_some(decided)
    }
}

/// A refusal of the egress proxy.
fn refused(reason: Reason) -> Explanation {
    let line = reason.line();
    Explanation { allowed: false, reason, line, rule: None, by_name: true, tunnel: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::Question,
        policy::{Defaults, NetworkConfig, parse},
    };

    const NAMES: &str = r#"{"allowOut":["*.good.example","203.0.113.7"],"denyOut":["0.0.0.0/0"]}"#;

    fn found(addresses: &[&str]) -> Vec<Found> {
        let one = |text: &&str| Found {
            address: text.parse().expect(text),
            closed: None,
            is_gateway: false,
        };
        addresses.iter().map(one).collect()
    }

    fn answer(network: &str, question: &str, found: Option<&[Found]>) -> Result<Answer, Invalid> {
        let network: NetworkConfig = parse(network.as_bytes()).expect(network);
        let floor = Floor::default();
        let policy = Policy::new(&network, None, &Defaults::default(), &floor).expect("a policy");
        let question: Question = parse(question.as_bytes()).expect(question);
        Answer::new(&policy, &floor, &question.asked().expect("a question"), found)
    }

    fn reason(verdict: &Verdict) -> &'static str {
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
            let answer = answer(NAMES, &question, Some(&found(addresses))).expect("an answer");
            let of_each: Vec<_> = answer.addresses.iter().map(|one| reason(&one.verdict)).collect();
            assert_eq!(
                (reason(&answer.verdict), of_each.join(" ").as_str()),
                (expected, each),
                "{destination} at {addresses:?}"
            );
            assert!(answer.by_port.is_empty(), "the port is known");
        }
    }

    #[test]
    fn what_the_proxy_does_not_dial_is_denied() {
        let own = Found { closed: Some(Reason::HostAddress), ..found(&["198.51.100.1"])[0] };
        let question = r#"{"destination":"https://a.good.example"}"#;
        let answer = answer(NAMES, question, Some(&[own])).expect("an answer");
        assert_eq!(reason(&answer.verdict), "host_address");
    }

    #[test]
    fn without_a_port_it_says_what_differs() {
        let ports = |network: &str, question: &str, addresses: &[&str]| {
            let answer = answer(network, question, Some(&found(addresses))).expect("an answer");
            let on = |on: &OnPorts| format!("{}: {}", on.ports, reason(&on.verdict));
            let by_port: Vec<_> = answer.by_port.iter().map(on).collect();
            (reason(&answer.verdict), by_port.join("; "))
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
            answer(network, &question, None).map(|answer| reason(&answer.verdict))
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
        let answer = answer(network, question, Some(&[])).expect("an answer");
        assert!(answer.verdict.explanation.allowed && answer.verdict.explanation.tunnel);
    }
}
