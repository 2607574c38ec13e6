//! A proxy with one sandbox, and servers for it to connect to.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, bail};
use ipnet::IpNet;
use policy_common::{counters::ReasonCounters, rate_limit::RateLimiterState};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};

use super::fake_network::{FakeNetwork, FakeNetworkState};
use crate::{
    agent::{
        ActivePolicy, DataplaneControl, InterfaceState, PlatformPolicy, ProxyControl as _,
        SandboxProxyCounters,
    },
    dataplane::{
        self, EndpointAddresses, ExpeditedSection, HostInterface, PolicyId, ProbePacket,
        PublishedPolicy, Slot,
    },
    events::{EventBuffer, EventFilter, PolicyEvent},
    policy::{CompiledPolicy, DomainName, DomainSet, Floor, PolicyDefaults, SandboxId, parse_json},
    proxy::{ProxySettings, ProxyTimeouts, TransparentProxy},
    secrets::SecretStore,
    traffic_workers::TrafficWorkers,
};

/// Longer than any operation that a test waits for.
pub(super) const TEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Listen addresses of the agent's own gateway.
pub(super) const GATEWAY_LISTENERS: [&str; 2] = ["203.0.113.5:80", "0.0.0.0:4430"];

/// A kernel that does nothing. The event buffer needs one.
struct NoKernel;

impl DataplaneControl for NoKernel {
    fn interface_state(&self, _: &HostInterface) -> InterfaceState {
        InterfaceState::NoInterface
    }

    fn host_addresses(&self, _: Option<&Path>) -> Result<Vec<IpNet>> {
        Ok(Vec::new())
    }

    fn carries_default_route(&self, _: &HostInterface) -> Result<bool> {
        Ok(false)
    }

    fn prepare_slot(&self, _: Slot, _: &EndpointAddresses) -> Result<()> {
        bail!("no kernel")
    }

    fn expedite_attaching(&self) -> Option<ExpeditedSection<'_>> {
        None
    }

    fn attach(&self, _: &str, _: Slot, _: &HostInterface) -> Result<()> {
        bail!("no kernel")
    }

    fn is_attached(&self, _: &str, _: Slot, _: &HostInterface) -> Result<bool> {
        bail!("no kernel")
    }

    fn guard_interface(&self, _: &str, _: Slot, _: &HostInterface) -> Result<()> {
        bail!("no kernel")
    }

    fn release_guard(&self, _: &str) -> Result<()> {
        bail!("no kernel")
    }

    fn publish(&self, _: &[Slot], _: &CompiledPolicy) -> Result<PolicyId> {
        bail!("no kernel")
    }

    fn published_policy(&self, _: Slot) -> Result<Option<PublishedPolicy>> {
        bail!("no kernel")
    }

    fn probe(&self, _: Slot, _: ProbePacket) -> Result<bool> {
        bail!("no kernel")
    }

    fn is_guarded(&self, _: &str) -> Result<Option<bool>> {
        Ok(None)
    }

    fn restore_pins(&self) -> Result<()> {
        bail!("no kernel")
    }

    fn detach(&self, _: &str) -> Result<()> {
        bail!("no kernel")
    }

    fn is_bridge_port(&self, _: &HostInterface) -> Result<bool> {
        bail!("no kernel")
    }

    fn open_listeners(&self, _: Slot, _: &HostInterface) -> Result<dataplane::RedirectListeners> {
        bail!("no kernel")
    }

    fn close_listeners(&self, _: Slot) -> Result<()> {
        bail!("no kernel")
    }

    fn release_slot(&self, _: Slot) -> Result<()> {
        bail!("no kernel")
    }

    fn counters(&self, _: Slot) -> Result<ReasonCounters> {
        bail!("no kernel")
    }

    fn rate_limits(&self, _: Slot) -> Result<RateLimiterState> {
        bail!("no kernel")
    }

    fn set_observed(&self, _: Slot, _: bool) -> Result<()> {
        Ok(())
    }

    fn set_flow_reporting(&self, _: bool) -> Result<()> {
        Ok(())
    }

    fn attached_pin_names(&self) -> Result<Vec<String>> {
        bail!("no kernel")
    }

    fn attached_slot(&self, _: &str) -> Result<Option<Slot>> {
        bail!("no kernel")
    }
}

