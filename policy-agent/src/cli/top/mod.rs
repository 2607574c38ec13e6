//! The `top` command: a live view of all sandboxes, and of what one of them does.
//!
//! ```text
//! feeds (agent, keyboard) ──► view_state (sandbox_rates, flow_details) ──► screen (list, details)
//! ```

mod details_screen;
mod feeds;
mod flow_details;
mod list_screen;
mod quantities;
mod sandbox_rates;
mod screen;
#[cfg(test)]
mod tests;
mod view_state;

use std::{
    io::{self, IsTerminal as _},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use clap::Args;
use ratatui::DefaultTerminal;

use self::{
    feeds::{FeedUpdate, Feeds},
    view_state::{ViewAction, ViewState},
};
use super::{cli_failure::CliFailure, client::ApiClient, runtime::block_on};

/// Watch what sandboxes do
///
/// Shows the sandboxes with the most traffic first: their rates, what was denied to them, their
/// connections through the egress proxy, and which of them are only observed. Enter shows what one of
/// them reaches, by which rule, and what it is denied. While it does, the kernel reports new flows.
#[derive(Args)]
#[command(after_help = "Keys:
  ↑ ↓ PgUp PgDn Home End   select a sandbox
  Enter, Esc               show one, go back
  s, r                     sort by the next column, reverse the order
  /                        show only IDs that contain a text
  ?                        help
  q                        quit")]
pub(super) struct TopCommand {
    /// Show this sandbox at first
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    interval: u64,
}

impl TopCommand {
    pub(super) fn run(self, socket: &Path) -> Result<(), CliFailure> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            let problem = "top needs a terminal; programs read `get -o json` or /agent/v1/traffic";
            return Err(CliFailure::Failed(anyhow!(problem)));
        }
        let client = ApiClient::new(socket);
        block_on(watch(&client, self.id, Duration::from_secs(self.interval)))?
    }
}

/// Puts the terminal back into the state that it had, however the view ends.
struct TerminalGuard;

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

async fn watch(
    client: &ApiClient,
    id: Option<String>,
    interval: Duration,
) -> Result<(), CliFailure> {
    // What is wrong is said before the screen is taken.
    let traffic = feeds::fetch_traffic(client).await?;
    let mut feeds = Feeds::new(client.clone(), interval);
    let mut state = ViewState::default();
    state.add_traffic(traffic, Instant::now());
    if let Some(id) = id {
        feeds.follow(&id).await?;
        state.open_details(&id);
    }
    let _guard = TerminalGuard;
    let mut terminal = ratatui::try_init()?;
    feeds.start();
    show(&mut terminal, &mut state, &mut feeds).await
}

async fn show(
    terminal: &mut DefaultTerminal,
    state: &mut ViewState,
    feeds: &mut Feeds,
) -> Result<(), CliFailure> {
    loop {
        terminal.draw(|frame| screen::draw(frame, state))?;
        let Some(update) = feeds.next().await else { return Ok(()) };
        let action = match update {
            FeedUpdate::Key(key) => state.press(key),
            FeedUpdate::Resized => None,
            FeedUpdate::Traffic(Ok(traffic)) => {
                state.add_traffic(traffic, Instant::now());
                None
            }
            FeedUpdate::Traffic(Err(problem)) | FeedUpdate::FlowsEnded(problem) => {
                state.report_problem(problem);
                None
            }
            FeedUpdate::Flows(flows) => {
                state.add_flows(&flows);
                None
            }
        };
        match action {
            Some(ViewAction::Quit) => return Ok(()),
            Some(ViewAction::Follow(id)) => {
                if let Err(error) = feeds.follow(&id).await {
                    state.report_problem(error.to_string());
                }
            }
            Some(ViewAction::Unfollow) => feeds.unfollow(),
            None => {}
        }
    }
}
