//! `delete`

use std::path::Path;

use clap::Args;
use hyper::{Method, body::Bytes};

use super::{failure::Failure, output, run::block_on};
use crate::client::Client;

/// Detach sandboxes and forget them
///
/// Takes the policy off the sandboxes' interfaces, which are open from then on, and forgets them.
#[derive(Args)]
pub struct Delete {
    /// The sandboxes
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
}

impl Delete {
    pub fn run(self, socket: &Path) -> Result<(), Failure> {
        let client = Client::new(socket);
        let mut failed = Ok(());
        for id in &self.ids {
            let path = format!("/agent/v1/sandboxes/{}", path_segment(id));
            match block_on(client.whole(Method::DELETE, &path, Bytes::new()))? {
                Ok(_) => output::line(format_args!("{id} deleted"))?,
                Err(error) => {
                    let failure = Failure::from(error);
                    if let Err(earlier) = std::mem::replace(&mut failed, Err(failure)) {
                        let _ = Failure::report(earlier);
                    }
                }
            }
        }
        failed
    }
}

/// An ID as a part of a path: what no ID can hold is escaped, so that the agent can say that there
/// is no such sandbox.
pub fn path_segment(id: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    id.bytes().map(escape).collect()
}
