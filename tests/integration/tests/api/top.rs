//! `policy-agent top` on a terminal.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use nix::pty::{Winsize, openpty};
use policy_testbed::{
    agent::agent_binary,
    testbed::{OrFail as _, SharedTestbed, TestSandbox},
    wait::eventually,
};

static TESTBED: SharedTestbed = SharedTestbed::with_config("");

/// `policy-agent top` in a pseudoterminal of its own.
struct TopSession {
    child: Child,
    keyboard: File,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl TopSession {
    #[track_caller]
    fn start(sandbox: &TestSandbox, arguments: &[&str]) -> Self {
        let size = Winsize { ws_row: 30, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(&size, None).or_fail("opening a pseudoterminal");
        let end = || Stdio::from(pair.slave.try_clone().or_fail("the terminal's end"));
        let mut command = Command::new(agent_binary().or_fail("the agent's binary"));
        command.arg("top").args(arguments).env("TERM", "xterm-256color");
        command.env("POLICY_AGENT_SOCKET", sandbox.testbed.agent().socket_path());
        let started = command.stdin(end()).stdout(end()).stderr(end()).spawn();
        let child = started.or_fail("starting top");
        let keyboard = File::from(pair.master);
        let mut screen = keyboard.try_clone().or_fail("the terminal");
        let shown = Arc::<Mutex<Vec<u8>>>::default();
        let received = Arc::clone(&shown);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut bytes) {
                locked(&received).extend_from_slice(&bytes[..length]);
            }
        });
        Self { child, keyboard, shown }
    }

    /// Presses keys.
    #[track_caller]
    fn press(&mut self, keys: &str) {
        locked(&self.shown).clear();
        self.keyboard.write_all(keys.as_bytes()).or_fail("pressing keys");
    }

    /// Waits until a text was drawn since keys were last pressed.
    #[track_caller]
    fn wait_for(&self, text: &str) {
        let found = || {
            let shown = String::from_utf8_lossy(&locked(&self.shown)).into_owned();
            (shown.contains(text) || words(&shown).contains(text)).then_some(())
        };
        eventually(text, found).or_fail(text);
    }

    /// Waits for the end of the command, which succeeds.
    #[track_caller]
    fn wait_for_end(&mut self) {
        let ended = eventually("the end", || self.child.try_wait().or_fail("waiting"));
        assert!(ended.or_fail("waiting").success());
    }
}

/// The words that were drawn, with one space where the cursor moved: blanks are not drawn again.
fn words(shown: &str) -> String {
    let mut parts = shown.split("\u{1b}[");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(part.len());
        let (sequence, drawn) = part.split_at(end);
        let moves = drawn.starts_with('H') && !sequence.is_empty();
        text.push_str(if moves && !text.ends_with(' ') { " " } else { "" });
        text.push_str(drawn.get(1..).unwrap_or_default());
    }
    text
}

/// What was drawn. A poisoned lock is usable: the test that failed says so itself.
fn locked(shown: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    shown.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for TopSession {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn sandboxes_and_the_denials_of_one_are_watched() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.allow_only(&["8.8.8.8"]);
    let mut top = TopSession::start(&sandbox, &["--interval", "1"]);
    top.wait_for("SANDBOX");
    top.wait_for(&sandbox.id);
    top.press(&format!("/{}\r", sandbox.id));
    top.wait_for("filter:");
    top.press("\r");
    top.wait_for("ALLOW WITH");
    sandbox.assert_refused("8.8.8.9");
    top.wait_for(&format!("policy-agent allow {} 8.8.8.9", sandbox.id));
    sandbox.assert_reaches("8.8.8.8");
    top.wait_for("allow_out");
    top.press("\u{1b}");
    top.wait_for("PROXIED");
    top.press("?");
    top.wait_for("reverse the order");
    top.press("xq");
    top.wait_for_end();
    // The screen that was there before is shown again.
    top.wait_for("\u{1b}[?1049l");
}

#[test]
fn one_sandbox_is_shown_at_first() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.apply_network(serde_json::json!({}));
    let mut top = TopSession::start(&sandbox, &[&sandbox.id]);
    top.wait_for("Reached");
    top.press("\u{3}");
    top.wait_for_end();
}

#[test]
fn without_a_terminal_or_a_sandbox_it_says_so() {
    let sandbox = TESTBED.add_sandbox();
    let output = sandbox.testbed.cli(&["top"]);
    assert_eq!(output.exit_code, 1, "{output:?}");
    assert!(output.stderr.contains("top needs a terminal"), "{output:?}");
    let mut top = TopSession::start(&sandbox, &["nosuch"]);
    top.wait_for("there is no sandbox \"nosuch\"");
    let ended = eventually("the end", || top.child.try_wait().or_fail("waiting"));
    assert_eq!(ended.or_fail("waiting").code(), Some(1));
}

#[test]
fn traffic_leaves_out_the_configuration() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.allow_only(&["8.8.8.8"]);
    sandbox.assert_reaches("8.8.8.8");
    let all = sandbox.testbed.request("GET", "/agent/v1/traffic", &serde_json::Value::Null);
    let all = all.json();
    let entry = all.as_array().or_fail("a list").iter().find(|it| it["sandboxID"] == *sandbox.id);
    let entry = entry.or_fail("the sandbox");
    assert!(entry["passed"]["packets"].as_u64() > Some(0), "{entry}");
    assert_eq!((entry.get("network"), entry.get("mode")), (None, None), "{entry}");
}
