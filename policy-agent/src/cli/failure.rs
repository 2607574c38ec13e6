//! How a command ends that does not end well.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Error;

use crate::{agent, client, policy::Invalid};

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub enum Failure {
    /// What was asked for is wrong.
    BadInput(Error),
    /// It could not be done.
    Failed(Error),
    /// `explain`: the packet is denied. The command itself has said so.
    Denied,
    /// All was said already.
    Said,
    /// Nobody reads the output any more.
    Unread,
}

impl Failure {
    /// Says on stderr what to do, then why, one line each; the exit status.
    pub fn report(self) -> ExitCode {
        let (code, error) = match self {
            Self::BadInput(error) => (2, error),
            Self::Failed(error) => (1, error),
            Self::Denied => return ExitCode::from(3),
            Self::Said => return ExitCode::FAILURE,
            Self::Unread => return ExitCode::SUCCESS,
        };
        let mut stderr = io::stderr().lock();
        // Without a stderr there is nobody to tell.
        let _ = writeln!(stderr, "error: {error}");
        for cause in error.chain().skip(1) {
            let _ = writeln!(stderr, "  because: {}", cause.to_string().trim_end());
        }
        ExitCode::from(code)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        if error.is_bad_input() { Self::BadInput(error.into()) } else { Self::Failed(error.into()) }
    }
}

impl From<agent::Error> for Failure {
    fn from(error: agent::Error) -> Self {
        match error {
            agent::Error::Invalid { .. } => Self::BadInput(error.into()),
            _ => Self::Failed(error.into()),
        }
    }
}

impl From<Invalid> for Failure {
    fn from(invalid: Invalid) -> Self {
        Self::BadInput(invalid.into())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Unread,
            _ => Self::Failed(Error::from(error).context("cannot write the output")),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        match error.io_error_kind() {
            Some(io::ErrorKind::BrokenPipe) => Self::Unread,
            _ => Self::Failed(Error::from(error).context("the agent's answer makes no sense")),
        }
    }
}
