//! A sandbox with a policy in the dataplane, and its proxy listeners.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
};

use policy_agent::{
    dataplane::{
        Dataplane, DenyAction, HostInterface, InboundSource, RedirectListeners, Slot, TableKind,
    },
    policy::{self, Floor, NetworkConfig, Policy, PolicyDefaults},
};
use policy_common::reason::Reason;
use policy_integration::program_runner;
use policy_testbed::{
    network::{BpffsDirectory, NetworkNamespace, Sandbox, TestNetwork},
    probe,
    testbed::{OrFail as _, parse_ip},
    wait::{WAIT_LIMIT, eventually},
};
use socket2::{Domain, Socket, Type};

/// Domain rules cover the web ports. One address and the markers are allowed.
pub(crate) const DOMAIN_NETWORK: &str = r#"{"allowOut": ["allowed.example", "203.0.113.11", "2001:db8:1::2"],
    "denyOut": ["0.0.0.0/0"]}"#;
/// All TCP connections use an egress proxy.
pub(crate) const EGRESS_PROXY_NETWORK: &str =
    r#"{"denyOut": ["8.8.8.8"], "egressProxy": {"address": "203.0.113.10:1080"}}"#;

/// A destination of each family that no rule contains.
pub(crate) const UNNAMED_ADDRESSES: [&str; 2] = ["1.1.1.1", "2606:4700:4700::1111"];

/// One sandbox and the kernel's enforcement for it.
pub(crate) struct RedirectTestbed {
    pub(crate) dataplane: Dataplane,
    pub(crate) slot: Slot,
    pub(crate) interface: HostInterface,
    pub(crate) sandbox: Sandbox,
    pub(crate) bpffs: BpffsDirectory,
}

impl RedirectTestbed {
    /// A sandbox of a test network, with its interface in the host.
    #[track_caller]
    pub(crate) fn in_network(world: &TestNetwork, network: &str) -> Self {
        let sandbox = world.add_sandbox().or_fail("building a sandbox");
        Self::around_sandbox(sandbox, &world.host, network)
    }

    /// A sandbox with its interface in this namespace.
    #[track_caller]
    pub(crate) fn around_sandbox(sandbox: Sandbox, host: &NetworkNamespace, network: &str) -> Self {
        let bpffs = BpffsDirectory::create().or_fail("finding a BPF file system");
        let dataplane = program_runner::open_dataplane(
            &bpffs,
            DenyAction::Reject,
            InboundSource::Any,
            TableKind::Flat,
        )
        .or_fail("opening the dataplane");
        let slot = Slot::new(5).or_fail("a slot");
        let interface = HostInterface { name: sandbox.interface.clone(), netns: Some(host.path()) };
        let stage = Self { dataplane, slot, interface, sandbox, bpffs };
        let mac = Some(stage.sandbox.addressing.mac());
        program_runner::prepare_slot(&stage.dataplane, slot, mac, &stage.sandbox.addresses())
            .or_fail("preparing a slot");
        stage.publish(network);
        stage.dataplane.attach("box", slot, &stage.interface).or_fail("attaching");
        stage
    }

    /// The same sandbox with a new dataplane. As after a kill, the previous one did not clean up.
    #[track_caller]
    pub(crate) fn reopened(self) -> Self {
        let Self { dataplane, slot, interface, sandbox, bpffs } = self;
        drop(dataplane);
        let next = program_runner::open_dataplane(
            &bpffs,
            DenyAction::Reject,
            InboundSource::Any,
            TableKind::Flat,
        );
        Self { dataplane: next.or_fail("opening it again"), slot, interface, sandbox, bpffs }
    }

    /// Puts a network configuration into force.
    #[track_caller]
    pub(crate) fn publish(&self, network: &str) {
        let network: NetworkConfig = policy::parse_json(network.as_bytes()).or_fail(network);
        let floor = Floor::default();
        let policy = Policy::new(&network, None, &PolicyDefaults::default(), &floor)
            .or_fail("a configuration");
        let compiled = policy::compile_policy(&policy, &floor);
        self.dataplane.publish(&[self.slot], &compiled).or_fail("publishing");
    }

    /// Opens the sandbox's proxy listeners.
    #[track_caller]
    pub(crate) fn open_proxy_listeners(&self) -> RedirectListeners {
        self.dataplane.open_listeners(self.slot, &self.interface).or_fail("opening listeners")
    }

    /// Connects from inside the sandbox.
    #[track_caller]
    pub(crate) fn connect_from_sandbox(&self, to: SocketAddr) -> TcpStream {
        probe::connect(&self.sandbox.namespace, to).or_fail("connecting")
    }

