//! Browsers: pages for people, and a real one that opens a private public URL.

use std::{fs, process::Output};

use policy_tests::{
    gateway::{self, DOMAIN, PORT, TOKEN},
    stage::{Guest, OrFail as _},
    world::{command, host::HOST_V4},
};

use crate::{private, sandbox, website};

/// Seconds that a browser may take on a busy machine.
const LIMIT: &str = "90";

#[test]
fn people_get_pages_and_programs_get_json() {
    let sandbox = sandbox(private());
    let page = ["-H", "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"];
    let urls = [
        (format!("http://{}/", sandbox.host(PORT)), 403),
        (format!("http://{}/", gateway::host("nobody", PORT)), 502),
        (format!("http://{DOMAIN}/"), 400),
    ];
    for (url, status) in &urls {
        let asked = |fields: &[&str]| {
            let fetched = sandbox.stage.visitor(url).with(fields).with(&["--include"]).run();
            assert_eq!(fetched.status, *status, "{url}: {fetched:?}");
            let text = fetched.text();
            let (head, body) = text.split_once("\r\n\r\n").or_fail("a head");
            let is_page = body.to_lowercase().starts_with("<!doctype html>");
            assert_eq!(head.to_lowercase().contains("content-type: text/html"), is_page, "{text}");
            assert_eq!(head.to_lowercase().contains("application/json"), !is_page, "{text}");
            is_page
        };
        assert!(asked(&page));
        assert!(asked(&[&page[..], &["-H", "Sec-Fetch-Mode: navigate"]].concat()));
        assert!(asked(&["-A", "Mozilla/5.0 (X11; Linux x86_64)"]));
        assert!(!asked(&[]));
        assert!(!asked(&["-H", "Accept: application/json", "-A", "Mozilla/5.0"]));
        assert!(!asked(&[&page[..], &["-H", "X-Requested-With: XMLHttpRequest"]].concat()));
        for mode in ["cors", "no-cors", "same-origin", "websocket"] {
            let mode = format!("Sec-Fetch-Mode: {mode}");
            assert!(!asked(&[&page[..], &["-H", &mode]].concat()), "{mode}");
        }
    }
}

/// What a browser in the internet makes of a URL: its document, once it is loaded.
#[track_caller]
fn browse(sandbox: &Guest, url: &str) -> String {
    let home = tempfile::tempdir().or_fail("a directory");
    let mut timeout = sandbox.stage.world.internet.command("timeout").or_fail("a command");
    timeout.args(["--signal=KILL", LIMIT, "chromium", "--headless", "--no-sandbox"]);
    timeout.args(["--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run"]);
    timeout.args(["--disable-background-networking", "--disable-component-update"]);
    timeout.args(["--disable-sync", "--no-proxy-server", "--ignore-certificate-errors"]);
    timeout.arg(format!("--user-data-dir={}", home.path().join("data").display()));
    timeout.arg(format!("--host-resolver-rules=MAP *.{DOMAIN} {HOST_V4}"));
    timeout.args(["--dump-dom", url]).env("HOME", home.path()).env("TMPDIR", home.path());
    let output: Output = command::output(&mut timeout).or_fail("running chromium");
    let document = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {document}\n{complaints}", output.status);
    let _ = fs::remove_dir_all(home.path());
    document
}

#[test]
fn a_browser_opens_a_private_page_and_its_web_socket() {
    let (sandbox, _website) = website(private());
    let token = sandbox.traffic_token();
    for scheme in ["http", "https"] {
        let url = format!("{scheme}://{}/echoing?{TOKEN}={token}", sandbox.host(PORT));
        let document = browse(&sandbox, &url);
        assert!(
            document.contains("<p id=\"echo\">sent back: a browser</p>"),
            "{scheme}: {document}"
        );
    }
}

#[test]
fn a_browser_without_the_token_sees_why() {
    let (sandbox, _website) = website(private());
    let document = browse(&sandbox, &format!("http://{}/echoing", sandbox.host(PORT)));
    assert!(document.contains("403") && document.contains("private"), "{document}");
    let missing = format!("http://{}/", gateway::host("nobody", PORT));
    let document = browse(&sandbox, &missing);
    assert!(document.contains("502") && document.contains("nobody"), "{document}");
}
