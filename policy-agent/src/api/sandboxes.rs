//! `/agent/v1/sandboxes`: create, replace, list, show and delete sandboxes.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{ApiState, Problem, json_body::JsonBody, query_flag::QueryFlag};
use crate::{
    agent::{ActivePolicy, AgentError, ApplyResults, SandboxReport, SandboxTraffic, single_result},
    policy::{SandboxId, SandboxSpec, SpecDiff, ValidationError, policy_warnings},
};

/// The accepted spellings of the ID field in a body.
const ID_FIELDS: [&str; 3] = ["sandboxID", "sandboxId", "sandbox_id"];

/// Query parameters of an apply.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ApplyParams {
    /// Allow an interface that carries the default route of its network namespace.
    #[param(value_type = bool)]
    force: QueryFlag,
    /// Treat warnings as errors.
    #[param(value_type = bool)]
    strict: QueryFlag,
}

/// Query parameters of an apply of several sandboxes.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ApplyAllParams {
    /// Allow an interface that carries the default route of its network namespace.
    #[param(value_type = bool)]
    force: QueryFlag,
    /// Treat warnings as errors.
    #[param(value_type = bool)]
    strict: QueryFlag,
    /// Only validate, and say what would change.
    #[param(value_type = bool)]
    #[serde(alias = "dry_run")]
    dry_run: QueryFlag,
    /// List what differs from the sandboxes in force.
    #[param(value_type = bool)]
    diff: QueryFlag,
}

/// List sandboxes with their counters
#[utoipa::path(
    get, path = "/agent/v1/sandboxes", tag = "Agent", operation_id = "list",
    responses((status = 200, description = "All sandboxes", body = Vec<SandboxReport>)),
)]
pub(super) async fn list(State(api): State<ApiState>) -> Result<Json<Vec<SandboxReport>>, Problem> {
    Ok(Json(api.agent.list().await?))
}

/// List the traffic of sandboxes
///
/// The counters without the configuration: for views that ask again and again.
#[utoipa::path(
    get, path = "/agent/v1/traffic", tag = "Agent", operation_id = "traffic",
    responses((status = 200, description = "All sandboxes", body = Vec<SandboxTraffic>)),
)]
pub(super) async fn traffic(
    State(api): State<ApiState>,
) -> Result<Json<Vec<SandboxTraffic>>, Problem> {
    Ok(Json(api.agent.traffic().await?))
}

/// Show a sandbox with its counters
#[utoipa::path(
    get, path = "/agent/v1/sandboxes/{id}", tag = "Agent", operation_id = "get",
    responses(
        (status = 200, description = "The sandbox, without secrets", body = SandboxReport),
        (status = 404, response = Problem),
    )
)]
pub(super) async fn get(
    State(api): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<SandboxReport>, Problem> {
    Ok(Json(api.agent.get(&id).await?))
}

/// Create or replace a sandbox
///
/// The body may omit the ID.
#[utoipa::path(
    put, path = "/agent/v1/sandboxes/{id}", tag = "Agent", operation_id = "apply",
    request_body(content = ref("#/components/schemas/NamedSandbox")), params(ApplyParams),
    responses(
        (status = 200, description = "Its policy is enforced", body = AppliedSandbox),
        (status = 400, response = Problem), (status = 413, response = Problem),
        (status = 503, response = Problem),
    )
)]
pub(super) async fn put(
    State(api): State<ApiState>,
    Path(id): Path<String>,
    params: Result<Query<ApplyParams>, QueryRejection>,
    body: JsonBody,
) -> Result<Json<AppliedSandbox>, Problem> {
    let params = parse_params(params)?;
    let path_id: SandboxId = id.parse()?;
    let spec = parse_named_spec(&body, &id)?;
    if spec.sandbox_id != path_id {
        let problem = format!("the path says {path_id}; give the same ID or leave it out");
        return Err(
            ValidationError::about_entry("sandboxID", spec.sandbox_id.as_str(), problem).into()
        );
    }
    let mut specs = vec![spec];
    api.config.container_engines().locate_all(&mut specs).await?;
    reject_warnings(&api, params.strict, &specs)?;
    single_result(api.agent.apply(specs, params.force == QueryFlag::On).await?)?;
    let report = api.agent.get(&id).await?;
    Ok(Json(AppliedSandbox {
        report,
        warnings: PolicyWarnings::new(&api).warnings_for(&path_id).unwrap_or_default(),
    }))
}