/// A proxy with one sandbox.
pub(super) struct ProxyHarness {
    pub proxy: Arc<TransparentProxy>,
    pub network: Arc<FakeNetworkState>,
    pub event_buffer: Arc<EventBuffer>,
    pub slot: Slot,
    pub proxy_counters: Arc<SandboxProxyCounters>,
    pub proxy_address: SocketAddr,
    _state_dir: TempDir,
}

/// Timeouts short enough to wait for in tests.
pub(super) fn test_timeouts() -> ProxyTimeouts {
    ProxyTimeouts {
        name_detection: Duration::from_millis(300),
        connect: Duration::from_millis(600),
        attempt_delay: Duration::from_millis(50),
        egress_proxy: Duration::from_millis(600),
        ..ProxyTimeouts::default()
    }
}

/// A policy that allows only these domains.
pub(super) fn policy_allowing(names: &[&str]) -> Arc<ActivePolicy> {
    let list = serde_json::to_string(names).expect("JSON");
    policy_from_json(
        &format!(r#"{{"allowOut":{list},"denyOut":["0.0.0.0/0"]}}"#),
        &Floor::default(),
    )
}

/// A policy from the JSON of a `network`.
pub(super) fn policy_from_json(network: &str, floor: &Floor) -> Arc<ActivePolicy> {
    let platform_policy =
        PlatformPolicy { floor: floor.clone(), defaults: PolicyDefaults::default() };
    let network = parse_json(network.as_bytes()).expect("a network");
    let policy = platform_policy.policy_for_network(&network, None).expect("a policy");
    let names = DomainSet::from_policy(&policy);
    let floor = Arc::new(platform_policy.floor);
    Arc::new(ActivePolicy { network, policy, floor, names, digest: [0; 16] })
}

impl ProxyHarness {
    /// A sandbox whose connections go to this address.
    pub(super) async fn new(active_policy: &Arc<ActivePolicy>, destination: &str) -> Self {
        Self::with_settings(active_policy, destination, Floor::default(), test_timeouts(), 64).await
    }

    pub(super) async fn with_settings(
        active_policy: &Arc<ActivePolicy>,
        destination: &str,
        floor: Floor,
        timeouts: ProxyTimeouts,
        limit: u32,
    ) -> Self {
        let state = Arc::<FakeNetworkState>::default();
        *state.destination.lock().unwrap() = Some(destination.parse().expect(destination));
        let platform_policy = PlatformPolicy { floor, defaults: PolicyDefaults::default() };
        let event_buffer = Arc::new(EventBuffer::new(Arc::new(NoKernel), Arc::default()));
        let network = Box::new(FakeNetwork(Arc::clone(&state)));
        let state_dir = tempfile::tempdir().expect("a directory");
        let settings = ProxySettings {
            resolvers: Vec::new(),
            max_connections_per_sandbox: limit,
            with_gateway: false,
            info_host: Some(DomainName::parse("policy.internal").expect("a name")),
            state_dir: state_dir.path().to_owned(),
            extra_roots: None,
            secrets: SecretStore::default(),
            gateway_listeners: GATEWAY_LISTENERS.map(|at| at.parse().expect(at)).to_vec(),
        };
        let proxy = TransparentProxy::with_network(
            network,
            timeouts,
            settings,
            platform_policy.into(),
            Arc::clone(&event_buffer),
            TrafficWorkers::of_current_runtime(),
        )
        .expect("a proxy");
        let slot = Slot::new(3).expect("a slot");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let proxy_address = listener.local_addr().expect("an address");
        let id: SandboxId = "web".parse().expect("an ID");
        let listeners = dataplane::RedirectListeners { v4: Some(listener), v6: None };
        let proxy_counters = Arc::<SandboxProxyCounters>::default();
        proxy.open_listeners(slot, &id, &proxy_counters, active_policy, listeners).expect("opens");
        Self {
            proxy: Arc::new(proxy),
            network: state,
            event_buffer,
            slot,
            proxy_counters,
            proxy_address,
            _state_dir: state_dir,
        }
    }

    /// Makes a name resolve to these addresses.
    pub(super) fn set_name(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|text| text.parse::<IpAddr>().expect(text)).collect();
        self.network.names.lock().unwrap().insert(name.to_owned(), addresses);
    }

    /// Makes `server` reachable at an address.
    pub(super) fn set_server(&self, at: &str, server: SocketAddr) {
        self.network.servers.lock().unwrap().insert(at.parse().expect(at), server);
    }

    /// Creates a listener, reachable under this name and address.
    pub(super) async fn listen(&self, name: &str, address: &str, port: u16) -> TcpListener {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        self.set_name(name, &[address]);
        let at = SocketAddr::new(address.parse().expect(address), port);
        self.set_server(&at.to_string(), listener.local_addr().expect("an address"));
        listener
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.proxy_address).await.expect("the listener accepts")
    }

    pub(super) fn active(&self) -> usize {
        self.proxy.active_connections(self.slot)
    }

    /// Reasons and names of all events.
    pub(super) fn events(&self) -> Vec<(&'static str, Option<String>)> {
        let all = self.event_buffer.recent(&all_events());
        all.iter().map(|event| (event.reason, event.name.clone())).collect()
    }

    /// Waits for the first event.
    pub(super) async fn first_event(&self) -> Arc<PolicyEvent> {
        let filter = all_events();
        wait_until("an event", || !self.event_buffer.recent(&filter).is_empty()).await;
        Arc::clone(&self.event_buffer.recent(&filter)[0])
    }

    /// The counters in Prometheus format.
    pub(super) fn connection_counts(&self) -> String {
        let line = |(protocol, decision, count)| {
            format!("protocol=\"{protocol}\",decision=\"{decision}\"}} {count}\n")
        };
        self.proxy_counters.connection_counts().map(line).collect()
    }
}

