//! A guest's programs reach what the policy allows, are refused everything else, and notice policy
//! updates.

use policy_integration::guest_vm::{GuestConnection, VmSandbox};
use policy_testbed::{test_servers::ECHO_PORT, testbed::SharedTestbed};

static TESTBED: SharedTestbed = SharedTestbed::with_config("");

#[test]
fn its_programs_reach_what_is_allowed_and_are_refused_the_rest() {
    let mut machine = VmSandbox::booted(&TESTBED.testbed(), &["8.8.8.8", "2001:db8:1::1"]);
    for (address, me) in [
        ("8.8.8.8", machine.addressing.v4().to_string()),
        ("2001:db8:1::1", machine.addressing.v6().to_string()),
    ] {
        let page = machine.wget(address);
        assert_eq!(page.text, format!("{address} answers {me}\n"));
        let ping = machine.ping(address);
        assert_eq!(ping.code, 0, "{}", ping.text);
    }
    assert_eq!(machine.packet_count("deny_out"), 0);
    for address in ["8.8.8.9", "2001:db8:2::1"] {
        let before = machine.packet_count("deny_out");
        let page = machine.wget(address);
        assert!(page.code != 0 && page.text.contains("Connection refused"), "{}", page.text);
        let between = machine.packet_count("deny_out");
        assert!(between > before, "{address}: the SYN is counted");
        let ping = machine.ping(address);
        assert_ne!(ping.code, 0, "{}", ping.text);
        assert!(
            machine.packet_count("deny_out") > between,
            "{address}: the echo request is counted"
        );
    }
    let page = machine.wget("169.254.169.254");
    assert!(page.text.contains("Connection refused"), "{}", page.text);
    assert!(machine.packet_count("platform_deny") > 0, "{}", machine.status());
}

#[test]
fn a_change_of_the_policy_is_seen_by_programs_that_run() {
    let mut machine = VmSandbox::booted(&TESTBED.testbed(), &["8.8.8.8"]);
    let connection = GuestConnection::open(&mut machine, "8.8.8.8");
    connection.send(&mut machine, "before");
    connection.assert_echoed(&mut machine, "before");

    machine.allow_only(&["8.8.8.9"]);
    connection.send(&mut machine, "after");
    connection.assert_closed(&mut machine);
    let heard = machine.run_in_guest("cat /tmp/heard");
    assert!(!heard.text.contains("after"), "{}", heard.text);
    assert_ne!(machine.wget("8.8.8.8").code, 0);
    assert_eq!(machine.wget("8.8.8.9").code, 0);
}

/// More than one segment: the guest's card passes super-packets without checksums to the host.
#[test]
fn a_large_transfer_comes_back_whole() {
    let mut machine = VmSandbox::booted(&TESTBED.testbed(), &["8.8.8.8", "2001:db8:1::1"]);
    machine.run_in_guest("dd if=/dev/urandom of=/tmp/sent bs=64k count=4");
    for address in ["8.8.8.8", "2001:db8:1::1"] {
        let echoed = machine.run_in_guest(&format!(
            "timeout 30 nc {address} {ECHO_PORT} </tmp/sent >/tmp/came; cmp /tmp/sent /tmp/came"
        ));
        assert_eq!(echoed.code, 0, "{}", echoed.text);
    }
}
