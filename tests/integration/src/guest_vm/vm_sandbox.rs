//! A sandbox of a testbed in a virtual machine.

use std::{sync::Arc, thread};

use anyhow::Result;
use serde_json::{Value, json};

use super::{ConsoleOutput, GuestKernel, Initramfs, NetworkCard, QemuProcess, VmHardware};
use policy_testbed::{
    network::sandbox::{SandboxAddressing, format_mac},
    testbed::{OrFail as _, Testbed},
    wait::eventually,
};

/// A tap device, its registration with the agent, and the guest behind it while one runs.
pub struct VmSandbox {
    /// Addresses and names. The interface is `tap<number>`.
    pub addressing: SandboxAddressing,
    /// The testbed that contains it.
    pub testbed: Arc<Testbed>,
    vm: Option<QemuProcess>,
}

impl VmSandbox {
    /// Creates a tap device in the testbed's host, without a guest and not registered with the
    /// agent.
    #[track_caller]
    pub fn new(stage: &Arc<Testbed>) -> Self {
        Self::with_tap_made_by(stage, Self::create_tap)
    }

    /// The same with another way to create the device.
    #[track_caller]
    pub fn with_tap_made_by(stage: &Arc<Testbed>, make_tap: impl FnOnce(&Self)) -> Self {
        let identity = SandboxAddressing { number: stage.network.next_number() };
        let machine = Self { addressing: identity, testbed: Arc::clone(stage), vm: None };
        make_tap(&machine);
        machine
    }

    /// Creates a sandbox that can reach these destinations only, and boots it after the agent has
    /// attached to its tap device.
    #[track_caller]
    pub fn booted(stage: &Arc<Testbed>, allowed: &[&str]) -> Self {
        let mut machine = Self::new(stage);
        machine.allow_only(allowed);
        machine.boot();
        machine
    }

    /// The name of the tap device.
    pub fn tap_name(&self) -> String {
        format!("tap{}", self.addressing.number)
    }

    /// The ID that the agent uses.
    pub fn sandbox_id(&self) -> String {
        format!("machine{}", self.addressing.number)
    }

    /// Creates the tap device, which persists when the guest ends.
    #[track_caller]
    pub fn create_tap(&self) {
        let (identity, tap) = (self.addressing, self.tap_name());
        let lines = format!(
            "tuntap add dev {tap} mode tap vnet_hdr
             link set {tap} address {}
             addr add {}/24 dev {tap}
             addr add {}/64 dev {tap} nodad
             link set {tap} up",
            format_mac(identity.gateway_mac()),
            identity.gateway_v4(),
            identity.gateway_v6(),
        );
        self.testbed.network.host.ip_batch(&lines).or_fail("making a tap device");
    }

    /// Deletes the tap device.
    #[track_caller]
    pub fn remove_tap(&self) {
        let line = format!("link del {}", self.tap_name());
        self.testbed.network.host.ip_batch(&line).or_fail("removing a tap device");
    }

    /// Allows these destinations and denies everything else.
    #[track_caller]
    pub fn allow_only(&self, allowed: &[&str]) {
        let spec = json!({
            "sandboxID": self.sandbox_id(),
            "interface": self.tap_name(),
            "addresses": [self.addressing.v4(), self.addressing.v6()],
            "mac": format_mac(self.addressing.mac()),
            "network": { "denyOut": ["0.0.0.0/0"], "allowOut": allowed },
        });
        let answer = self.testbed.request("PUT", &self.api_path(), &spec);
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    /// Boots a guest and configures its addresses.
    #[track_caller]
    pub fn boot(&mut self) {
        self.vm = Some(self.boot_with_card().or_fail("booting"));
        let identity = self.addressing;
        let configured = self.run_in_guest(&format!(
            "echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad &&
             ip link set lo up &&
             ip link set eth0 up &&
             ip addr add {}/24 dev eth0 &&
             ip addr add {}/64 dev eth0 &&
             ip route add default via {} &&
             ip -6 route add default via {}",
            identity.v4(),
            identity.v6(),
            identity.gateway_v4(),
            identity.gateway_v6(),
        ));
        assert_eq!(configured.code, 0, "{}", configured.text);
    }

    fn boot_with_card(&self) -> Result<QemuProcess> {
        let (tap, mac) = (self.tap_name(), format_mac(self.addressing.mac()));
        let card = NetworkCard { host: &self.testbed.network.host, tap: &tap, mac: &mac };
        let hardware = VmHardware { memory: 192, processors: 1, card: Some(card) };
        let kernel = GuestKernel::find_installed()?;
        QemuProcess::boot(&hardware, &kernel, Initramfs::for_kernel(&kernel)?)
    }

    /// Kills the guest. The tap device persists.
    pub fn kill(&mut self) {
        self.vm = None;
    }

    /// Pauses the guest's CPUs.
    #[track_caller]
    pub fn pause(&mut self) {
        self.running_vm().monitor.execute("stop", &json!({})).or_fail("pausing");
    }

    /// Resumes the guest's CPUs.
    #[track_caller]
    pub fn resume(&mut self) {
        self.running_vm().monitor.execute("cont", &json!({})).or_fail("resuming");
    }

    /// Runs a command in the guest's shell.
    #[track_caller]
    pub fn run_in_guest(&mut self, command: &str) -> ConsoleOutput {
        self.running_vm().console.run(command).or_fail("running a command in the guest")
    }

    #[track_caller]
    fn running_vm(&mut self) -> &mut QemuProcess {
        self.vm.as_mut().or_fail("a running guest")
    }

    /// Fetches a page from a server in the internet with the guest's `wget`.
    #[track_caller]
    pub fn wget(&mut self, address: &str) -> ConsoleOutput {
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        self.run_in_guest(&format!("timeout 20 wget -q -O - http://{host}/"))
    }

    /// Sends an echo request with the guest's `ping`.
    #[track_caller]
    pub fn ping(&mut self, address: &str) -> ConsoleOutput {
        self.run_in_guest(&format!("ping -c 1 -W 5 {address}"))
    }

    /// The agent's status of the sandbox.
    #[track_caller]
    pub fn status(&self) -> Value {
        let answer = self.testbed.request("GET", &self.api_path(), &Value::Null);
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    }

    /// Waits until the sandbox has this status.
    #[track_caller]
    pub fn wait_for_status(&self, status: &str) {
        let seen = || (self.status()["status"] == status).then_some(());
        let became = eventually(&format!("{} is {status}", self.sandbox_id()), seen);
        became.or_fail(&self.status().to_string());
    }

    /// The number of packets counted with a reason.
    #[track_caller]
    pub fn packet_count(&self, reason: &str) -> u64 {
        self.status()["counters"][reason]["packets"].as_u64().unwrap_or(0)
    }

    fn api_path(&self) -> String {
        format!("/agent/v1/sandboxes/{}", self.sandbox_id())
    }
}

impl Drop for VmSandbox {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the agent's log ends:\n{}", self.testbed.agent().log_tail());
        }
    }
}