/// Selects denials and flows.
fn all_events() -> EventFilter {
    EventFilter { include_flows: true, ..EventFilter::default() }
}

/// Waits until a condition holds.
pub(super) async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + TEST_TIMEOUT;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(1)).await;
    }
}

/// Reads a stream to its end. A reset is an error.
pub(super) async fn read_all(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    timeout(TEST_TIMEOUT, stream.read_to_end(&mut bytes)).await.expect("it ends in time")?;
    Ok(bytes)
}

/// Reads exactly these bytes.
pub(super) async fn expect_bytes(stream: &mut TcpStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    timeout(TEST_TIMEOUT, stream.read_exact(&mut bytes)).await.expect("in time").expect("bytes");
    assert_eq!(bytes, expected);
}

/// Whether the stream is reset, as opposed to closed.
pub(super) async fn is_reset(stream: &mut TcpStream) -> bool {
    let read = read_all(stream).await;
    matches!(read, Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset)
}

/// The description of the TLS alert (RFC 8446, 6) that a stream receives before it is closed.
pub(super) async fn read_alert(stream: &mut TcpStream) -> u8 {
    let bytes = read_all(stream).await.expect("no reset");
    match bytes[..] {
        [21, 3, 1..=3, 0, 2, 2, description] => description,
        _ => panic!("{bytes:?}"),
    }
}

/// Accepts the next connection of a listener.
pub(super) async fn accept_next(listener: &TcpListener) -> TcpStream {
    timeout(TEST_TIMEOUT, listener.accept()).await.expect("in time").expect("a connection").0
}

/// Sends a request and reads to the end of the stream.
pub(super) async fn exchange(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.expect("sends");
    let response = read_all(stream).await.expect("an answer");
    String::from_utf8(response).expect("text")
}
