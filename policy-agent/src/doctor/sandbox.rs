//! Checks whether one sandbox is enforced as its policy says: its interface, its programs, a packet
//! through them, its guard, its listeners, its names and its secrets.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use tokio::task::{JoinError, spawn_blocking};

use super::{DoctorFinding, FindingState};
use crate::{
    agent::{
        ActivePolicy, Agent, DataplaneControl, InterfaceState, ProxyControl as _, Sandbox,
        endpoint_addresses_for, interface_for,
    },
    dataplane::ProbePacket,
    policy::{DomainName, DomainPattern, SecretLookup, evaluate::evaluate_packet},
    proxy::TransparentProxy,
};

/// Destinations of the probe, besides what the sandbox may reach: addresses for documentation.
const PROBE_DESTINATIONS: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1)),
    IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];
/// Maximum number of other destinations that are considered.
const MAX_CANDIDATES: usize = 16;
/// Maximum number of names that are resolved.
const MAX_NAMES: usize = 8;
/// What repairs most differences between the agent and the kernel.
const WAIT_FIX: &str =
    "wait two seconds, after which the agent repairs it; if it stays, the agent's log says why";

/// Runs all checks of a sandbox.
///
/// # Errors
/// The agent is stopping.
pub(crate) async fn sandbox_checks(
    sandbox: &Arc<Sandbox>,
    agent: &Agent,
    proxy: &TransparentProxy,
    secrets: &dyn SecretLookup,
) -> Result<Vec<DoctorFinding>, JoinError> {
    let (dataplane, checked) = (Arc::clone(agent.dataplane()), Arc::clone(sandbox));
    let mut findings = spawn_blocking(move || check_kernel(&*dataplane, &checked)).await?;
    findings.extend(check_listeners(sandbox, proxy));
    findings.extend(check_names(sandbox, proxy).await);
    findings.extend(check_secrets(sandbox, secrets));
    Ok(findings)
}

/// What the kernel has. Blocks.
fn check_kernel(dataplane: &dyn DataplaneControl, sandbox: &Sandbox) -> Vec<DoctorFinding> {
    let interface = check_interface(dataplane, sandbox);
    if interface.state == FindingState::Missing {
        return vec![interface];
    }
    vec![
        interface,
        check_programs(dataplane, sandbox),
        check_policy(dataplane, sandbox),
        check_verdict(dataplane, sandbox),
        check_guard(dataplane, sandbox),
    ]
}

fn check_interface(dataplane: &dyn DataplaneControl, sandbox: &Sandbox) -> DoctorFinding {
    const WHAT: &str = "interface";
    let interface = interface_for(&sandbox.base_spec);
    match dataplane.interface_state(&interface) {
        InterfaceState::Present(index) => {
            DoctorFinding::ok(WHAT, format!("{}, index {index}", interface.name))
        }
        InterfaceState::NoInterface => DoctorFinding::missing(
            WHAT,
            format!("{} does not exist, so nothing passes", interface.name),
            "create it: the agent attaches it at once",
        ),
        InterfaceState::NoNamespace(problem) | InterfaceState::Unknown(problem) => {
            let found = format!("{}: {problem}", interface.name);
            DoctorFinding::missing(WHAT, found, "correct netns and interface of the sandbox")
        }
    }
}

fn check_programs(dataplane: &dyn DataplaneControl, sandbox: &Sandbox) -> DoctorFinding {
    const WHAT: &str = "programs";
    let interface = interface_for(&sandbox.base_spec);
    match dataplane.is_attached(&sandbox.pin_name, sandbox.slot, &interface) {
        Ok(true) => DoctorFinding::ok(WHAT, format!("attached, slot {}", sandbox.slot.get())),
        Ok(false) => DoctorFinding::missing(WHAT, "not attached to the interface", WAIT_FIX),
        Err(error) => DoctorFinding::missing(WHAT, format!("{error:#}"), WAIT_FIX),
    }
}

fn check_policy(dataplane: &dyn DataplaneControl, sandbox: &Sandbox) -> DoctorFinding {
    const WHAT: &str = "policy";
    let published = dataplane.published_policy(sandbox.slot);
    match published.map(|published| published.map(|it| it.policy_id)) {
        Ok(in_force) if in_force == sandbox.policy_id && in_force.is_some() => {
            DoctorFinding::ok(WHAT, format!("in force: {}", sandbox.reported_status()))
        }
        Ok(_) => {
            let found = format!("not the one in force: {}", sandbox.reported_status());
            DoctorFinding::missing(WHAT, found, "apply it again; the agent's log says what failed")
        }
        Err(error) => DoctorFinding::missing(WHAT, format!("{error:#}"), WAIT_FIX),
    }
}

