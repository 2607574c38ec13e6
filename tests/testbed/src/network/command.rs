//! Runs the programs that build a test network (`ip`). Errors name the failing line and the reason.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// Runs a program to completion and returns its standard output. Fails with its stderr if the
/// program fails.
pub fn run(command: &mut Command) -> Result<String> {
    let output = run_unchecked(command)?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed ({}): {}", command_line(command), output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program to completion, with any exit code.
pub fn run_unchecked(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null());
    command.output().with_context(|| format!("cannot run {}", command_line(command)))
}

/// Runs lines of `ip` commands in the namespace `netns`, or in the caller's. Stops at the first
/// failure.
pub fn ip_batch(netns: Option<&str>, lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(netns) = netns {
        command.args(["-n", netns]);
    }
    command.args(["-batch", "-"]);
    let output = run_with_stdin(&mut command, lines)?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let at = netns.unwrap_or("the current namespace");
        bail!("`ip` in {at}: {}\n{}", stderr.trim(), number_lines(lines));
    }
    Ok(())
}

fn run_with_stdin(command: &mut Command, input: &str) -> Result<Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let what = command_line(command);
    let mut child = command.spawn().with_context(|| format!("cannot run {what} (iproute2)"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).with_context(|| format!("writing to {what}"))?;
    }
    child.wait_with_output().with_context(|| format!("waiting for {what}"))
}

/// Numbers the lines, since `ip -batch` reports the failing command by its line number only.
fn number_lines(lines: &str) -> String {
    let numbered = lines.lines().enumerate();
    numbered.map(|(i, line)| format!("  {}: {}\n", i + 1, line.trim())).collect()
}

/// Formats a command as one would type it.
pub fn command_line(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    format!("`{}`", words.join(" "))
}
