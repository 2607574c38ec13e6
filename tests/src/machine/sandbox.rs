//! A sandbox on a stage that is a machine.

use std::{sync::Arc, thread};

use anyhow::Result;
use serde_json::{Value, json};

use super::{Card, Hardware, Initramfs, Kernel, Output, Qemu};
use crate::{
    patience::eventually,
    stage::{OrFail as _, Stage},
    world::sandbox::{Identity, mac_text},
};

/// A tap device, what the agent knows of it, and the guest behind it while one runs.
pub struct Machine {
    /// Addresses and names; the interface is `tap<number>`.
    pub identity: Identity,
    /// The stage it is on.
    pub stage: Arc<Stage>,
    guest: Option<Qemu>,
}

impl Machine {
    /// Makes a tap device in the stage's host. Nothing is behind it, and the agent knows nothing of
    /// it.
    #[track_caller]
    pub fn on(stage: &Arc<Stage>) -> Self {
        let identity = Identity { number: stage.world.next_number() };
        let machine = Self { identity, stage: Arc::clone(stage), guest: None };
        machine.make_tap();
        machine
    }

    /// One that may reach these and nothing else, and runs: the agent had attached to its tap device
    /// before.
    #[track_caller]
    pub fn booted(stage: &Arc<Stage>, allowed: &[&str]) -> Self {
        let mut machine = Self::on(stage);
        machine.may_only_reach(allowed);
        machine.boot();
        machine
    }

    /// The tap device's name.
    pub fn tap(&self) -> String {
        format!("tap{}", self.identity.number)
    }

    /// What the agent knows it by.
    pub fn id(&self) -> String {
        format!("machine{}", self.identity.number)
    }

    /// Makes the tap device, which stays when the guest goes.
    #[track_caller]
    pub fn make_tap(&self) {
        let (identity, tap) = (self.identity, self.tap());
        let lines = format!(
            "tuntap add dev {tap} mode tap vnet_hdr
             link set {tap} address {}
             addr add {}/24 dev {tap}
             addr add {}/64 dev {tap} nodad
             link set {tap} up",
            mac_text(identity.gateway_mac()),
            identity.gateway_v4(),
            identity.gateway_v6(),
        );
        self.stage.world.host.ip(&lines).or_fail("making a tap device");
    }

    /// Takes the tap device away.
    #[track_caller]
    pub fn remove_tap(&self) {
        let line = format!("link del {}", self.tap());
        self.stage.world.host.ip(&line).or_fail("removing a tap device");
    }

    /// Tells the agent that the sandbox may reach these and nothing else.
    #[track_caller]
    pub fn may_only_reach(&self, allowed: &[&str]) {
        let spec = json!({
            "sandboxID": self.id(),
            "interface": self.tap(),
            "addresses": [self.identity.v4(), self.identity.v6()],
            "mac": mac_text(self.identity.mac()),
            "network": { "denyOut": ["0.0.0.0/0"], "allowOut": allowed },
        });
        let answer = self.stage.request("PUT", &self.path(), &spec);
        assert_eq!(answer.code, 200, "{}", answer.body);
    }

    /// Starts a guest and gives it its addresses.
    #[track_caller]
    pub fn boot(&mut self) {
        self.guest = Some(self.guest_with_card().or_fail("booting"));
        let identity = self.identity;
        let configured = self.run(&format!(
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

    fn guest_with_card(&self) -> Result<Qemu> {
        let (tap, mac) = (self.tap(), mac_text(self.identity.mac()));
        let card = Card { host: &self.stage.world.host, tap: &tap, mac: &mac };
        let hardware = Hardware { memory: 192, processors: 1, card: Some(card) };
        let kernel = Kernel::find()?;
        Qemu::boot(&hardware, &kernel, Initramfs::of(&kernel)?)
    }

    /// Ends the guest at once, as one that is killed. The tap device stays.
    pub fn kill(&mut self) {
        self.guest = None;
    }

    /// Stops the guest's processors.
    #[track_caller]
    pub fn pause(&mut self) {
        self.guest().monitor.execute("stop", &json!({})).or_fail("pausing");
    }

    /// Lets them go on.
    #[track_caller]
    pub fn resume(&mut self) {
        self.guest().monitor.execute("cont", &json!({})).or_fail("resuming");
    }

    /// Runs a command of the guest's shell.
    #[track_caller]
    pub fn run(&mut self, command: &str) -> Output {
        self.guest().console.run(command).or_fail("running a command in the guest")
    }

    #[track_caller]
    fn guest(&mut self) -> &mut Qemu {
        self.guest.as_mut().or_fail("a running guest")
    }

    /// Fetches a page from a server in the internet, as the guest's own `wget` does.
    #[track_caller]
    pub fn wget(&mut self, address: &str) -> Output {
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        self.run(&format!("timeout 20 wget -q -O - http://{host}/"))
    }

    /// Sends an echo request, as the guest's own `ping` does.
    #[track_caller]
    pub fn ping(&mut self, address: &str) -> Output {
        self.run(&format!("ping -c 1 -W 5 {address}"))
    }

    /// What the agent knows about the sandbox.
    #[track_caller]
    pub fn status(&self) -> Value {
        let answer = self.stage.request("GET", &self.path(), &Value::Null);
        assert_eq!(answer.code, 200, "{}", answer.body);
        answer.json()
    }

    /// Waits until the sandbox has this status.
    #[track_caller]
    pub fn becomes(&self, status: &str) {
        let seen = || (self.status()["status"] == status).then_some(());
        let became = eventually(&format!("{} is {status}", self.id()), seen);
        became.or_fail(&self.status().to_string());
    }

    /// How many packets were counted with a reason.
    #[track_caller]
    pub fn counted(&self, reason: &str) -> u64 {
        self.status()["counters"][reason]["packets"].as_u64().unwrap_or(0)
    }

    fn path(&self) -> String {
        format!("/agent/v1/sandboxes/{}", self.id())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the agent's log ends:\n{}", self.stage.agent().log());
        }
    }
}
