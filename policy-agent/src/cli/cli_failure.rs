//! Failures of a command and their exit codes.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Error;

use super::client;
use crate::{agent, policy::ValidationError};

/// Why a command failed.
#[derive(Debug)]
pub(super) enum CliFailure {
    /// The arguments or the input are invalid.
    BadInput(Error),
    /// The command could not be carried out.
    Failed(Error),
    /// `explain`: the packet is denied. The command has printed the verdict.
    Denied,
    /// The command has reported the failure itself.
    AlreadyReported,
    /// The reader closed the output.
    OutputClosed,
}

impl CliFailure {
    /// The error. Commands that report failures themselves have none.
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::BadInput(error) | Self::Failed(error) => error,
            Self::Denied | Self::AlreadyReported | Self::OutputClosed => Error::msg("it failed"),
        }
    }

    /// Prints the error and its causes to stderr, one line each, and returns the exit code.
    pub(super) fn report(self) -> ExitCode {
        let (code, error) = match self {
            Self::BadInput(error) => (2, error),
            Self::Failed(error) => (1, error),
            Self::Denied => return ExitCode::from(3),
            Self::AlreadyReported => return ExitCode::FAILURE,
            Self::OutputClosed => return ExitCode::SUCCESS,
        };
        let mut stderr = io::stderr().lock();
        // A failed write to stderr cannot be reported anywhere.
        let _ = writeln!(stderr, "error: {error}");
        for cause in error.chain().skip(1) {
            let _ = writeln!(stderr, "  because: {}", cause.to_string().trim_end());
        }
        ExitCode::from(code)
    }
}

impl From<Error> for CliFailure {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<client::ApiClientError> for CliFailure {
    fn from(error: client::ApiClientError) -> Self {
        if error.is_bad_input() { Self::BadInput(error.into()) } else { Self::Failed(error.into()) }
    }
}

impl From<agent::AgentError> for CliFailure {
    fn from(error: agent::AgentError) -> Self {
        match error {
            agent::AgentError::Invalid { .. } => Self::BadInput(error.into()),
            _ => Self::Failed(error.into()),
        }
    }
}

impl From<ValidationError> for CliFailure {
    fn from(invalid: ValidationError) -> Self {
        Self::BadInput(invalid.into())
    }
}

impl From<io::Error> for CliFailure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Failed(Error::from(error).context("cannot write the output")),
        }
    }
}

impl From<serde_json::Error> for CliFailure {
    fn from(error: serde_json::Error) -> Self {
        match error.io_error_kind() {
            Some(io::ErrorKind::BrokenPipe) => Self::OutputClosed,
            _ => Self::Failed(Error::from(error).context("the agent's answer makes no sense")),
        }
    }
}
