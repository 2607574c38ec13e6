//! Guests that are paused, killed and restarted, and tap devices that are recreated.

use policy_integration::guest_vm::{GuestConnection, VmSandbox};
use policy_testbed::{
    testbed::{OrFail as _, SharedTestbed},
    wait::eventually,
};

static TESTBED: SharedTestbed = SharedTestbed::with_config("");

#[test]
fn a_pause_keeps_the_policy_and_the_connections() {
    let mut machine = VmSandbox::booted(&TESTBED.testbed(), &["8.8.8.8"]);
    let connection = GuestConnection::open(&mut machine, "8.8.8.8");
    connection.send(&mut machine, "before");
    connection.assert_echoed(&mut machine, "before");
    machine.pause();
    machine.wait_for_status("enforcing");
    machine.resume();
    connection.send(&mut machine, "after");
    connection.assert_echoed(&mut machine, "after");
    assert_ne!(machine.wget("8.8.8.9").code, 0);
}

#[test]
fn a_flood_is_denied_before_and_after_a_pause() {
    let mut machine = VmSandbox::booted(&TESTBED.testbed(), &["8.8.8.8"]);
    machine
        .run_in_guest("while true; do ping -q -c 20 -i 0.01 -W 1 8.8.8.9; done >/dev/null 2>&1 &");
    let grows = |machine: &VmSandbox| {
        let before = machine.packet_count("deny_out");
        let grown = || (machine.packet_count("deny_out") > before + 20).then_some(());
        eventually("denied packets", grown).or_fail(&machine.status().to_string());
    };
    grows(&machine);
    machine.pause();
    // Frames that the guest has already sent are judged soon; then no more arrive.
    let mut last = machine.packet_count("deny_out");
    let settled = eventually("silence", || {
        let now = machine.packet_count("deny_out");
        (std::mem::replace(&mut last, now) == now).then_some(())
    });
    settled.or_fail("while it is paused");
    machine.resume();
    grows(&machine);
}

#[test]
fn a_policy_that_changes_during_a_pause_is_in_force_when_the_guest_goes_on() {
    let mut machine = VmSandbox::booted(&TESTBED.testbed(), &["8.8.8.8"]);
    let connection = GuestConnection::open(&mut machine, "8.8.8.8");
    connection.send(&mut machine, "before");
    connection.assert_echoed(&mut machine, "before");
    machine.pause();
    machine.allow_only(&["8.8.8.9"]);
    machine.resume();
    connection.send(&mut machine, "after");
    connection.assert_closed(&mut machine);
    assert_ne!(machine.wget("8.8.8.8").code, 0);
    assert_eq!(machine.wget("8.8.8.9").code, 0);
}

#[test]
fn the_next_guest_behind_the_same_tap_device_meets_the_same_policy() {
    let mut machine = VmSandbox::booted(&TESTBED.testbed(), &["8.8.8.8"]);
    assert_eq!(machine.wget("8.8.8.8").code, 0);
    machine.kill();
    machine.wait_for_status("enforcing");
    machine.boot();
    assert_eq!(machine.wget("8.8.8.8").code, 0);
    assert!(machine.wget("8.8.8.9").text.contains("Connection refused"));
}

#[test]
fn a_tap_device_that_goes_and_comes_back_is_attached_again() {
    let mut machine = VmSandbox::booted(&TESTBED.testbed(), &["8.8.8.8"]);
    assert_eq!(machine.wget("8.8.8.8").code, 0);
    machine.kill();
    machine.remove_tap();
    machine.wait_for_status("interface missing");
    machine.create_tap();
    machine.wait_for_status("enforcing");
    machine.boot();
    assert_eq!(machine.wget("8.8.8.8").code, 0);
    let denied = machine.packet_count("deny_out");
    assert!(machine.wget("8.8.8.9").text.contains("Connection refused"));
    assert!(machine.packet_count("deny_out") > denied);
}
