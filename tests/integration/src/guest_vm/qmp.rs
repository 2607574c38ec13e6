//! QEMU's monitor protocol (QMP): JSON lines over a Unix socket.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use policy_testbed::wait::{WAIT_LIMIT, eventually};

/// A connection to a machine's monitor.
pub struct QmpClient {
    stream: BufReader<UnixStream>,
}

impl QmpClient {
    /// Connects to the monitor of a machine that has just started.
    pub(super) fn connect(socket: &Path) -> Result<Self> {
        let stream = eventually("QEMU's monitor", || UnixStream::connect(socket).ok())?;
        stream.set_read_timeout(Some(*WAIT_LIMIT))?;
        let mut monitor = Self { stream: BufReader::new(stream) };
        monitor.read_message().context("QEMU's greeting")?;
        monitor.execute("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    /// Runs a command and returns its result.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let line = json!({ "execute": command, "arguments": arguments });
        let doing = || format!("asking QEMU to {command}");
        writeln!(self.stream.get_mut(), "{line}").with_context(doing)?;
        loop {
            // Events may arrive before the response.
            let answer = self.read_message().with_context(doing)?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU refuses to {command}: {error}");
            }
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
        }
    }

    fn read_message(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("QEMU says {line:?}"))
    }
}
