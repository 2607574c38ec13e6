//! The version of the running kernel, for features that cannot be probed.

use nix::sys::utsname::uname;

/// The kernel's release, as printed by `uname -r`.
pub(crate) fn running_release() -> Option<String> {
    uname().ok().map(|name| name.release().to_string_lossy().into_owned())
}

/// The running kernel's major and minor version.
pub(crate) fn running_version() -> Option<(u32, u32)> {
    parse_release(&running_release()?)
}

/// The first two numbers of a release.
pub(crate) fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_have_all_sorts_of_ends() {
        assert_eq!(parse_release("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(parse_release("6.6"), Some((6, 6)));
        assert_eq!(parse_release("5.15.0-1084-aws"), Some((5, 15)));
        assert_eq!(parse_release("linux"), None);
    }
}
