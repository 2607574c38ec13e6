//! One sandbox with a door, and what it may talk to.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, bail};
use ipnet::IpNet;
use policy_common::{counter::Counters, limit::Limits};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};

use super::network::{StandIn, World};
use crate::{
    agent::{Egress as _, Kernel, Law, Presence, Rules, Tally},
    dataplane::{self, Identity, Interface, PolicyId, Published, Slot},
    events::{Filter, Hub, Record},
    policy::{Compiled, Defaults, Floor, Names, SandboxId, parse},
    proxy::{Patience, Proxy, Settings},
};

/// Longer than anything takes that a test waits for.
pub const SOON: Duration = Duration::from_secs(10);

/// Where the agent's own gateway listens.
pub const GATEWAY: [&str; 2] = ["203.0.113.5:80", "0.0.0.0:4430"];

/// A kernel that does nothing: events need one.
struct NoKernel;

impl Kernel for NoKernel {
    fn presence(&self, _: &Interface) -> Presence {
        Presence::NoInterface
    }

    fn host_addresses(&self, _: Option<&Path>) -> Result<Vec<IpNet>> {
        Ok(Vec::new())
    }

    fn carries_default_route(&self, _: &Interface) -> Result<bool> {
        Ok(false)
    }

    fn prepare(&self, _: Slot, _: &Identity) -> Result<()> {
        bail!("no kernel")
    }

    fn attach(&self, _: &str, _: Slot, _: &Interface) -> Result<()> {
        bail!("no kernel")
    }

    fn is_attached(&self, _: &str, _: Slot, _: &Interface) -> Result<bool> {
        bail!("no kernel")
    }

    fn publish(&self, _: &[Slot], _: &Compiled) -> Result<PolicyId> {
        bail!("no kernel")
    }

    fn published(&self, _: Slot) -> Result<Option<Published>> {
        bail!("no kernel")
    }

    fn restore_pins(&self) -> Result<()> {
        bail!("no kernel")
    }

    fn detach(&self, _: &str) -> Result<()> {
        bail!("no kernel")
    }

    fn is_port(&self, _: &Interface) -> Result<bool> {
        bail!("no kernel")
    }

    fn open_door(&self, _: Slot, _: &Interface) -> Result<dataplane::Door> {
        bail!("no kernel")
    }

    fn close_door(&self, _: Slot) -> Result<()> {
        bail!("no kernel")
    }

    fn release(&self, _: Slot) -> Result<()> {
        bail!("no kernel")
    }

    fn counters(&self, _: Slot) -> Result<Counters> {
        bail!("no kernel")
    }

    fn limits(&self, _: Slot) -> Result<Limits> {
        bail!("no kernel")
    }

    fn report_flows(&self, _: bool) -> Result<()> {
        Ok(())
    }

    fn attached_ids(&self) -> Result<Vec<String>> {
        bail!("no kernel")
    }

    fn attached_slot(&self, _: &str) -> Result<Option<Slot>> {
        bail!("no kernel")
    }
}

/// A sandbox with a door.
pub struct Stage {
    pub proxy: Arc<Proxy>,
    pub world: Arc<World>,
    pub hub: Arc<Hub>,
    pub slot: Slot,
    pub tally: Arc<Tally>,
    pub door: SocketAddr,
}

/// Times that tests can wait for.
pub fn patience() -> Patience {
    Patience {
        ask: Duration::from_millis(300),
        connect: Duration::from_millis(600),
        stagger: Duration::from_millis(50),
        tunnel: Duration::from_millis(600),
        ..Patience::default()
    }
}

