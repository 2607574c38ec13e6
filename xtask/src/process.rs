//! Runs programs. Their output is shown as it arrives ([`run_streamed`]), written to a log with
//! progress on the terminal ([`run_logged`]), or returned ([`run_output`]).

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::host;

/// How often a long step reports progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(15);
/// The time limit of a step. A step that takes longer hangs, most likely on the network.
const STEP_DEADLINE: Duration = Duration::from_secs(20 * 60);
/// The number of log lines shown when a step fails.
const TAIL_LINES: usize = 25;

/// Runs a program that reports its own progress. Fails if the program fails.
pub(crate) fn run_streamed(command: &mut Command) -> Result<()> {
    report(&format!("running {}", command_line(command)));
    let status =
        command.status().with_context(|| format!("cannot run {}", command_line(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", command_line(command));
    }
    Ok(())
}

/// Replaces this process with the program, whose exit code and last line become those of xtask.
pub(crate) fn exec(command: &mut Command) -> Result<()> {
    report(&format!("running {}", command_line(command)));
    let error = command.exec();
    Err(error).with_context(|| format!("cannot run {}", command_line(command)))
}

/// Runs a program and returns what it prints.
pub(crate) fn run_output(command: &mut Command) -> Result<String> {
    let output =
        command.output().with_context(|| format!("cannot run {}", command_line(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed ({}): {}", command_line(command), output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a verbose program with its output in `target/log/<log>.log`.
pub(crate) fn run_logged(what: &str, log: &str, command: &mut Command) -> Result<()> {
    run_logged_within(STEP_DEADLINE, what, log, command)
}

/// Like [`run_logged`], in parallel with a step that shows its own progress.
pub(crate) fn run_logged_quietly(what: &str, log: &str, command: &mut Command) -> Result<()> {
    let log = log_file(log)?;
    let file = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
    report(&format!("{what} (log: {})", log.display()));
    command.stdout(file.try_clone()?).stderr(file).stdin(Stdio::null());
    let status =
        command.status().with_context(|| format!("cannot run {}", command_line(command)))?;
    if !status.success() {
        bail!("{} failed ({status}): see {}", command_line(command), log.display());
    }
    Ok(())
}

/// Like [`run_logged`], with a time limit for a program that is likely to hang.
pub(crate) fn run_logged_within(
    deadline: Duration,
    what: &str,
    log: &str,
    command: &mut Command,
) -> Result<()> {
    let log = log_file(log)?;
    let file = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
    report(&format!("{what} (log: {})", log.display()));

    let begin = Instant::now();
    command.stdout(file.try_clone()?).stderr(file).stdin(Stdio::null());
    let child = command.spawn().with_context(|| format!("cannot run {}", command_line(command)))?;
    let status = wait_with_progress(child, begin, deadline)?;
    let tail = || fs::read(&log).map(|text| log_tail(&String::from_utf8_lossy(&text)));
    match status {
        Some(status) if status.success() => {}
        Some(status) => {
            bail!("{} failed ({status}); its output ends:\n{}", command_line(command), tail()?)
        }
        None => {
            bail!("{} took more than {deadline:?}; its output:\n{}", command_line(command), tail()?)
        }
    }
    report(&format!("done in {} s", begin.elapsed().as_secs()));
    Ok(())
}

fn log_file(name: &str) -> Result<PathBuf> {
    let logs = host::target_dir().join("log");
    fs::create_dir_all(&logs)?;
    Ok(logs.join(name).with_extension("log"))
}

/// Waits for the child and reports progress. `None` if the deadline passed and the child was
/// killed.
fn wait_with_progress(
    mut child: Child,
    begin: Instant,
    deadline: Duration,
) -> Result<Option<ExitStatus>> {
    let mut told = Duration::ZERO;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let elapsed = begin.elapsed();
        if elapsed > deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        if elapsed - told >= PROGRESS_INTERVAL {
            told = elapsed;
            report(&format!("... {} s", elapsed.as_secs()));
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn log_tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// Prints one line about what xtask does, on stderr, since stdout belongs to the programs it runs.
pub(crate) fn report(line: &str) {
    eprintln!("xtask: {line}");
}

fn command_line(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    format!("`{}`", words.join(" "))
}
