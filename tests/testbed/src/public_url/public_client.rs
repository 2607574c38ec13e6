//! Internet clients of a sandbox's public URL.

use super::{SERVICE_PORT, http_address};
use crate::{
    named_internet::{
        curl::CurlCommand,
        raw_http::{RawHttpConnection, RawHttpResponse},
    },
    network::host_router::HOST_UPLINK_V4,
    testbed::{OrFail as _, TestSandbox, Testbed, parse_ip},
};

impl Testbed {
    /// A curl command in the internet that resolves every name to the gateway and accepts any
    /// certificate.
    pub fn curl_from_internet(&self, url: &str) -> CurlCommand<'_> {
        let curl =
            CurlCommand::new(&self.network.internet, self.named_internet().client_files(), url);
        curl.resolving_to(HOST_UPLINK_V4.into()).with_arguments(&["--insecure", "--noproxy", "*"])
    }

    /// Connects from the internet to the gateway. The test writes HTTP on the connection itself.
    #[track_caller]
    pub fn connect_to_gateway(&self) -> RawHttpConnection {
        RawHttpConnection::connect(&self.network.internet, http_address())
            .or_fail("connecting to the gateway")
    }

    /// Connects to the gateway at this address, for example over IPv6.
    #[track_caller]
    pub fn connect_to_gateway_at(&self, address: &str) -> RawHttpConnection {
        let to = (parse_ip(address), http_address().port()).into();
        RawHttpConnection::connect(&self.network.internet, to).or_fail("connecting to the gateway")
    }
}

impl TestSandbox {
    /// A curl command in the internet that fetches `path` from this sandbox's service on
    /// [`SERVICE_PORT`], over `http` or `https`.
    pub fn curl_public_url(&self, scheme: &str, path: &str) -> CurlCommand<'_> {
        self.testbed
            .curl_from_internet(&format!("{scheme}://{}{path}", self.public_host(SERVICE_PORT)))
    }

    /// Connects to the gateway and sends a request. `rest` holds the fields after Host and the rest
    /// of the request. Each line ends with CRLF, and so does the head.
    #[track_caller]
    pub fn send_public_request(&self, line: &str, rest: &str) -> RawHttpConnection {
        let mut talk = self.testbed.connect_to_gateway();
        talk.send(self.public_request_text(line, rest));
        talk
    }

    /// The text of such a request.
    pub fn public_request_text(&self, line: &str, rest: &str) -> String {
        format!("{line} HTTP/1.1\r\nHost: {}\r\n{rest}", self.public_host(SERVICE_PORT))
    }
}

impl RawHttpResponse {
    /// Asserts that the gateway itself responded: with JSON whose code is this status.
    #[track_caller]
    pub fn assert_from_gateway(&self, status: u16) {
        assert_eq!((self.status, &self.page_json()["code"]), (status, &status.into()), "{self:?}");
        assert!(self.page_json()["message"].is_string(), "{self:?}");
    }
}
