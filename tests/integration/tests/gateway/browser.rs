//! Browsers: error pages for people, and a real browser that opens a private public URL.

use std::{fs, process::Output};

use policy_testbed::{
    network::{command, host_router::HOST_UPLINK_V4},
    public_url::{self, GATEWAY_DOMAIN, SERVICE_PORT, TOKEN_NAME},
    testbed::{OrFail as _, TestSandbox},
};

use crate::{gateway_sandbox, private_network, website_sandbox};

/// The time limit of a browser on a busy machine, in seconds.
const MAX_SECONDS: &str = "90";

#[test]
fn people_get_pages_and_programs_get_json() {
    let sandbox = gateway_sandbox(private_network());
    let page = ["-H", "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"];
    let urls = [
        (format!("http://{}/", sandbox.public_host(SERVICE_PORT)), 403),
        (format!("http://{}/", public_url::public_host("nobody", SERVICE_PORT)), 502),
        (format!("http://{GATEWAY_DOMAIN}/"), 400),
    ];
    for (url, status) in &urls {
        let asked = |fields: &[&str]| {
            let fetched = sandbox
                .testbed
                .curl_from_internet(url)
                .with_arguments(fields)
                .with_arguments(&["--include"])
                .run();
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

/// Loads a URL in a browser in the internet and returns the resulting document.
#[track_caller]
fn dump_page(sandbox: &TestSandbox, url: &str) -> String {
    let home = tempfile::tempdir().or_fail("a directory");
    let mut timeout = sandbox.testbed.network.internet.command("timeout").or_fail("a command");
    timeout.args(["--signal=KILL", MAX_SECONDS, "chromium", "--headless", "--no-sandbox"]);
    timeout.args(["--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run"]);
    timeout.args(["--disable-background-networking", "--disable-component-update"]);
    timeout.args(["--disable-sync", "--no-proxy-server", "--ignore-certificate-errors"]);
    timeout.arg(format!("--user-data-dir={}", home.path().join("data").display()));
    timeout.arg(format!("--host-resolver-rules=MAP *.{GATEWAY_DOMAIN} {HOST_UPLINK_V4}"));
    timeout.args(["--dump-dom", url]).env("HOME", home.path()).env("TMPDIR", home.path());
    let output: Output = command::run_unchecked(&mut timeout).or_fail("running chromium");
    let document = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {document}\n{complaints}", output.status);
    let _ = fs::remove_dir_all(home.path());
    document
}

#[test]
fn a_browser_opens_a_private_page_and_its_web_socket() {
    let (sandbox, _website) = website_sandbox(private_network());
    let token = sandbox.traffic_token();
    for scheme in ["http", "https"] {
        let url = format!(
            "{scheme}://{}/echoing?{TOKEN_NAME}={token}",
            sandbox.public_host(SERVICE_PORT)
        );
        let document = dump_page(&sandbox, &url);
        assert!(
            document.contains("<p id=\"echo\">sent back: a browser</p>"),
            "{scheme}: {document}"
        );
    }
}

#[test]
fn a_browser_without_the_token_sees_why() {
    let (sandbox, _website) = website_sandbox(private_network());
    let document =
        dump_page(&sandbox, &format!("http://{}/echoing", sandbox.public_host(SERVICE_PORT)));
    assert!(document.contains("403") && document.contains("private"), "{document}");
    let missing = format!("http://{}/", public_url::public_host("nobody", SERVICE_PORT));
    let document = dump_page(&sandbox, &missing);
    assert!(document.contains("502") && document.contains("nobody"), "{document}");
}
