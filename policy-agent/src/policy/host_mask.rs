//! `maskRequestHost`: the Host header that the service inside a sandbox sees.

use super::{ValidationError, authority};

/// Replaced with the port of the request.
const PORT_PLACEHOLDER: &str = "${PORT}";

/// A Host header with any number of `${PORT}` placeholders.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostMask(String);

impl HostMask {
    /// Checks that every port results in a valid Host header.
    pub(super) fn new(text: &str) -> Result<Self, ValidationError> {
        let refuse = |problem: String| {
            ValidationError::about_entry("network.maskRequestHost", text, problem)
        };
        if !text.is_ascii() {
            return Err(refuse("write the host in ASCII (xn--… for other scripts)".to_owned()));
        }
        if text.replace(PORT_PLACEHOLDER, "").contains('$') {
            return Err(refuse(format!("only {PORT_PLACEHOLDER} is replaced; remove the other $")));
        }
        let mask = Self(text.to_owned());
        // The longest port reveals headers that become too long or ports that become too large. The
        // shortest reveals all other errors.
        for port in [1, u16::MAX] {
            authority::parse_authority(&mask.render(port)).map_err(refuse)?;
        }
        Ok(mask)
    }

    /// The Host header for a request to this port.
    #[must_use]
    pub fn render(&self, port: u16) -> String {
        self.0.replace(PORT_PLACEHOLDER, &port.to_string())
    }

    /// The mask as the user wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_stands_anywhere() {
        for (mask, on_3000) in [
            ("localhost", "localhost"),
            ("localhost:${PORT}", "localhost:3000"),
            ("localhost:8080", "localhost:8080"),
            ("${PORT}.example.com", "3000.example.com"),
            ("${PORT}-app.example.com:${PORT}", "3000-app.example.com:3000"),
            ("Example.COM.", "Example.COM."),
            ("127.0.0.1:${PORT}", "127.0.0.1:3000"),
            ("[::1]:${PORT}", "[::1]:3000"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ] {
            let read = HostMask::new(mask).unwrap_or_else(|error| panic!("{mask}: {error}"));
            assert_eq!(read.render(3000), on_3000);
            assert_eq!(read.as_str(), mask);
        }
    }

    #[test]
    fn what_no_host_header_can_be_is_refused() {
        for (mask, advice) in [
            ("", "empty"),
            ("bücher.example", "ASCII"),
            ("http://example.com", "scheme"),
            ("example.com/path", "cannot stand in a name"),
            ("a b", "cannot stand in a name"),
            ("a\r\nX-Evil: 1", "cannot stand in a name"),
            ("user@example.com", "cannot stand in a name"),
            ("example.com:", "1 to 65535"),
            ("example.com:0", "1 to 65535"),
            ("example.com:65536", "1 to 65535"),
            ("example.com:+80", "1 to 65535"),
            ("example.com:8${PORT}", "1 to 65535"),
            ("${PORT}", "end in a number"),
            ("${port}.example.com", "remove the other $"),
            ("$PORT.example.com", "remove the other $"),
            ("::1", "brackets"),
            ("[::1", "not closed"),
            ("[::1]x", "only :port"),
            ("example..com", "empty label"),
        ] {
            let error = HostMask::new(mask).expect_err(mask).to_string();
            assert!(error.starts_with("network.maskRequestHost: "), "{error}");
            assert!(error.contains(advice), "{mask:?}: {error}");
        }
    }
}
