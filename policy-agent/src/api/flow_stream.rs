//! Follows the record: entries as JSON lines, whenever they change.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use tokio::{sync::watch, task::spawn_blocking, time::sleep};

use super::{
    ApiState, Problem,
    flows::{json_line, needs_flow_reports},
};
use crate::events::{FlowQuery, FlowRecord, FlowReportsGuard};

/// The interval between two looks at the record. An entry that changes more often than that is sent
/// once.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// A client that follows the record.
struct FlowFollower {
    record: Arc<FlowRecord>,
    query: FlowQuery,
    has_begun: bool,
    stopping: watch::Receiver<bool>,
    _flow_reports: Option<FlowReportsGuard>,
}

/// Streams entries until the client disconnects or the agent stops.
pub(super) async fn follow_flows(api: ApiState, query: FlowQuery) -> Result<Response, Problem> {
    let flow_reports = if needs_flow_reports(&query) {
        let event_buffer = Arc::clone(&api.events);
        let guard = spawn_blocking(move || event_buffer.request_flow_reports()).await;
        Some(guard.map_err(Problem::internal)?.map_err(Problem::internal)?)
    } else {
        None
    };
    let follower = FlowFollower {
        record: Arc::clone(api.events.record()),
        query,
        has_begun: false,
        stopping: api.stopping,
        _flow_reports: flow_reports,
    };
    let lines = stream::unfold(follower, |mut follower| async move {
        let lines = follower.next_lines().await?;
        Some((Ok::<_, Infallible>(Bytes::from(lines)), follower))
    });
    let content_type = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((content_type, Body::from_stream(lines)).into_response())
}

impl FlowFollower {
    /// The lines of the entries that have changed, oldest first. `None` when the agent stops. The
    /// first answer may be empty: it tells the client that it follows.
    async fn next_lines(&mut self) -> Option<Vec<u8>> {
        loop {
            if std::mem::replace(&mut self.has_begun, true) {
                tokio::select! {
                    () = sleep(POLL_INTERVAL) => {}
                    _ = self.stopping.wait_for(|stopping| *stopping) => return None,
                }
            }
            let is_first = self.query.changed_after == 0;
            let latest = self.record.latest_change();
            let changed = self.record.entries(&self.query);
            self.query.changed_after = latest;
            // A number of entries limits what there is at the start.
            self.query.last = None;
            if is_first || !changed.is_empty() {
                return Some(changed.into_iter().rev().flat_map(json_line).collect());
            }
        }
    }
}
