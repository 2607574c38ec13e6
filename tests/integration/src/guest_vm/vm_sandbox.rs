//! A sandbox on a stage that is a machine.

use std::{sync::Arc, thread};

use anyhow::Result;
use serde_json::{Value, json};

use super::{ConsoleOutput, GuestKernel, Initramfs, NetworkCard, QemuProcess, VmHardware};
use policy_testbed::{
    network::sandbox::{SandboxAddressing, format_mac},
    testbed::{OrFail as _, Testbed},
    wait::eventually,
};

/// A tap device, what the agent knows of it, and the guest behind it while one runs.
pub struct VmSandbox {
    /// Addresses and names; the interface is `tap<number>`.
    pub addressing: SandboxAddressing,
    /// The stage it is on.
    pub testbed: Arc<Testbed>,
    vm: Option<QemuProcess>,
}

impl VmSandbox {
    /// Makes a tap device in the stage's host. Nothing is behind it, and the agent knows nothing of
    /// it.
    #[track_caller]
    pub fn new(stage: &Arc<Testbed>) -> Self {
        let identity = SandboxAddressing { number: stage.network.next_number() };
        let machine = Self { addressing: identity, testbed: Arc::clone(stage), vm: None };
        machine.create_tap();
        machine
    }

    /// One that may reach these and nothing else, and runs: the agent had attached to its tap device
    /// before.
    #[track_caller]
    pub fn booted(stage: &Arc<Testbed>, allowed: &[&str]) -> Self {
        let mut machine = Self::new(stage);
        machine.allow_only(allowed);
        machine.boot();
        machine
    }

    /// The tap device's name.
    pub fn tap_name(&self) -> String {
        format!("tap{}", self.addressing.number)
    }

    /// What the agent knows it by.
    pub fn sandbox_id(&self) -> String {
        format!("machine{}", self.addressing.number)
    }

    /// Makes the tap device, which stays when the guest goes.
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

    /// Takes the tap device away.
    #[track_caller]
    pub fn remove_tap(&self) {
        let line = format!("link del {}", self.tap_name());
        self.testbed.network.host.ip_batch(&line).or_fail("removing a tap device");
    }

    /// Tells the agent that the sandbox may reach these and nothing else.
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

    /// Starts a guest and gives it its addresses.
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

    /// Ends the guest at once, as one that is killed. The tap device stays.
    pub fn kill(&mut self) {
        self.vm = None;
    }

    /// Stops the guest's processors.
    #[track_caller]
    pub fn pause(&mut self) {
        self.running_vm().monitor.execute("stop", &json!({})).or_fail("pausing");
    }

    /// Lets them go on.
    #[track_caller]
    pub fn resume(&mut self) {
        self.running_vm().monitor.execute("cont", &json!({})).or_fail("resuming");
    }

    /// Runs a command of the guest's shell.
    #[track_caller]
    pub fn run_in_guest(&mut self, command: &str) -> ConsoleOutput {
        self.running_vm().console.run(command).or_fail("running a command in the guest")
    }

    #[track_caller]
    fn running_vm(&mut self) -> &mut QemuProcess {
        self.vm.as_mut().or_fail("a running guest")
    }

    /// Fetches a page from a server in the internet, as the guest's own `wget` does.
    #[track_caller]
    pub fn wget(&mut self, address: &str) -> ConsoleOutput {
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        self.run_in_guest(&format!("timeout 20 wget -q -O - http://{host}/"))
    }

    /// Sends an echo request, as the guest's own `ping` does.
    #[track_caller]
    pub fn ping(&mut self, address: &str) -> ConsoleOutput {
        self.run_in_guest(&format!("ping -c 1 -W 5 {address}"))
    }

    /// What the agent knows about the sandbox.
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

    /// How many packets were counted with a reason.
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
