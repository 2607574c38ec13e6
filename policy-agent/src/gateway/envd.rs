//! Protects the operator's endpoints of the E2B SDKs' daemon in a sandbox. The daemon checks access
//! itself, so the traffic token and the host mask do not apply to its port. But it serves endpoints
//! meant only for the operator to anyone.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// The operator's endpoints, for any method. The daemon serves `/init` without a token.
const OPERATOR_PATHS: [&[u8]; 7] =
    [b"init", b"collapse", b"freeze", b"unfreeze", b"fsfreeze", b"fsthaw", b"upgrade"];

/// How often a path is decoded. No legitimate path is encoded more often.
const MAX_DECODINGS: usize = 4;

/// Whether any router could interpret a path as one of the operator's endpoints.
///
/// The comparison ignores case, because some routers do. Routers normalize some elements in
/// different orders: empty and dot segments, parameters, backslashes, control characters. If a path
/// contains any of these, every segment is checked: `/init//..` is `/` to one router and `/init/`
/// to another.
pub(super) fn is_operator_path(path: &str) -> bool {
    let Some(path) = fully_decoded(path.as_bytes()) else { return true };
    let path = path.strip_suffix(b"/").unwrap_or(&path);
    let path = path.strip_prefix(b"/").unwrap_or(path);
    if !is_ambiguous(path) {
        return is_operator_segment(path);
    }
    path.split(|byte| is_separator(*byte)).any(is_operator_segment)
}

/// The fully decoded path, or `None` if it is encoded too often.
fn fully_decoded(path: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut path = Cow::Borrowed(path);
    for _ in 0..=MAX_DECODINGS {
        let next: Cow<'_, [u8]> = percent_decode(&path).into();
        if next == path {
            return Some(path);
        }
        path = Cow::Owned(next.into_owned());
    }
    None
}

fn is_ambiguous(path: &[u8]) -> bool {
    let is_odd = |byte: &u8| *byte != b'/' && is_separator(*byte);
    path.iter().any(is_odd) || path.split(|byte| *byte == b'/').any(is_empty_or_dots)
}

/// Segments that normalization removes.
fn is_empty_or_dots(segment: &[u8]) -> bool {
    matches!(segment, b"" | b"." | b"..")
}

/// Bytes that end a segment or the path for some routers and not for others.
fn is_separator(byte: u8) -> bool {
    matches!(byte, b'/' | b'\\' | b';' | b'?' | b'#') || byte.is_ascii_control() || byte == b' '
}

fn is_operator_segment(segment: &[u8]) -> bool {
    OPERATOR_PATHS.iter().any(|name| name.eq_ignore_ascii_case(segment))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_an_operators_path_is_one() {
        for name in OPERATOR_PATHS {
            let name = std::str::from_utf8(name).expect("ASCII");
            for path in [format!("/{name}"), format!("/{name}/"), format!("//{name}")] {
                assert!(is_operator_path(&path), "{path}");
            }
        }
        for path in [
            "/INIT",
            "/%69nit",
            "/%49NIT",
            "/in%69t/",
            "/%2569nit",
            "/%252569nit",
            "/%25252525252569nit",
            "/init%2f",
            "/init%2F%2f",
            "/%2finit",
            "///init///",
            "/./init",
            "/init/.",
            "/init/./",
            "/init/x/..",
            "/x/../init",
            "/x/%2e%2e/init",
            "/x/%2E./init",
            "/x%2f..%2finit",
            "/../init",
            "/%2e/init",
            "/init//..",
            "/init/a%2fb/..",
            "/%69nit/a%2fb/..",
            "/init;a=b",
            "/;a/init",
            "/init;a/",
            "/init/..;/init",
            "/\\init",
            "/x\\..\\init",
            "/%5cinit",
            "/init%00",
            "/init%00.html",
            "/x%00/../init",
            "/init%20",
            "/init%09",
            "/init%0a",
            "/init%3fx",
            "/init%23x",
            "//files/../init",
        ] {
            assert!(is_operator_path(path), "{path}");
        }
    }

    #[test]
    fn other_paths_are_ordinary() {
        for path in [
            "/",
            "*",
            "/health",
            "/files",
            "/initial",
            "/init.html",
            "/xinit",
            "/init/x",
            "/files/init",
            "/files%2finit",
            "/files/init/",
            "/files/%69nit",
            "/a//b/../c;d",
            "/process.Process/Start",
            "/filesystem.Filesystem/ListDir",
            "/100%",
            "/%zz",
            "/caf%c3%a9",
        ] {
            assert!(!is_operator_path(path), "{path}");
        }
    }
}
