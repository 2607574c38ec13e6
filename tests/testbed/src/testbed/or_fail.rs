//! Errors that end a test.

use anyhow::Error;

/// Ends the test on an error, with all its causes.
pub trait OrFail<T> {
    /// The value, or a panic that says what was being done and what went wrong.
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
