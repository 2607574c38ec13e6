//! The page `/ui` in a real browser: by mouse and by keyboard alone, at the width of a phone and of a
//! desk, dark and light.

use std::{env, fs, path::Path, process::Command};

use policy_testbed::testbed::{OrFail as _, SharedTestbed, TestSandbox, Testbed};
use serde_json::{Value, json};

use crate::devtools::Browser;

const CONFIG: &str = r#"[api]
    listen = "127.0.0.1:3000"
    ui = true
    api_keys = ["e2b_0123"]
    [[api.keys]]
    name = "viewer"
    role = "read"
    key = "view""#;
const PAGE: &str = "http://127.0.0.1:3000/ui";
/// If it is set, pictures of the page are written to this directory.
const SCREENSHOTS: &str = "SCREENSHOTS";

static TESTBED: SharedTestbed = SharedTestbed::with_config(CONFIG);

/// The status of a response over TCP, and its head and body.
#[track_caller]
fn fetch(stage: &Testbed, path: &str) -> (String, String) {
    let mut curl = stage.network.host.command("curl").or_fail("entering the host");
    curl.args(["-s", "-i", "--max-time", "30"]);
    let output = curl.arg(format!("http://127.0.0.1:3000{path}")).output().or_fail("curl");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").or_fail("a head");
    (head.to_lowercase(), body.to_owned())
}

/// A sandbox that was denied something, and a browser on the page.
fn denied_sandbox() -> (TestSandbox, Browser) {
    let sandbox = TESTBED.add_sandbox();
    sandbox.allow_only(&["8.8.8.8"]);
    sandbox.assert_refused("8.8.8.9");
    let mut browser = Browser::start(&sandbox.testbed.network.host);
    browser.show_as(1200, 800, "light");
    browser.open(PAGE);
    (sandbox, browser)
}

fn sign_in(browser: &mut Browser, key: &str) {
    browser.wait_until("document.activeElement.id === 'key'");
    browser.enter_text(key);
    browser.press("Enter");
}

/// Writes a picture if somebody wants it.
fn save_picture(browser: &mut Browser, name: &str) {
    let Some(directory) = env::var_os(SCREENSHOTS) else { return };
    let encoded = Path::new(&directory).join(format!("{name}.base64"));
    fs::write(&encoded, browser.screenshot()).or_fail("writing a picture");
    let decoded = Command::new("base64").arg("-d").arg(&encoded).output().or_fail("base64");
    fs::write(encoded.with_extension("png"), decoded.stdout).or_fail("writing a picture");
    fs::remove_file(encoded).or_fail("removing its encoded form");
}

/// Makes traffic that the charts show, if somebody wants pictures of them.
fn fill_charts(browser: &mut Browser, sandbox: &TestSandbox) {
    for points in 1..10 * usize::from(env::var_os(SCREENSHOTS).is_some()) {
        for _ in 0..points % 4 {
            sandbox.assert_reaches("8.8.8.8");
            sandbox.assert_refused("8.8.8.9");
        }
        browser.wait_until(&format!(
            "(document.querySelector('#rate-chart path')?.getAttribute('d') ?? '').split('L').length > {points}"
        ));
    }
}

#[test]
fn the_page_needs_no_key_and_everything_in_it_does() {
    let stage = TESTBED.testbed();
    for path in ["/ui", "/ui/app.js", "/ui/style.css"] {
        let (head, _) = fetch(&stage, path);
        assert!(head.starts_with("http/1.1 200"), "{path}: {head}");
        for field in ["default-src 'none'", "frame-ancestors 'none'", "nosniff"] {
            assert!(head.contains(field), "{path}: {field}: {head}");
        }
    }
    for path in ["/agent/v1/traffic", "/ui/", "/ui/nothing"] {
        assert!(fetch(&stage, path).0.starts_with("http/1.1 401"), "{path}");
    }
    let over_socket = stage.request("GET", "/ui", &Value::Null);
    assert_eq!(over_socket.status, 404, "{}", over_socket.body);
}

#[test]
fn the_page_is_off_by_default() {
    let stage = Testbed::with_config("[api]\nlisten = \"127.0.0.1:3000\"\napi_keys = [\"k\"]");
    assert!(fetch(&stage, "/ui").0.starts_with("http/1.1 401"));
}

