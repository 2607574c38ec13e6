//! A running program. It reports one JSON object per line, and waits for "go" after each.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{network::command, wait::eventually};

/// The time limit of a report: an interpreter must start on a busy machine.
const REPORT_TIMEOUT: Duration = Duration::from_secs(60);

/// The program. It is killed on drop at the latest.
pub struct SdkProgram {
    child: Child,
    stdin: Option<ChildStdin>,
    reports: Receiver<String>,
    stderr_reader: Option<JoinHandle<String>>,
}

impl SdkProgram {
    /// Starts the program.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let shown = command::command_line(command);
        let mut child = command.spawn().with_context(|| format!("cannot run {shown}"))?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let told = read_lines(stdout.context("a program without stdout")?);
        let complaints = Some(read_stderr(stderr.context("a program without stderr")?));
        Ok(Self { child, stdin, reports: told, stderr_reader: complaints })
    }

    /// Reads the next report.
    ///
    /// # Errors
    /// The program exits, does not report in time, or reports invalid JSON.
    pub fn next_report(&mut self) -> Result<Value> {
        let Ok(line) = self.reports.recv_timeout(REPORT_TIMEOUT) else {
            bail!("the program tells nothing: {}", self.kill_and_read_stderr());
        };
        serde_json::from_str(&line).with_context(|| format!("the program tells {line:?}"))
    }

    /// Lets the program continue.
    ///
    /// # Errors
    /// The program has exited.
    pub fn resume(&mut self) -> Result<()> {
        let stdin = self.stdin.as_mut().context("the program has been told to finish")?;
        let written = stdin.write_all(b"go\n").and_then(|()| stdin.flush());
        written.with_context(|| {
            format!("the program does not listen: {}", self.kill_and_read_stderr())
        })
    }

    /// Lets the program continue until it exits successfully.
    ///
    /// # Errors
    /// The program exits with an error, or not in time.
    pub fn finish(mut self) -> Result<()> {
        self.resume()?;
        self.stdin = None;
        let status = eventually("the program ends", || self.child.try_wait().ok().flatten())?;
        ensure!(
            status.success(),
            "the program ended with {status}: {}",
            self.kill_and_read_stderr()
        );
        Ok(())
    }

    /// Kills the program and returns its standard error.
    fn kill_and_read_stderr(&mut self) -> String {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.stderr_reader.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for SdkProgram {
    fn drop(&mut self) {
        self.kill_and_read_stderr();
    }
}

fn read_lines(stdout: ChildStdout) -> Receiver<String> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    told
}

fn read_stderr(mut stderr: ChildStderr) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stderr.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
