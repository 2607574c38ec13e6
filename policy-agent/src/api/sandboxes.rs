//! Sandboxes: create, replace, show, delete.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{Api, Problem, body::Body, flag::Flag};
use crate::{
    agent::{Error, Report, Rules, only},
    policy::{Invalid, SandboxId, SandboxSpec, warnings},
};

/// The spellings of the ID in a body.
const ID: [&str; 3] = ["sandboxID", "sandboxId", "sandbox_id"];

/// How to apply.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default, deny_unknown_fields)]
pub struct How {
    /// Also on an interface that carries the default route of its network namespace.
    #[param(value_type = bool)]
    force: Flag,
    /// Refuse what would get warnings.
    #[param(value_type = bool)]
    strict: Flag,
}

/// List sandboxes with their counters
#[utoipa::path(
    get, path = "/agent/v1/sandboxes", tag = "Agent", operation_id = "list",
    responses((status = 200, description = "All sandboxes", body = Vec<Report>)),
)]
pub async fn list(State(api): State<Api>) -> Result<Json<Vec<Report>>, Problem> {
    Ok(Json(api.agent.list().await?))
}

/// Show a sandbox with its counters
#[utoipa::path(
    get, path = "/agent/v1/sandboxes/{id}", tag = "Agent", operation_id = "get",
    responses(
        (status = 200, description = "The sandbox, without secrets", body = Report),
        (status = 404, response = Problem),
    )
)]
pub async fn get(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Report>, Problem> {
    Ok(Json(api.agent.get(&id).await?))
}

/// Create or replace a sandbox
///
/// The body may leave out the ID.
#[utoipa::path(
    put, path = "/agent/v1/sandboxes/{id}", tag = "Agent", operation_id = "apply",
    request_body(content = ref("#/components/schemas/NamedSandbox")), params(How),
    responses(
        (status = 200, description = "Its policy is enforced", body = Applied),
        (status = 400, response = Problem), (status = 413, response = Problem),
        (status = 503, response = Problem),
    )
)]
pub async fn put(
    State(api): State<Api>,
    Path(id): Path<String>,
    how: Result<Query<How>, QueryRejection>,
    body: Body,
) -> Result<Json<Applied>, Problem> {
    let how = wanted(how)?;
    let known: SandboxId = id.parse()?;
    let spec = named(&body, &id)?;
    if spec.sandbox_id != known {
        let problem = format!("the path says {known}; give the same ID or leave it out");
        return Err(Invalid::entry("sandboxID", spec.sandbox_id.as_str(), problem).into());
    }
    let specs = vec![spec];
    check(&api, &how, &specs)?;
    only(api.agent.apply(specs, how.force == Flag::On).await?)?;
    let report = api.agent.get(&id).await?;
    Ok(Json(Applied { report, warnings: Notes::new(&api).about(&known).unwrap_or_default() }))
}

/// The sandbox as it is now.
#[derive(Serialize, ToSchema)]
pub struct Applied {
    #[serde(flatten)]
    report: Report,
    /// Entries without effect, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// What became of one sandbox of many.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Which one.
    #[serde(rename = "sandboxID")]
    #[schema(value_type = String)]
    sandbox_id: SandboxId,
    /// The status it would have alone; absent if all went well.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// Entries without effect, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Create or replace many sandboxes
///
/// All are checked before the first is changed; what the kernel then refuses is said per sandbox,
/// with code and message.
#[utoipa::path(
    put, path = "/agent/v1/sandboxes", tag = "Agent", operation_id = "apply_all",
    request_body = Vec<SandboxSpec>, params(How),
    responses(
        (status = 200, description = "All policies are enforced", body = Vec<Outcome>),
        (status = 207, description = "Some are not", body = Vec<Outcome>),
        (status = 400, response = Problem), (status = 413, response = Problem),
    )
)]
pub async fn put_all(
    State(api): State<Api>,
    how: Result<Query<How>, QueryRejection>,
    body: Body,
) -> Result<(StatusCode, Json<Vec<Outcome>>), Problem> {
    let how = wanted(how)?;
    let specs: Vec<SandboxSpec> = body.parse()?;
    check(&api, &how, &specs)?;
    let outcomes = api.agent.apply(specs, how.force == Flag::On).await?;
    let failed = outcomes.iter().any(|(_, outcome)| outcome.is_err());
    let status = if failed { StatusCode::MULTI_STATUS } else { StatusCode::OK };
    let mut notes = Notes::new(&api);
    let outcome = |(id, outcome)| notes.outcome(id, outcome);
    Ok((status, Json(outcomes.into_iter().map(outcome).collect())))
}

/// Detach a sandbox and forget it
#[utoipa::path(
    delete, path = "/agent/v1/sandboxes/{id}", tag = "Agent", operation_id = "delete",
    responses(
        (status = 204, description = "Its interface is open"),
        (status = 404, response = Problem),
    )
)]
pub async fn delete(State(api): State<Api>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    api.agent.delete(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The specification in a body, with the path's ID if it has none.
fn named(body: &Body, id: &str) -> Result<SandboxSpec, Problem> {
    let fields: Result<Map<String, Value>, Problem> = body.parse();
    match fields {
        Ok(mut fields) if !ID.iter().any(|name| fields.contains_key(*name)) => {
            fields.insert(ID[0].to_owned(), Value::from(id));
            let text = serde_json::to_vec(&fields).map_err(Problem::internal)?;
            Ok(crate::policy::parse(&text)?)
        }
        // Read from the text itself: a field given twice shows there only.
        _ => body.parse(),
    }
}

fn wanted(how: Result<Query<How>, QueryRejection>) -> Result<How, Problem> {
    let Query(how) = how.map_err(|error| Problem::bad_request(error.body_text()))?;
    Ok(how)
}

/// Where warnings are errors, they are found before anything is changed.
fn check(api: &Api, how: &How, specs: &[SandboxSpec]) -> Result<(), Error> {
    if how.strict == Flag::Off {
        return Ok(());
    }
    let law = api.agent.law();
    for spec in specs {
        let refuse = |invalid| Error::invalid(&spec.sandbox_id, invalid);
        let policy = law.judge(spec).map_err(refuse)?;
        if let Some(first) = warnings(&spec.network, &policy, &law.floor).into_iter().next() {
            return Err(refuse(first.into()));
        }
    }
    Ok(())
}

/// Warnings about the rules that sandboxes have: many may share them.
struct Notes<'a> {
    api: &'a Api,
    known: HashMap<*const Rules, Vec<String>>,
}

impl<'a> Notes<'a> {
    fn new(api: &'a Api) -> Self {
        Self { api, known: HashMap::new() }
    }

    /// The warnings about a sandbox, if it is still there.
    fn about(&mut self, id: &SandboxId) -> Option<Vec<String>> {
        let rules = self.api.agent.table().get(id)?.rules.clone();
        let floor = &self.api.agent.law().floor;
        let found = self.known.entry(Arc::as_ptr(&rules)).or_insert_with(|| {
            let found = warnings(&rules.network, &rules.policy, floor);
            found.iter().map(ToString::to_string).collect()
        });
        Some(found.clone())
    }

    fn outcome(&mut self, sandbox_id: SandboxId, outcome: Result<(), Error>) -> Outcome {
        let problem = outcome.err().map(Problem::from);
        let warnings = if problem.is_none() { self.about(&sandbox_id) } else { None };
        Outcome {
            sandbox_id,
            code: problem.as_ref().map(|problem| problem.status().as_u16()),
            message: problem.map(|problem| problem.message().to_owned()),
            warnings: warnings.unwrap_or_default(),
        }
    }
}
