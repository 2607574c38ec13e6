//! The `delete` command.

use std::path::Path;

use clap::Args;
use futures_util::{StreamExt as _, stream};
use hyper::{Method, body::Bytes};

use super::{
    api_path::escape_path_segment, cli_failure::CliFailure, client::ApiClient, output,
    runtime::block_on,
};

/// The agent deletes sandboxes together whose requests it has at the same time.
const CONCURRENT_REQUESTS: usize = 64;

/// Detach and delete sandboxes
///
/// Removes the policies from the sandboxes' interfaces, and deletes the sandboxes. The interfaces are
/// open from then on, except those of `[[interfaces]]`, which are blocked.
#[derive(Args)]
pub(super) struct DeleteCommand {
    /// The sandboxes to delete
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
}

impl DeleteCommand {
    pub(super) fn run(self, socket: &Path) -> Result<(), CliFailure> {
        let client = ApiClient::new(socket);
        let delete = async |id: &String| {
            let path = format!("/agent/v1/sandboxes/{}", escape_path_segment(id));
            client.request(Method::DELETE, &path, Bytes::new()).await
        };
        let replies = stream::iter(&self.ids).map(delete).buffered(CONCURRENT_REQUESTS);
        let replies: Vec<_> = block_on(replies.collect())?;
        let mut result = Ok(());
        for (id, reply) in self.ids.iter().zip(replies) {
            match reply {
                Ok(_) => output::print_line(format_args!("{id} deleted"))?,
                Err(error) => {
                    let failure = CliFailure::from(error);
                    if let Err(earlier) = std::mem::replace(&mut result, Err(failure)) {
                        let _ = CliFailure::report(earlier);
                    }
                }
            }
        }
        result
    }
}