/// The sandbox after the change.
#[derive(Serialize, ToSchema)]
pub(super) struct AppliedSandbox {
    #[serde(flatten)]
    report: SandboxReport,
    /// Entries of the policy without effect, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// What an apply does with a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum ApplyEffect {
    /// There was no such sandbox.
    Created,
    /// It is different now.
    Changed,
    /// It was like this before.
    Unchanged,
}

/// The result for one sandbox of an `apply_all`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApplyOutcome {
    /// The ID of the sandbox.
    #[serde(rename = "sandboxID")]
    #[schema(value_type = String)]
    sandbox_id: SandboxId,
    /// The HTTP status that this sandbox alone would get. Absent on success.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    /// What went wrong. Absent on success.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// What was done. Absent on failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    effect: Option<ApplyEffect>,
    /// The number of entries that are new in `allowOut` and `denyOut`.
    added: usize,
    /// The number of entries that are no longer there.
    removed: usize,
    /// With `diff`: each difference.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    diff: Vec<String>,
    /// Entries of the policy without effect, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Create or replace several sandboxes
///
/// All of them are validated before the first is changed. A failure in the kernel is reported per
/// sandbox, with code and message.
#[utoipa::path(
    put, path = "/agent/v1/sandboxes", tag = "Agent", operation_id = "apply_all",
    request_body = Vec<SandboxSpec>, params(ApplyAllParams),
    responses(
        (status = 200, description = "All policies are enforced, or valid if nothing was to be changed", body = Vec<ApplyOutcome>),
        (status = 207, description = "Some are not", body = Vec<ApplyOutcome>),
        (status = 400, response = Problem), (status = 413, response = Problem),
    )
)]
pub(super) async fn put_all(
    State(api): State<ApiState>,
    params: Result<Query<ApplyAllParams>, QueryRejection>,
    body: JsonBody,
) -> Result<(StatusCode, Json<Vec<ApplyOutcome>>), Problem> {
    let Query(params) = params.map_err(|error| Problem::bad_request(error.body_text()))?;
    let mut specs: Vec<SandboxSpec> = body.parse()?;
    api.config.container_engines().locate_all(&mut specs).await?;
    reject_warnings(&api, params.strict, &specs)?;
    let mut diffs = spec_diffs(&api, &specs);
    let force = params.force == QueryFlag::On;
    let results: ApplyResults = if params.dry_run == QueryFlag::On {
        let ids: Vec<_> = specs.iter().map(|spec| spec.sandbox_id.clone()).collect();
        api.agent.validate(specs, force).await?;
        ids.into_iter().map(|id| (id, Ok(()))).collect()
    } else {
        api.agent.apply(specs, force).await?
    };
    let failed = results.iter().any(|(_, result)| result.is_err());
    let status = if failed { StatusCode::MULTI_STATUS } else { StatusCode::OK };
    let mut warnings = PolicyWarnings::new(&api);
    let to_outcome = |(id, result): (SandboxId, Result<(), AgentError>)| {
        let diff = diffs.remove(&id);
        warnings.apply_outcome(id, result).with_diff(diff, params.diff == QueryFlag::On)
    };
    Ok((status, Json(results.into_iter().map(to_outcome).collect())))
}

/// What sandboxes change, and whether they are known.
fn spec_diffs(
    api: &ApiState,
    specs: &[SandboxSpec],
) -> HashMap<SandboxId, (ApplyEffect, SpecDiff)> {
    let diff = |spec: &SandboxSpec| {
        let before = api.agent.registry().get(&spec.sandbox_id).map(|sandbox| sandbox.spec());
        let diff = SpecDiff::between(before.as_ref(), spec);
        let effect = match before {
            None => ApplyEffect::Created,
            Some(_) if diff.is_empty() => ApplyEffect::Unchanged,
            Some(_) => ApplyEffect::Changed,
        };
        (spec.sandbox_id.clone(), (effect, diff))
    };
    specs.iter().map(diff).collect()
}

