//! A guest's programs reach what the policy allows and are refused the rest, and see it change.

use policy_tests::{
    machine::{Connection, Machine},
    server::ECHO,
    stage::Shared,
};

static STAGE: Shared = Shared::with("");

#[test]
fn its_programs_reach_what_is_allowed_and_are_refused_the_rest() {
    let mut machine = Machine::booted(&STAGE.stage(), &["8.8.8.8", "2001:db8:1::1"]);
    for (address, me) in [
        ("8.8.8.8", machine.identity.v4().to_string()),
        ("2001:db8:1::1", machine.identity.v6().to_string()),
    ] {
        let page = machine.wget(address);
        assert_eq!(page.text, format!("{address} answers {me}\n"));
        let ping = machine.ping(address);
        assert_eq!(ping.code, 0, "{}", ping.text);
    }
    assert_eq!(machine.counted("deny_out"), 0);
    for address in ["8.8.8.9", "2001:db8:2::1"] {
        let before = machine.counted("deny_out");
        let page = machine.wget(address);
        assert!(page.code != 0 && page.text.contains("Connection refused"), "{}", page.text);
        let between = machine.counted("deny_out");
        assert!(between > before, "{address}: the SYN is counted");
        let ping = machine.ping(address);
        assert_ne!(ping.code, 0, "{}", ping.text);
        assert!(machine.counted("deny_out") > between, "{address}: the echo request is counted");
    }
    let page = machine.wget("169.254.169.254");
    assert!(page.text.contains("Connection refused"), "{}", page.text);
    assert!(machine.counted("platform_deny") > 0, "{}", machine.status());
}

#[test]
fn a_change_of_the_policy_is_seen_by_programs_that_run() {
    let mut machine = Machine::booted(&STAGE.stage(), &["8.8.8.8"]);
    let connection = Connection::open(&mut machine, "8.8.8.8");
    connection.say(&mut machine, "before");
    connection.hears(&mut machine, "before");

    machine.may_only_reach(&["8.8.8.9"]);
    connection.say(&mut machine, "after");
    connection.ends(&mut machine);
    let heard = machine.run("cat /tmp/heard");
    assert!(!heard.text.contains("after"), "{}", heard.text);
    assert_ne!(machine.wget("8.8.8.8").code, 0);
    assert_eq!(machine.wget("8.8.8.9").code, 0);
}

/// More than one segment: the guest's card hands the host super-packets without checksums.
#[test]
fn a_large_transfer_comes_back_whole() {
    let mut machine = Machine::booted(&STAGE.stage(), &["8.8.8.8", "2001:db8:1::1"]);
    machine.run("dd if=/dev/urandom of=/tmp/sent bs=64k count=4");
    for address in ["8.8.8.8", "2001:db8:1::1"] {
        let echoed = machine.run(&format!(
            "timeout 30 nc {address} {ECHO} </tmp/sent >/tmp/came; cmp /tmp/sent /tmp/came"
        ));
        assert_eq!(echoed.code, 0, "{}", echoed.text);
    }
}
