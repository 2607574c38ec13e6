//! Runs the programs that build a world (`ip`), with errors that say which line failed and why.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// Runs a program to its end and returns what it printed; a failing program is an error that holds
/// its stderr.
pub fn run(command: &mut Command) -> Result<String> {
    let output = run_unchecked(command)?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed ({}): {}", command_line(command), output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program to its end, whatever its exit code.
pub fn run_unchecked(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null());
    command.output().with_context(|| format!("cannot run {}", command_line(command)))
}

/// Runs lines of `ip` commands in the namespace `netns`, or where the caller is. The first that
/// fails ends it.
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

/// `ip -batch` names the failing command by its line number only.
fn number_lines(lines: &str) -> String {
    let numbered = lines.lines().enumerate();
    numbered.map(|(i, line)| format!("  {}: {}\n", i + 1, line.trim())).collect()
}

/// A command as a person would type it.
pub fn command_line(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    format!("`{}`", words.join(" "))
}