#[test]
fn a_denial_is_found_with_the_keyboard_alone() {
    let (sandbox, mut browser) = denied_sandbox();
    sign_in(&mut browser, "wrong");
    browser.wait_until("document.getElementById('refused').textContent.includes('not accept')");
    sign_in(&mut browser, "view");
    browser.wait_until("document.querySelectorAll('#sandboxes tbody a').length > 0");
    browser.press("/");
    browser.wait_until("document.activeElement.id === 'filter'");
    browser.enter_text(&sandbox.id);
    browser.wait_until("document.querySelectorAll('#sandboxes tbody a').length === 1");
    browser.press("Escape");
    browser.press("j");
    browser.wait_until("document.activeElement.matches('#sandboxes tbody a')");
    browser.press("Enter");
    let hint = format!("policy-agent allow {} 8.8.8.9", sandbox.id);
    let denied = format!("document.getElementById('denied').innerText.includes('{hint}')");
    browser.wait_until(&denied);
    browser.press("Escape");
    browser.wait_until("document.getElementById('details').hidden");
    browser.wait_until("document.activeElement.matches('#sandboxes tbody a')");
}

#[test]
fn a_sandbox_is_watched_with_the_mouse() {
    let (sandbox, mut browser) = denied_sandbox();
    sign_in(&mut browser, "view");
    let link = format!("#sandboxes a[data-id=\"{}\"]", sandbox.id);
    browser.wait_until(&format!("document.querySelector({link:?}) !== null"));
    browser.click("th[data-sort=\"deniedTotal\"] button");
    browser
        .wait_until("document.querySelector('[data-sort=deniedTotal]').ariaSort === 'descending'");
    browser.click(&link);
    browser.wait_until("document.getElementById('denied').innerText.includes('deny_out')");
    // Live: the kernel reports what passes while the page follows.
    sandbox.assert_reaches("8.8.8.8");
    browser.wait_until("document.getElementById('reached').innerText.includes('8.8.8.8')");
    browser.wait_until("document.getElementById('rules').innerText.includes('allowOut[0]')");
    sandbox.apply_config(&json!({
        "mode": "observe", "network": { "denyOut": ["0.0.0.0/0"] },
    }));
    sandbox.assert_reaches("8.8.8.9");
    browser.wait_until("document.getElementById('details-summary').innerText.includes('observed')");
    browser.wait_until("document.getElementById('denied').innerText.includes('would deny')");
    save_picture(&mut browser, "page-sandbox");
    browser.click("#back");
    browser.wait_until("document.getElementById('observed-tile').matches('.active')");
    browser.click("#leave");
    browser.wait_until("!document.getElementById('login').hidden");
    let outside = browser
        .requested
        .iter()
        .filter(|url| !url.starts_with("http://127.0.0.1:3000/") && !url.starts_with("data:"));
    assert_eq!(outside.collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn it_fits_on_a_phone_and_a_desk_in_the_dark_and_in_the_light() {
    let (sandbox, mut browser) = denied_sandbox();
    sign_in(&mut browser, "view");
    browser.wait_until("document.querySelectorAll('#sandboxes tbody a').length > 0");
    fill_charts(&mut browser, &sandbox);
    let mut grounds = Vec::new();
    for (width, height, scheme) in
        [(1200, 800, "light"), (1200, 800, "dark"), (390, 844, "light"), (390, 844, "dark")]
    {
        browser.show_as(width, height, scheme);
        browser.wait_until("document.documentElement.scrollWidth <= innerWidth");
        let form = if width < 600 { "phone" } else { "desk" };
        save_picture(&mut browser, &format!("page-{form}-{scheme}"));
        grounds.push(browser.evaluate("getComputedStyle(document.body).backgroundColor"));
    }
    assert!(grounds[0] != grounds[1] && grounds[0] == grounds[2], "{grounds:?}");
    // What the user chooses comes before what the system says.
    browser.show_as(390, 844, "light");
    browser.click("#theme");
    assert_eq!(browser.evaluate("getComputedStyle(document.body).backgroundColor"), grounds[1]);
    let link = format!("#sandboxes a[data-id=\"{}\"]", sandbox.id);
    browser.click(&link);
    browser.wait_until("document.getElementById('denied').innerText.includes('8.8.8.9')");
    browser.wait_until("document.documentElement.scrollWidth <= innerWidth");
}
