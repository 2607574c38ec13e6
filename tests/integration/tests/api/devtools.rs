//! A headless Chromium that a test drives by the DevTools protocol.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::{Child, Stdio},
    time::Duration,
};

use policy_testbed::{
    network::NetworkNamespace, probe, testbed::OrFail as _, wait::eventually_within,
};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket, client};

/// The time limit of an answer of the browser on a busy machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);

/// A browser with one page.
pub(crate) struct Browser {
    child: Child,
    home: tempfile::TempDir,
    socket: WebSocket<TcpStream>,
    session: String,
    last_id: u64,
    /// The URLs of all requests.
    pub(crate) requested: Vec<String>,
}

impl Browser {
    /// Starts a browser in a namespace.
    #[track_caller]
    pub(crate) fn start(namespace: &NetworkNamespace) -> Self {
        let home = tempfile::tempdir().or_fail("a directory");
        let data = home.path().join("data");
        let mut chromium = namespace.command("chromium").or_fail("a command");
        chromium.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]);
        chromium.args(["--disable-dev-shm-usage", "--no-first-run", "--no-proxy-server"]);
        chromium.args(["--disable-background-networking", "--disable-component-update"]);
        chromium.args(["--disable-sync", "--hide-scrollbars", "--remote-debugging-port=0"]);
        chromium.arg(format!("--user-data-dir={}", data.display())).arg("about:blank");
        chromium.env("HOME", home.path()).env("TMPDIR", home.path());
        chromium.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = chromium.spawn().or_fail("starting chromium");
        let place = eventually_within(ANSWER_TIMEOUT, "the browser listens", || {
            let text = fs::read_to_string(data.join("DevToolsActivePort")).ok()?;
            let (port, path) = text.split_once('\n')?;
            Some((port.parse::<u16>().ok()?, path.to_owned()))
        });
        let (port, path) = place.or_fail("waiting for chromium");
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        let stream = probe::connect(namespace, address).or_fail("connecting to chromium");
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).or_fail("a timeout");
        let (socket, _) =
            client(format!("ws://{address}{path}"), stream).or_fail("a DevTools session");
        let (session, last_id, requested) = (String::new(), 0, Vec::new());
        let mut browser = Self { child, home, socket, session, last_id, requested };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = attached["sessionId"].as_str().or_fail("a session").to_owned();
        for domain in ["Page.enable", "Runtime.enable", "Network.enable"] {
            browser.call(domain, json!({}));
        }
        browser
    }

    /// Calls a method and returns its result.
    #[track_caller]
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let mut request = json!({ "id": self.last_id, "method": method, "params": params });
        if !self.session.is_empty() {
            request["sessionId"] = json!(self.session);
        }
        self.socket.send(Message::text(request.to_string())).or_fail(method);
        loop {
            let Message::Text(text) = self.socket.read().or_fail(method) else { continue };
            let message: Value = serde_json::from_str(text.as_str()).or_fail("a message");
            if message["method"] == "Network.requestWillBeSent" {
                let url = &message["params"]["request"]["url"];
                self.requested.push(url.as_str().unwrap_or_default().to_owned());
            }
            if message["id"] == self.last_id {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
        }
    }

    /// Evaluates an expression in the page.
    #[track_caller]
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true });
        let result = self.call("Runtime.evaluate", params);
        assert!(result.get("exceptionDetails").is_none(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub(crate) fn wait_until(&mut self, expression: &str) {
        let holds = eventually_within(ANSWER_TIMEOUT, expression, || {
            (self.evaluate(expression) == true).then_some(())
        });
        if holds.is_err() {
            let text = self.evaluate("document.body.innerText");
            panic!("{expression} does not become true in {text}");
        }
    }

    /// Opens a URL.
    #[track_caller]
    pub(crate) fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", json!({ "url": url }));
        assert!(opened.get("errorText").is_none(), "{url}: {opened}");
        self.wait_until("document.readyState === 'complete'");
    }

    /// Presses a key: a character, or `Enter`, `Escape` or `Tab`.
    #[track_caller]
    pub(crate) fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            "Tab" => (9, ""),
            character => (0, character),
        };
        let event = |kind: &str| {
            let down = kind == "keyDown" && !text.is_empty();
            let text = if down { json!({ "text": text }) } else { json!({}) };
            let mut event = json!({ "type": kind, "key": key, "windowsVirtualKeyCode": code });
            event
                .as_object_mut()
                .or_fail("an object")
                .extend(text.as_object().or_fail("an object").clone());
            event
        };
        self.call("Input.dispatchKeyEvent", event("keyDown"));
        self.call("Input.dispatchKeyEvent", event("keyUp"));
    }

    /// Types a text into what has the focus.
    #[track_caller]
    pub(crate) fn enter_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// Clicks on the middle of an element.
    #[track_caller]
    pub(crate) fn click(&mut self, selector: &str) {
        let middle = format!(
            "(() => {{ const e = document.querySelector({selector:?}); e.scrollIntoView(); \
             const r = e.getBoundingClientRect(); \
             return [r.x + r.width / 2, r.y + r.height / 2]; }})()"
        );
        let at = self.evaluate(&middle);
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({
                "type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1,
            });
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Gives the page a size and a colour scheme.
    #[track_caller]
    pub(crate) fn show_as(&mut self, width: u32, height: u32, scheme: &str) {
        let mobile = width < 600;
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile,
        });
        self.call("Emulation.setDeviceMetricsOverride", size);
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// A picture of the page: PNG in Base64.
    #[track_caller]
    pub(crate) fn screenshot(&mut self) -> String {
        let picture = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        picture["data"].as_str().or_fail("a picture").to_owned()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(self.home.path());
    }
}