    /// Connects and accepts the connection from the listeners. Returns the sandbox's end and the
    /// proxy's.
    #[track_caller]
    pub(crate) fn connect_via_listeners(
        &self,
        door: &RedirectListeners,
        to: SocketAddr,
    ) -> (TcpStream, TcpStream) {
        let inside = self.connect_from_sandbox(to);
        let outside = accept_redirected(listener_of_family(door, to.is_ipv6()));
        assert_eq!(outside.local_addr().or_fail("its own address"), to);
        let peer = outside.peer_addr().or_fail("its peer");
        assert_eq!(peer, inside.local_addr().or_fail("its own address"));
        assert_eq!(peer.ip(), self.sandbox.addresses()[usize::from(to.is_ipv6())]);
        (inside, outside)
    }

    /// The number of packets counted with a reason.
    #[track_caller]
    pub(crate) fn packet_count(&self, reason: Reason) -> u64 {
        let counters = self.dataplane.counters(self.slot).or_fail("counters");
        counters.by_reason[reason as usize].packets
    }

    /// Asserts that connections are refused immediately, soon because there is no proxy: a process
    /// that another test starts holds dropped listeners until it executes its program.
    #[track_caller]
    pub(crate) fn assert_proxy_unavailable(&self, to: SocketAddr) {
        let before = self.packet_count(Reason::ProxyUnavailable);
        let how = probe::ProbeKind::Tcp(to.port());
        let refused = || {
            let seen = probe::probe(&self.sandbox.namespace, how, to.ip());
            assert_eq!(seen, probe::ProbeResult::Refused, "{to}");
            (self.packet_count(Reason::ProxyUnavailable) > before).then_some(())
        };
        eventually(&format!("{to} is counted"), refused).or_fail("connecting");
    }
}

/// An address and a port.
pub(crate) fn socket_address(address: &str, port: u16) -> SocketAddr {
    (parse_ip(address), port).into()
}

/// The listener of a family.
#[track_caller]
pub(crate) fn listener_of_family(door: &RedirectListeners, v6: bool) -> &TcpListener {
    if v6 { door.v6.as_ref() } else { door.v4.as_ref() }.or_fail("a listener")
}

/// Accepts the next connection.
#[track_caller]
pub(crate) fn accept_redirected(listener: &TcpListener) -> TcpStream {
    let accepted = || listener.accept().ok();
    let (stream, _) = eventually("a connection comes out", accepted).or_fail("accepting");
    stream.set_nonblocking(false).or_fail("a blocking socket");
    stream.set_read_timeout(Some(*WAIT_LIMIT)).or_fail("a bound on reading");
    stream
}

/// Asserts that no connection waits to be accepted.
#[track_caller]
pub(crate) fn assert_no_pending_connection(listener: &TcpListener) {
    let accepted = listener.accept().expect_err("nobody came");
    assert_eq!(accepted.kind(), ErrorKind::WouldBlock);
}

/// Sends the content of many segments from one end and expects it at the other.
#[track_caller]
pub(crate) fn assert_carries(from: &mut TcpStream, to: &mut TcpStream) {
    let sent: Vec<u8> = (0..=u8::MAX).cycle().flat_map(|byte| [byte; 7]).take(300_000).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| from.write_all(&sent).or_fail("writing"));
        let mut received = vec![0; sent.len()];
        to.read_exact(&mut received).or_fail("reading");
        assert!(received == sent, "what arrived differs from what was sent");
    });
}

/// A service of a host, on all its addresses of both families.
#[track_caller]
pub(crate) fn bind_host_service(host: &NetworkNamespace, port: u16) -> TcpListener {
    let _inside = host.enter().or_fail("entering");
    let listener = TcpListener::bind(("::", port)).or_fail("listening");
    listener.set_nonblocking(true).or_fail("a socket that does not block");
    listener
}

/// Connects from inside a namespace, from this address and port to those.
#[track_caller]
pub(crate) fn connect_from(
    namespace: &NetworkNamespace,
    from: SocketAddr,
    to: IpAddr,
    port: u16,
) -> TcpStream {
    let _inside = namespace.enter().or_fail("entering");
    let socket = Socket::new(Domain::for_address(from), Type::STREAM, None).or_fail("a socket");
    socket.set_reuse_address(true).or_fail("a port that was used before");
    socket.bind(&from.into()).or_fail("binding");
    let to = SocketAddr::new(to, port);
    socket.connect_timeout(&to.into(), *WAIT_LIMIT).or_fail("connecting");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(*WAIT_LIMIT)).or_fail("a bound on reading");
    stream
}

/// Waits until a condition holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, holds: impl Fn() -> bool) {
    eventually(what, || holds().then_some(())).or_fail("waiting");
}

/// Returns whether an address is IPv6.
pub(crate) fn is_ipv6(address: &str) -> bool {
    matches!(parse_ip(address), IpAddr::V6(_))
}
