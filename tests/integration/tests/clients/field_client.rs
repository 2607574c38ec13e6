//! A real client that runs in a sandbox: its command line, an environment without anything of the
//! user's, and what became of it.

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
    network::unique_name,
    testbed::{OrFail as _, TestSandbox},
};
use tempfile::TempDir;

/// How long a client may take, on a busy machine: less than some do that try a refused name again.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);
/// Where programs are, whatever the user's path says.
const CLIENT_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// A client with a home of its own, which is also where it starts.
pub(crate) struct FieldClient<'a> {
    sandbox: &'a TestSandbox,
    home: TempDir,
}

/// What became of one of its runs.
#[derive(Debug)]
pub(crate) struct ClientOutput {
    /// Its exit status; none if it did not end in time.
    code: Option<i32>,
    /// What it said, on stdout and stderr.
    pub(crate) output: String,
}

impl<'a> FieldClient<'a> {
    /// A client in a sandbox.
    #[track_caller]
    pub(crate) fn new(sandbox: &'a TestSandbox) -> Self {
        let home = tempfile::Builder::new().prefix(&unique_name("home")).tempdir();
        Self { sandbox, home: home.or_fail("making a home") }
    }

    /// A path in its home.
    pub(crate) fn home_path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Puts a file there.
    #[track_caller]
    pub(crate) fn write_file(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.home_path(name);
        fs::create_dir_all(path.parent().or_fail("a directory")).or_fail("making a directory");
        fs::write(path, text).or_fail("writing a file");
    }

    /// What it has put there.
    #[track_caller]
    pub(crate) fn read_file(&self, name: &str) -> String {
        let text = fs::read(self.home_path(name)).with_context(|| format!("no {name}"));
        String::from_utf8_lossy(&text.or_fail("reading what a client wrote")).into_owned()
    }

    /// The certificate of the authority that it trusts.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.sandbox.testbed.named_internet().client_files().join(CA_FILE)
    }

    /// Runs a program with these variables in its environment.
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

/// Its exit status. One that does not end in time is killed, with all that it has started.
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
    /// It did what it was to do.
    #[track_caller]
    pub(crate) fn assert_succeeded(&self) -> &str {
        assert_eq!(self.code, Some(0), "the client failed: {}", self.output);
        &self.output
    }

    /// It ended by itself, with an error that says this, in whatever letters.
    #[track_caller]
    pub(crate) fn assert_failed_with(&self, why: &str) {
        assert!(!matches!(self.code, Some(0) | None), "{:?}: {}", self.code, self.output);
        self.assert_mentions(why);
    }

    /// It ended by itself, with an error that says that access is denied.
    #[track_caller]
    pub(crate) fn assert_failed_with_denial(&self) {
        self.assert_failed_with("");
        self.assert_mentions_denial();
    }

    /// It said that access is denied, in the words of its TLS library: the description of the alert
    /// `access_denied` (RFC 8446).
    #[track_caller]
    pub(crate) fn assert_mentions_denial(&self) {
        let text = self.output.to_lowercase();
        let words = ["access denied", "access was denied", "access_denied"];
        assert!(words.iter().any(|words| text.contains(words)), "no denial in {}", self.output);
    }

    /// The line of what it said that begins like this.
    #[track_caller]
    pub(crate) fn line_starting_with(&self, begin: &str) -> Self {
        let line = self.output.lines().find(|line| line.starts_with(begin));
        let text = line.unwrap_or_else(|| panic!("no {begin:?} in {}", self.output)).to_owned();
        Self { code: self.code, output: text }
    }

    /// It said this, in whatever letters.
    #[track_caller]
    pub(crate) fn assert_mentions(&self, what: &str) {
        let text = self.output.to_lowercase();
        assert!(text.contains(&what.to_lowercase()), "{what:?} is not in {}", self.output);
    }
}
