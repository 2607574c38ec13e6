//! `doctor`

use std::path::Path;

use clap::Args;

use super::{
    failure::Failure,
    options::Places,
    output::{self, Form, Output},
};
use crate::doctor::{Finding, State, examine};

/// Say what this machine has of what the agent needs, and how to mend the rest
///
/// Says what this machine has of what the agent needs, and how to mend the rest. Exit status 1 when
/// something is missing without which the agent cannot work.
#[derive(Args)]
pub struct Doctor {
    #[command(flatten)]
    places: Places,
    #[command(flatten)]
    output: Output,
}

impl Doctor {
    pub fn run(self, socket: &Path) -> Result<(), Failure> {
        let config = self.places.load()?;
        let findings = examine(&config, socket);
        match self.output.form {
            Form::Json => output::json(&findings)?,
            Form::Table => findings.iter().try_for_each(show)?,
        }
        let missing = findings.iter().any(|finding| finding.state == State::Missing);
        if missing { Err(Failure::Said) } else { Ok(()) }
    }
}

fn show(finding: &Finding) -> Result<(), Failure> {
    let Finding { state, what, found, mend } = finding;
    output::line(format_args!("{:<10}{what:<22}{found}", state.word()))?;
    match mend {
        Some(mend) => output::line(format_args!("{:<10}{:<22}→ {mend}", "", "")),
        None => Ok(()),
    }
}