impl ApplyOutcome {
    /// Adds what the sandbox changed, if it was applied.
    fn with_diff(self, diff: Option<(ApplyEffect, SpecDiff)>, listed: bool) -> Self {
        let Some((effect, diff)) = diff.filter(|_| self.message.is_none()) else { return self };
        let (added, removed) = (diff.added.len(), diff.removed.len());
        let signed =
            |sign, lines: Vec<String>| lines.into_iter().map(move |line| format!("{sign} {line}"));
        let lines = signed('+', diff.added)
            .chain(signed('-', diff.removed))
            .chain(signed('~', diff.fields))
            .filter(|_| listed)
            .collect();
        Self { effect: Some(effect), added, removed, diff: lines, ..self }
    }
}

/// Detach and delete a sandbox
#[utoipa::path(
    delete, path = "/agent/v1/sandboxes/{id}", tag = "Agent", operation_id = "delete",
    responses(
        (status = 204, description = "Its interface is open, or blocked if it is one of `[[interfaces]]`"),
        (status = 404, response = Problem),
    )
)]
pub(super) async fn delete(
    State(api): State<ApiState>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    api.agent.delete(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Parses the specification in a body. The ID of the path fills in a missing one.
fn parse_named_spec(body: &JsonBody, id: &str) -> Result<SandboxSpec, Problem> {
    let fields: Result<Map<String, Value>, Problem> = body.parse();
    match fields {
        Ok(mut fields) if !ID_FIELDS.iter().any(|name| fields.contains_key(*name)) => {
            fields.insert(ID_FIELDS[0].to_owned(), Value::from(id));
            let text = serde_json::to_vec(&fields).map_err(Problem::internal)?;
            Ok(crate::policy::parse_json(&text)?)
        }
        // Parse the original text: only that reveals a duplicate field.
        _ => body.parse(),
    }
}

fn parse_params(
    params: Result<Query<ApplyParams>, QueryRejection>,
) -> Result<ApplyParams, Problem> {
    let Query(params) = params.map_err(|error| Problem::bad_request(error.body_text()))?;
    Ok(params)
}

/// Rejects specifications with warnings if `strict` is set, before anything changes.
fn reject_warnings(
    api: &ApiState,
    strict: QueryFlag,
    specs: &[SandboxSpec],
) -> Result<(), AgentError> {
    if strict == QueryFlag::Off {
        return Ok(());
    }
    let platform_policy = api.agent.platform_policy();
    for spec in specs {
        let reject = |invalid| AgentError::for_sandbox(&spec.sandbox_id, invalid);
        let policy = platform_policy.policy_for_spec(spec).map_err(reject)?;
        if let Some(first) =
            policy_warnings(&spec.network, &policy, &platform_policy.floor).into_iter().next()
        {
            return Err(reject(first.into()));
        }
    }
    Ok(())
}

/// Computes policy warnings. Caches them by active policy, since sandboxes may share one.
struct PolicyWarnings<'a> {
    api: &'a ApiState,
    cache: HashMap<*const ActivePolicy, Vec<String>>,
}

impl<'a> PolicyWarnings<'a> {
    fn new(api: &'a ApiState) -> Self {
        Self { api, cache: HashMap::new() }
    }

    /// The warnings about a sandbox, or `None` if the sandbox is gone.
    fn warnings_for(&mut self, id: &SandboxId) -> Option<Vec<String>> {
        let active_policy = Arc::clone(&self.api.agent.registry().get(id)?.active_policy);
        let platform_policy = self.api.agent.platform_policy();
        let warnings = self.cache.entry(Arc::as_ptr(&active_policy)).or_insert_with(|| {
            let warnings = policy_warnings(
                &active_policy.network,
                &active_policy.policy,
                &platform_policy.floor,
            );
            warnings.iter().map(ToString::to_string).collect()
        });
        Some(warnings.clone())
    }

    fn apply_outcome(
        &mut self,
        sandbox_id: SandboxId,
        result: Result<(), AgentError>,
    ) -> ApplyOutcome {
        let problem = result.err().map(Problem::from);
        let warnings = if problem.is_none() { self.warnings_for(&sandbox_id) } else { None };
        ApplyOutcome {
            sandbox_id,
            code: problem.as_ref().map(|problem| problem.status().as_u16()),
            message: problem.map(|problem| problem.message().to_owned()),
            warnings: warnings.unwrap_or_default(),
            effect: None,
            added: 0,
            removed: 0,
            diff: Vec::new(),
        }
    }
}
