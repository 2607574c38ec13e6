//! Turns errors into panics with context.

use anyhow::Error;

/// Panics on an error, with all its causes.
pub trait OrFail<T> {
    /// Returns the value, or panics with the operation and the error.
    fn or_fail(self, doing: &str) -> T;
}

impl<T, E: Into<Error>> OrFail<T> for Result<T, E> {
    #[track_caller]
    fn or_fail(self, doing: &str) -> T {
        match self {
            Ok(value) => value,
            Err(error) => panic!("{doing}: {:#}", error.into()),
        }
    }
}

impl<T> OrFail<T> for Option<T> {
    #[track_caller]
    fn or_fail(self, doing: &str) -> T {
        self.unwrap_or_else(|| panic!("{doing}: there is none"))
    }
}
