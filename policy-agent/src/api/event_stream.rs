//! `GET /agent/v1/events`: buffered or live events as JSON lines.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::{Query, State, rejection::QueryRejection},
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use policy_common::reason::Reason;
use serde::Deserialize;
use serde_json::json;
use tokio::{sync::watch, task::spawn_blocking};

use super::{ApiState, Problem, query_flag::QueryFlag, time_query::parse_since};
use crate::{
    agent::AgentError,
    events::{EventFilter, EventSubscription, PolicyEvent, SubscriptionItem},
    policy::{ValidationError, parse_reason_label},
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
    /// Only events with this reason, by its label.
    reason: Option<String>,
    /// Only events from this time on: RFC 3339, or how long ago, like `1h30m` or `2d`.
    since: Option<String>,
    /// Only so many of the most recent events.
    #[param(minimum = 0)]
    last: Option<usize>,
    /// Stream new events until the client disconnects. With `since` or `last`, the buffered events
    /// come first.
    #[param(value_type = String, required = false, pattern = "^(true|false|1|0)?$")]
    follow: QueryFlag,
}

impl EventsParams {
    fn into_filter(self) -> Result<EventFilter, ValidationError> {
        let reason = self.reason.as_deref().map(parse_reason_label).transpose()?;
        Ok(EventFilter {
            sandbox: self.sandbox,
            // Whoever asks for a reason that passes wants the flows that have it.
            include_flows: self.all == QueryFlag::On || reason.is_some_and(Reason::passes),
            reason: reason.map(Reason::label),
            since: self.since.as_deref().map(parse_since).transpose()?,
            last: self.last,
        })
    }
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
    let follow = params.follow;
    let filter = params.into_filter()?;
    check_sandbox_known(&api, &filter)?;
    let body = match follow {
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
    let any_of_sandbox = EventFilter {
        sandbox: filter.sandbox.clone(),
        include_flows: true,
        last: Some(1),
        ..EventFilter::default()
    };
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
