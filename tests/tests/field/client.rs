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
use policy_tests::{
    names::{curl::CA, program},
    stage::{Guest, OrFail as _},
    world::unique,
};
use tempfile::TempDir;

/// How long a client may take, on a busy machine: less than some do that try a refused name again.
const LIMIT: Duration = Duration::from_secs(60);
/// Where programs are, whatever the user's path says.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// A client with a home of its own, which is also where it starts.
pub struct Client<'a> {
    sandbox: &'a Guest,
    home: TempDir,
}

/// What became of one of its runs.
#[derive(Debug)]
pub struct Ran {
    /// Its exit status; none if it did not end in time.
    code: Option<i32>,
    /// What it said, on stdout and stderr.
    pub text: String,
}

impl<'a> Client<'a> {
    /// A client in a sandbox.
    #[track_caller]
    pub fn new(sandbox: &'a Guest) -> Self {
        let home = tempfile::Builder::new().prefix(&unique("home")).tempdir();
        Self { sandbox, home: home.or_fail("making a home") }
    }

    /// A path in its home.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Puts a file there.
    #[track_caller]
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().or_fail("a directory")).or_fail("making a directory");
        fs::write(path, text).or_fail("writing a file");
    }

    /// What it has put there.
    #[track_caller]
    pub fn read(&self, name: &str) -> String {
        let text = fs::read(self.path(name)).with_context(|| format!("no {name}"));
        String::from_utf8_lossy(&text.or_fail("reading what a client wrote")).into_owned()
    }

    /// The certificate of the authority that it trusts.
    pub fn ca(&self) -> PathBuf {
        self.sandbox.stage.names().files().join(CA)
    }

    /// Runs a program with these variables in its environment.
    #[track_caller]
    pub fn run<A: AsRef<OsStr>>(
        &self,
        program: impl AsRef<Path>,
        arguments: &[A],
        variables: &[(&str, &OsStr)],
    ) -> Ran {
        let files = self.sandbox.stage.names().files();
        let command = program::within(&self.sandbox.inside, files, program.as_ref());
        let mut command = command.or_fail("entering the sandbox");
        command.args(arguments).current_dir(self.home.path()).process_group(0);
        command.env_clear().env("PATH", PATH).env("HOME", self.home.path());
        command.envs(variables.iter().copied());
        ended(&mut command, self.home.path()).or_fail("running a client")
    }
}

fn ended(command: &mut Command, home: &Path) -> Result<Ran> {
    let said = home.join(unique("said"));
    let file = File::create(&said)?;
    command.stdin(std::process::Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let mut child = command.spawn().context("running unshare (util-linux)")?;
    let code = wait(&mut child)?;
    Ok(Ran { code, text: String::from_utf8_lossy(&fs::read(&said)?).into_owned() })
}

/// Its exit status. One that does not end in time is killed, with all that it has started.
fn wait(child: &mut Child) -> Result<Option<i32>> {
    let begin = std::time::Instant::now();
    while begin.elapsed() < LIMIT {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.code().unwrap_or(-1)));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
    child.wait()?;
    Ok(None)
}

impl Ran {
    /// It did what it was to do.
    #[track_caller]
    pub fn succeeded(&self) -> &str {
        assert_eq!(self.code, Some(0), "the client failed: {}", self.text);
        &self.text
    }

    /// It ended by itself, with an error that says this, in whatever letters.
    #[track_caller]
    pub fn failed_with(&self, why: &str) {
        assert!(!matches!(self.code, Some(0) | None), "{:?}: {}", self.code, self.text);
        self.says(why);
    }

    /// It ended by itself, with an error that says that access is denied.
    #[track_caller]
    pub fn failed_with_denial(&self) {
        self.failed_with("");
        self.says_denial();
    }

    /// It said that access is denied, in the words of its TLS library: the description of the alert
    /// `access_denied` (RFC 8446).
    #[track_caller]
    pub fn says_denial(&self) {
        let text = self.text.to_lowercase();
        let words = ["access denied", "access was denied", "access_denied"];
        assert!(words.iter().any(|words| text.contains(words)), "no denial in {}", self.text);
    }

    /// The line of what it said that begins like this.
    #[track_caller]
    pub fn line(&self, begin: &str) -> Self {
        let line = self.text.lines().find(|line| line.starts_with(begin));
        let text = line.unwrap_or_else(|| panic!("no {begin:?} in {}", self.text)).to_owned();
        Self { code: self.code, text }
    }

    /// It said this, in whatever letters.
    #[track_caller]
    pub fn says(&self, what: &str) {
        let text = self.text.to_lowercase();
        assert!(text.contains(&what.to_lowercase()), "{what:?} is not in {}", self.text);
    }
}
