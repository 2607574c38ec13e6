//! Clients that come from the internet to a sandbox's public URL.

use super::{PORT, http};
use crate::{
    names::{
        curl::Curl,
        raw::{Reply, Talk},
    },
    stage::{Guest, OrFail as _, Stage, ip},
    world::host::HOST_V4,
};

impl Stage {
    /// A curl in the internet that finds every name at the gateway. It takes any certificate.
    pub fn visitor(&self, url: &str) -> Curl<'_> {
        let curl = Curl::fetching(&self.world.internet, self.names().files(), url);
        curl.misled_to(HOST_V4.into()).with(&["--insecure", "--noproxy", "*"])
    }

    /// A connection from the internet to the gateway, on which the test writes HTTP itself.
    #[track_caller]
    pub fn knock(&self) -> Talk {
        Talk::from(&self.world.internet, http()).or_fail("connecting to the gateway")
    }

    /// The same by IPv6.
    #[track_caller]
    pub fn knock_at(&self, address: &str) -> Talk {
        let to = (ip(address), http().port()).into();
        Talk::from(&self.world.internet, to).or_fail("connecting to the gateway")
    }
}

impl Guest {
    /// A curl in the internet that will fetch `path` of this sandbox's service at [`PORT`], over
    /// `http` or `https`.
    pub fn fetch(&self, scheme: &str, path: &str) -> Curl<'_> {
        self.stage.visitor(&format!("{scheme}://{}{path}", self.host(PORT)))
    }

    /// A connection to the gateway on which a request was sent: its line, and fields besides Host
    /// with what follows (each line, and the end of the head, with CRLF).
    #[track_caller]
    pub fn ask(&self, line: &str, rest: &str) -> Talk {
        let mut talk = self.stage.knock();
        talk.say(self.request(line, rest));
        talk
    }

    /// The text of such a request.
    pub fn request(&self, line: &str, rest: &str) -> String {
        format!("{line} HTTP/1.1\r\nHost: {}\r\n{rest}", self.host(PORT))
    }
}

impl Reply {
    /// Whether it is an answer of the gateway itself: JSON with this status as its code.
    #[track_caller]
    pub fn is_of_gateway(&self, status: u16) {
        assert_eq!((self.status, &self.page()["code"]), (status, &status.into()), "{self:?}");
        assert!(self.page()["message"].is_string(), "{self:?}");
    }
}
