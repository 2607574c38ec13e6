//! A TCP connection that a program in the guest keeps open.

use super::VmSandbox;
use policy_testbed::{test_servers, testbed::OrFail as _, wait::eventually};

/// A connection to an echo server through the guest's `nc`, which reads from a named pipe. A guest
/// has one at a time.
pub struct GuestConnection;

impl GuestConnection {
    /// Opens the connection. The shell keeps the pipe open as its descriptor 3.
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

    /// Sends a word.
    #[track_caller]
    pub fn send(&self, machine: &mut VmSandbox, word: &str) {
        machine.run_in_guest(&format!("echo {word} >&3"));
    }

    /// Waits for the server's echo of `word`.
    #[track_caller]
    pub fn assert_echoed(&self, machine: &mut VmSandbox, word: &str) {
        let mut heard = String::new();
        let came = eventually(&format!("an echo of {word:?}"), || {
            heard = machine.run_in_guest("cat /tmp/heard").text;
            heard.lines().any(|line| line == word).then_some(())
        });
        came.or_fail(&format!("the guest heard {heard:?}"));
    }

    /// Waits until the connection has ended. `nc` does not end it by itself.
    #[track_caller]
    pub fn assert_closed(&self, machine: &mut VmSandbox) {
        let ended = || (machine.run_in_guest("cat /tmp/ended 2>&1").code == 0).then_some(());
        eventually("the end of the connection", ended).or_fail("in the guest");
    }
}