/// Rules that let these domains out, and nothing else.
pub fn names(names: &[&str]) -> Arc<Rules> {
    let list = serde_json::to_string(names).expect("JSON");
    rules(&format!(r#"{{"allowOut":{list},"denyOut":["0.0.0.0/0"]}}"#), &Floor::default())
}

/// Rules from a `network`.
pub fn rules(network: &str, floor: &Floor) -> Arc<Rules> {
    let law = Law { floor: floor.clone(), defaults: Defaults::default() };
    let network = parse(network.as_bytes()).expect("a network");
    let policy = law.judge_network(&network, None).expect("a policy");
    let names = Names::of(&policy);
    let floor = Arc::new(law.floor);
    Arc::new(Rules { network, policy, floor, names, digest: [0; 16] })
}

impl Stage {
    /// A sandbox whose connections are for this address.
    pub async fn new(rules: &Arc<Rules>, destination: &str) -> Self {
        Self::with(rules, destination, Floor::default(), patience(), 64).await
    }

    pub async fn with(
        rules: &Arc<Rules>,
        destination: &str,
        floor: Floor,
        patience: Patience,
        limit: u32,
    ) -> Self {
        let world = Arc::<World>::default();
        *world.destination.lock().unwrap() = Some(destination.parse().expect(destination));
        let law = Arc::new(Law { floor, defaults: Defaults::default() });
        let hub = Arc::new(Hub::new(Arc::new(NoKernel)));
        let network = Box::new(StandIn(world.clone()));
        let settings = Settings {
            resolvers: Vec::new(),
            max_connections_per_sandbox: limit,
            with_gateway: false,
            gateway: GATEWAY.map(|at| at.parse().expect(at)).to_vec(),
        };
        let proxy = Proxy::with(network, patience, settings, law, hub.clone()).expect("a proxy");
        let slot = Slot::new(3).expect("a slot");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let door = listener.local_addr().expect("an address");
        let id: SandboxId = "web".parse().expect("an ID");
        let listeners = dataplane::Door { v4: Some(listener), v6: None };
        let tally = Arc::<Tally>::default();
        proxy.open(slot, &id, &tally, rules, listeners).expect("opens");
        Self { proxy: Arc::new(proxy), world, hub, slot, tally, door }
    }

    /// A name leads to these addresses.
    pub fn name(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|text| text.parse::<IpAddr>().expect(text)).collect();
        self.world.names.lock().unwrap().insert(name.to_owned(), addresses);
    }

    /// What is reached at an address.
    pub fn server(&self, at: &str, server: SocketAddr) {
        self.world.servers.lock().unwrap().insert(at.parse().expect(at), server);
    }

    /// A listener that is reached at an address under a name.
    pub async fn listen(&self, name: &str, address: &str, port: u16) -> TcpListener {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        self.name(name, &[address]);
        let at = SocketAddr::new(address.parse().expect(address), port);
        self.server(&at.to_string(), listener.local_addr().expect("an address"));
        listener
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.door).await.expect("the door is open")
    }

    pub fn active(&self) -> usize {
        self.proxy.active(self.slot)
    }

    /// Reasons and names of the events.
    pub fn events(&self) -> Vec<(&'static str, Option<String>)> {
        let all = self.hub.recent(&Filter { sandbox: None, all: true });
        all.iter().map(|record| (record.reason, record.name.clone())).collect()
    }

    /// The first event.
    pub async fn event(&self) -> Arc<Record> {
        let filter = Filter { sandbox: None, all: true };
        until("an event", || !self.hub.recent(&filter).is_empty()).await;
        self.hub.recent(&filter)[0].clone()
    }

    /// What is counted, as Prometheus would read it.
    pub fn counted(&self) -> String {
        let line = |(protocol, decision, count)| {
            format!("protocol=\"{protocol}\",decision=\"{decision}\"}} {count}\n")
        };
        self.tally.connections().map(line).collect()
    }
}

/// Waits until something is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(1)).await;
    }
}

/// What a stream says until it ends; the error when it is reset.
pub async fn read_all(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    timeout(SOON, stream.read_to_end(&mut bytes)).await.expect("it ends in time")?;
    Ok(bytes)
}

/// Reads exactly these bytes.
pub async fn expect(stream: &mut TcpStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    timeout(SOON, stream.read_exact(&mut bytes)).await.expect("in time").expect("bytes");
    assert_eq!(bytes, expected);
}

/// Whether the stream is reset, not just ended.
pub async fn is_reset(stream: &mut TcpStream) -> bool {
    let read = read_all(stream).await;
    matches!(read, Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset)
}

/// The description of the TLS alert that a stream says before it ends in good order (RFC 8446, 6).
pub async fn alert(stream: &mut TcpStream) -> u8 {
    let said = read_all(stream).await.expect("no reset");
    match said[..] {
        [21, 3, 1..=3, 0, 2, 2, description] => description,
        _ => panic!("{said:?}"),
    }
}

/// The next connection that a listener gets.
pub async fn accept(listener: &TcpListener) -> TcpStream {
    timeout(SOON, listener.accept()).await.expect("in time").expect("a connection").0
}

/// Sends, and reads until the end.
pub async fn exchange(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.expect("sends");
    let answer = read_all(stream).await.expect("an answer");
    String::from_utf8(answer).expect("text")
}
