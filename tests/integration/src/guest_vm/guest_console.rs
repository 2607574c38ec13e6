//! The shell of a guest, over a virtio console: an emulated serial port loses interrupts.

use std::{
    io::{Read, Write as _},
    process::{ChildStdin, ChildStdout},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// The time limit of a command: an emulated machine is slow, and others may run at the same time.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// The result of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsoleOutput {
    /// The exit code.
    pub code: i32,
    /// The output.
    pub text: String,
}

/// A connection to a guest's shell.
pub struct GuestConsole {
    input: ChildStdin,
    output: Receiver<Vec<u8>>,
    text: String,
    command_count: u32,
}

impl GuestConsole {
    /// Creates the console from both ends of the connection.
    pub(super) fn new(input: ChildStdin, output: ChildStdout) -> Self {
        let (say, heard) = channel();
        thread::spawn(move || forward_output(output, |bytes| say.send(bytes).is_ok()));
        Self { input, output: heard, text: String::new(), command_count: 0 }
    }

    /// Runs a command of the guest's shell to completion. Background commands continue after it.
    pub fn run(&mut self, command: &str) -> Result<ConsoleOutput> {
        self.run_within(COMMAND_TIMEOUT, command)
    }

    /// Runs a command with another time limit.
    pub fn run_within(&mut self, patience: Duration, command: &str) -> Result<ConsoleOutput> {
        self.command_count += 1;
        let mark = format!("<<command {} ended with ", self.command_count);
        let line = format!("{{ {command}\n}} </dev/null; echo \"{mark}$?>>\"\n");
        self.input.write_all(line.as_bytes()).context("writing to the guest's console")?;
        let what = || format!("the end of {command:?} in the guest");
        let text = self.read_until_within(patience, &mark).with_context(what)?;
        let code = self.read_until(">>\n").with_context(what)?;
        Ok(ConsoleOutput { code: code.parse().with_context(what)?, text })
    }

    /// Returns the output up to `mark`, without it.
    pub(super) fn read_until(&mut self, mark: &str) -> Result<String> {
        self.read_until_within(COMMAND_TIMEOUT, mark)
    }

    fn read_until_within(&mut self, patience: Duration, mark: &str) -> Result<String> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some((before, after)) = self.text.split_once(mark) {
                let (before, after) = (before.to_owned(), after.to_owned());
                self.text = after;
                return Ok(before);
            }
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.text += &String::from_utf8_lossy(&bytes),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("waited {patience:?} in vain; the console says:\n{}", self.text)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the machine ended; its console says:\n{}", self.text)
                }
            }
        }
    }
}

/// Ends with the machine, or when the receiver is dropped.
fn forward_output(mut output: impl Read, mut tell: impl FnMut(Vec<u8>) -> bool) {
    let mut bytes = [0; 4096];
    while let Ok(length @ 1..) = output.read(&mut bytes) {
        if !tell(bytes[..length].to_vec()) {
            return;
        }
    }
}
