//! Guests that are paused, killed, started again, and whose tap device is made anew.

use policy_tests::{
    machine::{Connection, Machine},
    patience::eventually,
    stage::{OrFail as _, Shared},
};

static STAGE: Shared = Shared::with("");

#[test]
fn a_pause_keeps_the_policy_and_the_connections() {
    let mut machine = Machine::booted(&STAGE.stage(), &["8.8.8.8"]);
    let connection = Connection::open(&mut machine, "8.8.8.8");
    connection.say(&mut machine, "before");
    connection.hears(&mut machine, "before");
    machine.pause();
    machine.becomes("enforcing");
    machine.resume();
    connection.say(&mut machine, "after");
    connection.hears(&mut machine, "after");
    assert_ne!(machine.wget("8.8.8.9").code, 0);
}

#[test]
fn a_flood_is_denied_before_and_after_a_pause() {
    let mut machine = Machine::booted(&STAGE.stage(), &["8.8.8.8"]);
    machine.run("while true; do ping -q -c 20 -i 0.01 -W 1 8.8.8.9; done >/dev/null 2>&1 &");
    let grows = |machine: &Machine| {
        let before = machine.counted("deny_out");
        let grown = || (machine.counted("deny_out") > before + 20).then_some(());
        eventually("denied packets", grown).or_fail(&machine.status().to_string());
    };
    grows(&machine);
    machine.pause();
    // What had left the guest is judged by now or soon; then there is silence.
    let mut last = machine.counted("deny_out");
    let settled = eventually("silence", || {
        let now = machine.counted("deny_out");
        (std::mem::replace(&mut last, now) == now).then_some(())
    });
    settled.or_fail("while it is paused");
    machine.resume();
    grows(&machine);
}

#[test]
fn a_policy_that_changes_during_a_pause_is_in_force_when_the_guest_goes_on() {
    let mut machine = Machine::booted(&STAGE.stage(), &["8.8.8.8"]);
    let connection = Connection::open(&mut machine, "8.8.8.8");
    connection.say(&mut machine, "before");
    connection.hears(&mut machine, "before");
    machine.pause();
    machine.may_only_reach(&["8.8.8.9"]);
    machine.resume();
    connection.say(&mut machine, "after");
    connection.ends(&mut machine);
    assert_ne!(machine.wget("8.8.8.8").code, 0);
    assert_eq!(machine.wget("8.8.8.9").code, 0);
}

#[test]
fn the_next_guest_behind_the_same_tap_device_meets_the_same_policy() {
    let mut machine = Machine::booted(&STAGE.stage(), &["8.8.8.8"]);
    assert_eq!(machine.wget("8.8.8.8").code, 0);
    machine.kill();
    machine.becomes("enforcing");
    machine.boot();
    assert_eq!(machine.wget("8.8.8.8").code, 0);
    assert!(machine.wget("8.8.8.9").text.contains("Connection refused"));
}

#[test]
fn a_tap_device_that_goes_and_comes_back_is_attached_again() {
    let mut machine = Machine::booted(&STAGE.stage(), &["8.8.8.8"]);
    assert_eq!(machine.wget("8.8.8.8").code, 0);
    machine.kill();
    machine.remove_tap();
    machine.becomes("interface missing");
    machine.make_tap();
    machine.becomes("enforcing");
    machine.boot();
    assert_eq!(machine.wget("8.8.8.8").code, 0);
    let denied = machine.counted("deny_out");
    assert!(machine.wget("8.8.8.9").text.contains("Connection refused"));
    assert!(machine.counted("deny_out") > denied);
}
