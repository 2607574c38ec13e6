//! `GET /agent/v1/events`: JSON lines, the last ones or those from now on.

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

/// What may stand after the question mark.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default, deny_unknown_fields)]
pub struct EventsParams {
    /// Only this sandbox's.
    sandbox: Option<String>,
    /// New flows that passed, too.
    #[param(value_type = String, required = false, pattern = "^(true|false|1|0)?$")]
    all: QueryFlag,
    /// From now on, until the client goes.
    #[param(value_type = String, required = false, pattern = "^(true|false|1|0)?$")]
    follow: QueryFlag,
}

/// Denials, and other events
///
/// JSON lines: the last ones or, with `follow`, those from now on. When the answer begins, the
/// kernel reports what is asked for.
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
pub async fn stream(
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
            let event_buffer = api.events.clone();
            let follow = spawn_blocking(move || event_buffer.subscribe(filter)).await;
            let subscription = follow.map_err(Problem::internal)?.map_err(Problem::internal)?;
            live_body(subscription, api.stopping)
        }
    };
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// Nobody waits for the events of a sandbox whose ID is misspelt. One that is gone may have left some.
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

/// Everything from now on, until the client goes or the agent stops.
fn live_body(subscription: EventSubscription, stopping: watch::Receiver<bool>) -> Body {
    let next = |(mut subscription, mut stopping): (EventSubscription, watch::Receiver<bool>)| async {
        let item = tokio::select! {
            news = subscription.next() => news?,
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
    // It holds nothing that JSON cannot say.
    let mut line = serde_json::to_vec(&**event).unwrap_or_default();
    line.push(b'\n');
    line
}
