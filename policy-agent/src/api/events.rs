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

use super::{Api, Problem, flag::Flag};
use crate::{
    agent::Error,
    events::{Filter, News, Record, Subscription},
};

/// What may stand after the question mark.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default, deny_unknown_fields)]
pub struct Wanted {
    /// Only this sandbox's.
    sandbox: Option<String>,
    /// New flows that passed, too.
    #[param(value_type = String, required = false, pattern = "^(true|false|1|0)?$")]
    all: Flag,
    /// From now on, until the client goes.
    #[param(value_type = String, required = false, pattern = "^(true|false|1|0)?$")]
    follow: Flag,
}

/// Denials, and other events
///
/// JSON lines: the last ones or, with `follow`, those from now on. When the answer begins, the
/// kernel reports what is asked for.
#[utoipa::path(
    get, path = "/agent/v1/events", tag = "Agent", operation_id = "events", params(Wanted),
    responses(
        (
            status = 200,
            description = "One event a line",
            body = Record,
            content_type = "application/x-ndjson",
        ),
        (status = 400, response = Problem), (status = 404, response = Problem),
    )
)]
pub async fn stream(
    State(api): State<Api>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(wanted) = wanted.map_err(|error| Problem::bad_request(error.body_text()))?;
    let filter = Filter { sandbox: wanted.sandbox, all: wanted.all == Flag::On };
    is_known(&api, &filter)?;
    let body = match wanted.follow {
        Flag::Off => Body::from(recent(&api, &filter)),
        Flag::On => {
            let hub = api.events.clone();
            let follow = spawn_blocking(move || hub.follow(filter)).await;
            let subscription = follow.map_err(Problem::internal)?.map_err(Problem::internal)?;
            live(subscription, api.stopping)
        }
    };
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// Nobody waits for the events of a sandbox whose ID is misspelt. One that is gone may have left some.
fn is_known(api: &Api, filter: &Filter) -> Result<(), Error> {
    let Some(id) = &filter.sandbox else { return Ok(()) };
    let of_it = Filter { all: true, ..filter.clone() };
    if api.agent.table().find(id).is_some() || !api.events.recent(&of_it).is_empty() {
        return Ok(());
    }
    Err(Error::Unknown(id.clone()))
}

fn recent(api: &Api, filter: &Filter) -> Vec<u8> {
    api.events.recent(filter).iter().flat_map(line).collect()
}

/// Everything from now on, until the client goes or the agent stops.
fn live(subscription: Subscription, stopping: watch::Receiver<bool>) -> Body {
    let next = |(mut subscription, mut stopping): (Subscription, watch::Receiver<bool>)| async {
        let news = tokio::select! {
            news = subscription.next() => news?,
            _ = stopping.wait_for(|stopping| *stopping) => return None,
        };
        let text = match news {
            News::Event(record) => line(&record),
            News::Lost(count) => format!("{}\n", json!({ "lost": count })).into_bytes(),
        };
        Some((Ok::<_, Infallible>(Bytes::from(text)), (subscription, stopping)))
    };
    Body::from_stream(stream::unfold((subscription, stopping), next))
}

fn line(record: &Arc<Record>) -> Vec<u8> {
    // It holds nothing that JSON cannot say.
    let mut line = serde_json::to_vec(&**record).unwrap_or_default();
    line.push(b'\n');
    line
}
