//! A real client in a sandbox: its command line, an environment that contains nothing of the
//! user's, and its result.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use policy_testbed::{
    named_internet::{client_program, curl::CA_FILE},
    network::{unique_directory, unique_name},
    testbed::{OrFail as _, TestSandbox},
};
use tempfile::TempDir;

/// The time limit of a client on a busy machine. It is shorter than the retries of some clients
/// after a refused name.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);
/// The search path for programs, regardless of the user's.
const CLIENT_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// A client with its own home directory, which is also its working directory.
pub(crate) struct FieldClient<'a> {
    sandbox: &'a TestSandbox,
    home: TempDir,
    ca_file: PathBuf,
}

/// The result of a run.
#[derive(Debug)]
pub(crate) struct ClientOutput {
    /// The exit status; `None` if it did not exit in time.
    code: Option<i32>,
    /// The output on stdout and stderr.
    pub(crate) output: String,
}

impl<'a> FieldClient<'a> {
    /// A client in a sandbox.
    #[track_caller]
    pub(crate) fn new(sandbox: &'a TestSandbox) -> Self {
        let ca_file = sandbox.testbed.named_internet().client_files().join(CA_FILE);
        Self { sandbox, home: unique_directory("home").or_fail("making a home"), ca_file }
    }

    /// A client that trusts the authority of a sandbox with rules, and no other.
    #[track_caller]
    pub(crate) fn trusting_rules(sandbox: &'a TestSandbox) -> Self {
        let client = Self::new(sandbox);
        client.write_file("authority.pem", sandbox.fetch_authority());
        Self { ca_file: client.home_path("authority.pem"), ..client }
    }

    /// A path in the client's home directory.
    pub(crate) fn home_path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Writes a file in the home directory.
    #[track_caller]
    pub(crate) fn write_file(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.home_path(name);
        fs::create_dir_all(path.parent().or_fail("a directory")).or_fail("making a directory");
        fs::write(path, text).or_fail("writing a file");
    }

    /// Reads a file in the home directory.
    #[track_caller]
    pub(crate) fn read_file(&self, name: &str) -> String {
        let text = fs::read(self.home_path(name)).with_context(|| format!("no {name}"));
        String::from_utf8_lossy(&text.or_fail("reading what a client wrote")).into_owned()
    }

    /// The certificate of the authority that the client trusts.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.ca_file.clone()
    }

    /// Runs a program with these environment variables.
    #[track_caller]
    pub(crate) fn run<A: AsRef<OsStr>>(
        &self,
        program: impl AsRef<Path>,
        arguments: &[A],
        variables: &[(&str, &OsStr)],
    ) -> ClientOutput {
        let files = self.sandbox.testbed.named_internet().client_files();
        let command =
            client_program::client_command(&self.sandbox.namespace, files, program.as_ref());
        let mut command = command.or_fail("entering the sandbox");
        command.args(arguments).current_dir(self.home.path()).process_group(0);
        command.env_clear().env("PATH", CLIENT_PATH).env("HOME", self.home.path());
        command.envs(variables.iter().copied());
        wait_for_output(&mut command, self.home.path()).or_fail("running a client")
    }
}

fn wait_for_output(command: &mut Command, home: &Path) -> Result<ClientOutput> {
    let said = home.join(unique_name("said"));
    let file = File::create(&said)?;
    command.stdin(std::process::Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let mut child = command.spawn().context("running unshare (util-linux)")?;
    let code = wait_or_kill(&mut child)?;
    Ok(ClientOutput { code, output: String::from_utf8_lossy(&fs::read(&said)?).into_owned() })
}

/// Returns the exit status. After the time limit, kills the client and all its children.
fn wait_or_kill(child: &mut Child) -> Result<Option<i32>> {
    let begin = std::time::Instant::now();
    while begin.elapsed() < CLIENT_TIMEOUT {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.code().unwrap_or(-1)));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
    child.wait()?;
    Ok(None)
}

impl ClientOutput {
    /// Asserts success and returns the output.
    #[track_caller]
    pub(crate) fn assert_succeeded(&self) -> &str {
        assert_eq!(self.code, Some(0), "the client failed: {}", self.output);
        &self.output
    }

    /// Asserts an exit with an error that contains `why`, ignoring case.
    #[track_caller]
    pub(crate) fn assert_failed_with(&self, why: &str) {
        assert!(!matches!(self.code, Some(0) | None), "{:?}: {}", self.code, self.output);
        self.assert_mentions(why);
    }

    /// Asserts an exit with an error that reports denied access.
    #[track_caller]
    pub(crate) fn assert_failed_with_denial(&self) {
        self.assert_failed_with("");
        self.assert_mentions_denial();
    }

    /// Asserts that the output reports denied access, in the words of the client's TLS library for
    /// the alert `access_denied` (RFC 8446).
    #[track_caller]
    pub(crate) fn assert_mentions_denial(&self) {
        let text = self.output.to_lowercase();
        let words = ["access denied", "access was denied", "access_denied"];
        assert!(words.iter().any(|words| text.contains(words)), "no denial in {}", self.output);
    }

    /// Returns the output line with this prefix.
    #[track_caller]
    pub(crate) fn line_starting_with(&self, begin: &str) -> Self {
        let line = self.output.lines().find(|line| line.starts_with(begin));
        let text = line.unwrap_or_else(|| panic!("no {begin:?} in {}", self.output)).to_owned();
        Self { code: self.code, output: text }
    }

    /// Asserts that the output contains `what`, ignoring case.
    #[track_caller]
    pub(crate) fn assert_mentions(&self, what: &str) {
        let text = self.output.to_lowercase();
        assert!(text.contains(&what.to_lowercase()), "{what:?} is not in {}", self.output);
    }
}
