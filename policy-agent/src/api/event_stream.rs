//! `GET /agent/v1/events`: buffered or live events as JSON lines.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::{Query, State, rejection::QueryRejection},
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;
use tokio::{sync::watch, task::spawn_blocking};

use super::{ApiState, Problem, query_flag::QueryFlag};
use crate::{
    agent::AgentError,
    events::{EventFilter, EventSubscription, PolicyEvent, SubscriptionItem},
};

/// Query parameters of the event stream.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default, deny_unknown_fields)]
pub(super) struct EventsParams {
    /// Only events of this sandbox.
    sandbox: Option<String>,
    /// Include new allowed flows.
    #[param(value_type = String, required = false, pattern = "^(true|false|1|0)?$")]
    all: QueryFlag,
    /// Stream new events until the client disconnects.
    #[param(value_type = String, required = false, pattern = "^(true|false|1|0)?$")]
    follow: QueryFlag,
}

/// Stream denials and other events
///
/// Sends JSON lines: the buffered events or, with `follow`, new ones. The kernel already reports
/// the requested events when the response begins.
#[utoipa::path(
    get, path = "/agent/v1/events", tag = "Agent", operation_id = "events", params(EventsParams),
    responses(
        (
            status = 200,
            description = "One event a line",
            body = PolicyEvent,
            content_type = "application/x-ndjson",
        ),
        (status = 400, response = Problem), (status = 404, response = Problem),
    )
)]
pub(super) async fn stream(
    State(api): State<ApiState>,
    params: Result<Query<EventsParams>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(params) = params.map_err(|error| Problem::bad_request(error.body_text()))?;
    let filter =
        EventFilter { sandbox: params.sandbox, include_flows: params.all == QueryFlag::On };
    check_sandbox_known(&api, &filter)?;
    let body = match params.follow {
        QueryFlag::Off => Body::from(recent_lines(&api, &filter)),
        QueryFlag::On => {
            let event_buffer = Arc::clone(&api.events);
            let subscription = spawn_blocking(move || event_buffer.subscribe(filter)).await;
            let subscription =
                subscription.map_err(Problem::internal)?.map_err(Problem::internal)?;
            live_body(subscription, api.stopping)
        }
    };
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// Rejects a sandbox ID that is unknown, so that a client does not wait for events of a misspelt
/// ID. A deleted sandbox may still have buffered events.
fn check_sandbox_known(api: &ApiState, filter: &EventFilter) -> Result<(), AgentError> {
    let Some(id) = &filter.sandbox else { return Ok(()) };
    let any_of_sandbox = EventFilter { include_flows: true, ..filter.clone() };
    if api.agent.registry().find(id).is_some() || !api.events.recent(&any_of_sandbox).is_empty() {
        return Ok(());
    }
    Err(AgentError::UnknownSandbox(id.clone()))
}

fn recent_lines(api: &ApiState, filter: &EventFilter) -> Vec<u8> {
    api.events.recent(filter).iter().flat_map(json_line).collect()
}

/// Streams new events until the client disconnects or the agent stops.
fn live_body(subscription: EventSubscription, stopping: watch::Receiver<bool>) -> Body {
    let next = |(mut subscription, mut stopping): (EventSubscription, watch::Receiver<bool>)| async {
        let item = tokio::select! {
            next_item = subscription.next() => next_item?,
            _ = stopping.wait_for(|stopping| *stopping) => return None,
        };
        let text = match item {
            SubscriptionItem::Event(event) => json_line(&event),
            SubscriptionItem::Lost(count) => format!("{}\n", json!({ "lost": count })).into_bytes(),
        };
        Some((Ok::<_, Infallible>(Bytes::from(text)), (subscription, stopping)))
    };
    Body::from_stream(stream::unfold((subscription, stopping), next))
}

fn json_line(event: &Arc<PolicyEvent>) -> Vec<u8> {
    // Serialization cannot fail: every field of an event has a JSON form.
    let mut line = serde_json::to_vec(&**event).unwrap_or_default();
    line.push(b'\n');
    line
}
