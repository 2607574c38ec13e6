//! A TCP connection that a program in the guest holds open.

use super::Machine;
use crate::{patience::eventually, server, stage::OrFail as _};

/// A connection to an echo server: the guest's own `nc`, which reads from a named pipe. A guest has
/// one at a time.
pub struct Connection;

impl Connection {
    /// Opens it. The shell holds the pipe as its descriptor 3.
    #[track_caller]
    pub fn open(machine: &mut Machine, address: &str) -> Self {
        let port = server::ECHO;
        let opened = machine.run(&format!(
            "rm -f /tmp/said /tmp/heard /tmp/ended; mkfifo /tmp/said
             {{ nc {address} {port} </tmp/said >/tmp/heard 2>&1; echo $? >/tmp/ended; }} &
             exec 3>/tmp/said"
        ));
        assert_eq!(opened.code, 0, "{}", opened.text);
        Self
    }

    /// Says something.
    #[track_caller]
    pub fn say(&self, machine: &mut Machine, word: &str) {
        machine.run(&format!("echo {word} >&3"));
    }

    /// Waits until the server's echo of `word` has come back.
    #[track_caller]
    pub fn hears(&self, machine: &mut Machine, word: &str) {
        let mut heard = String::new();
        let came = eventually(&format!("an echo of {word:?}"), || {
            heard = machine.run("cat /tmp/heard").text;
            heard.lines().any(|line| line == word).then_some(())
        });
        came.or_fail(&format!("the guest heard {heard:?}"));
    }

    /// Waits until it has ended, which is not how a connection of `nc` ends by itself.
    #[track_caller]
    pub fn ends(&self, machine: &mut Machine) {
        let ended = || (machine.run("cat /tmp/ended 2>&1").code == 0).then_some(());
        eventually("the end of the connection", ended).or_fail("in the guest");
    }
}