/// Compares the kernel's verdict on a packet with that of the policy.
fn check_verdict(dataplane: &dyn DataplaneControl, sandbox: &Sandbox) -> DoctorFinding {
    const WHAT: &str = "verdict";
    let active = &sandbox.active_policy;
    let identity = endpoint_addresses_for(&sandbox.base_spec);
    let allowed = active.policy.allowed_networks().map(IpNet::addr);
    let destinations = allowed.chain(active.policy.nameservers().iter().copied());
    let destinations = destinations.take(MAX_CANDIDATES).chain(PROBE_DESTINATIONS);
    let packets = destinations.filter_map(|address| ProbePacket::new(&identity, address));
    let judged: Vec<_> = packets.map(|packet| (packet, is_allowed_by(active, &packet))).collect();
    // A packet that passes leaves no denial in the record.
    let chosen = judged.iter().find(|(_, is_allowed)| *is_allowed).or(judged.first());
    let Some(&(packet, is_allowed)) = chosen else {
        return DoctorFinding::degraded(WHAT, "the sandbox has no address", "apply it with one");
    };
    let address = packet.destination().address;
    let words = |passes: bool| if passes { "passes" } else { "is dropped" };
    match dataplane.probe(sandbox.slot, packet) {
        Ok(passes) if passes == is_allowed => {
            DoctorFinding::ok(WHAT, format!("a datagram to {address} {}", words(passes)))
        }
        Ok(passes) => {
            let (seen, due) = (words(passes), words(is_allowed));
            let found = format!("a datagram to {address} {seen}, by the policy it {due}");
            DoctorFinding::missing(WHAT, found, "apply the sandbox again, and report this")
        }
        Err(error) => DoctorFinding::degraded(WHAT, format!("{error:#}"), "look as root"),
    }
}

fn is_allowed_by(active: &ActivePolicy, packet: &ProbePacket) -> bool {
    evaluate_packet(&active.policy, &active.floor, &packet.destination()).allowed
}

fn check_guard(dataplane: &dyn DataplaneControl, sandbox: &Sandbox) -> DoctorFinding {
    const WHAT: &str = "guard";
    match dataplane.is_guarded(&sandbox.pin_name) {
        Ok(Some(true)) => DoctorFinding::ok(WHAT, "drops what comes past the programs"),
        Ok(None) => DoctorFinding::ok(WHAT, "off: dataplane.guard"),
        Ok(Some(false)) => DoctorFinding::degraded(
            WHAT,
            "what comes past the programs is not dropped",
            "the agent's log says why; `policy-agent doctor` says what the host lacks",
        ),
        Err(error) => DoctorFinding::degraded(WHAT, format!("{error:#}"), WAIT_FIX),
    }
}

/// The listeners of the egress proxy, if the policy needs them.
fn check_listeners(sandbox: &Sandbox, proxy: &TransparentProxy) -> Option<DoctorFinding> {
    const WHAT: &str = "proxy";
    if !sandbox.active_policy.needs_proxy() {
        return None;
    }
    Some(match proxy.has_listeners(sandbox.slot) {
        true => {
            let count = proxy.active_connections(sandbox.slot);
            DoctorFinding::ok(WHAT, format!("listens, {count} connections"))
        }
        false => DoctorFinding::missing(WHAT, "has no listeners: names are denied", WAIT_FIX),
    })
}

/// Resolves names of `allowOut` as the proxy does.
async fn check_names(sandbox: &Sandbox, proxy: &TransparentProxy) -> Vec<DoctorFinding> {
    let domains = sandbox.active_policy.policy.domains();
    let names = domains.filter_map(|(_, pattern)| match pattern {
        DomainPattern::Exact(name) => Some(name),
        DomainPattern::Subdomains(_) | DomainPattern::AnyDomain => None,
    });
    let mut findings = Vec::new();
    for name in names.take(MAX_NAMES) {
        findings.push(check_name(name, proxy).await);
    }
    findings
}

async fn check_name(name: &DomainName, proxy: &TransparentProxy) -> DoctorFinding {
    const WHAT: &str = "name";
    let addresses = proxy.lookup_addresses(name, None).await;
    if addresses.is_empty() {
        let fix = "correct the entry in allowOut, or [proxy] resolvers";
        return DoctorFinding::degraded(WHAT, format!("{name} does not resolve"), fix);
    }
    let dialable = addresses.iter().filter(|address| address.undialable_reason.is_none()).count();
    if dialable == 0 {
        let found = format!("{name}: none of its {} addresses can be dialed", addresses.len());
        let fix = format!("see what `policy-agent explain` says of {name}");
        return DoctorFinding::degraded(WHAT, found, fix);
    }
    DoctorFinding::ok(WHAT, format!("{name}, {dialable} addresses"))
}

/// The secrets that `network.rules` refer to.
fn check_secrets(sandbox: &Sandbox, secrets: &dyn SecretLookup) -> Vec<DoctorFinding> {
    const WHAT: &str = "secret";
    let mut findings = Vec::new();
    for rule in sandbox.active_policy.policy.header_rules().iter() {
        for name in rule.headers().flat_map(|(_, template)| template.secrets()) {
            findings.push(match secrets.current_value(name) {
                Some(_) => DoctorFinding::ok(WHAT, format!("{name}, for {}", rule.key())),
                None => DoctorFinding::missing(
                    WHAT,
                    format!("there is no secret {name}: requests to {} get 502", rule.key()),
                    format!("policy-agent secrets set {name} < FILE"),
                ),
            });
        }
    }
    findings
}
