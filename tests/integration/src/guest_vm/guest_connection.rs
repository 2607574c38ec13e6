//! A TCP connection that a program in the guest holds open.

use super::VmSandbox;
use policy_testbed::{test_servers, testbed::OrFail as _, wait::eventually};

/// A connection to an echo server: the guest's own `nc`, which reads from a named pipe. A guest has
/// one at a time.
pub struct GuestConnection;

impl GuestConnection {
    /// Opens it. The shell holds the pipe as its descriptor 3.
    #[track_caller]
    pub fn open(machine: &mut VmSandbox, address: &str) -> Self {
        let port = test_servers::ECHO_PORT;
        let opened = machine.run_in_guest(&format!(
            "rm -f /tmp/said /tmp/heard /tmp/ended; mkfifo /tmp/said
             {{ nc {address} {port} </tmp/said >/tmp/heard 2>&1; echo $? >/tmp/ended; }} &
             exec 3>/tmp/said"
        ));
        assert_eq!(opened.code, 0, "{}", opened.text);
        Self
    }

    /// Says something.
    #[track_caller]
    pub fn send(&self, machine: &mut VmSandbox, word: &str) {
        machine.run_in_guest(&format!("echo {word} >&3"));
    }

    /// Waits until the server's echo of `word` has come back.
    #[track_caller]
    pub fn assert_echoed(&self, machine: &mut VmSandbox, word: &str) {
        let mut heard = String::new();
        let came = eventually(&format!("an echo of {word:?}"), || {
            heard = machine.run_in_guest("cat /tmp/heard").text;
            heard.lines().any(|line| line == word).then_some(())
        });
        came.or_fail(&format!("the guest heard {heard:?}"));
    }

    /// Waits until it has ended, which is not how a connection of `nc` ends by itself.
    #[track_caller]
    pub fn assert_closed(&self, machine: &mut VmSandbox) {
        let ended = || (machine.run_in_guest("cat /tmp/ended 2>&1").code == 0).then_some(());
        eventually("the end of the connection", ended).or_fail("in the guest");
    }
}
