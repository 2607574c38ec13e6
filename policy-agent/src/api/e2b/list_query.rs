//! Query parameters of a sandbox list, in the encoding of E2B's clients.

use std::{borrow::Cow, collections::BTreeMap, str::FromStr};

use form_urlencoded::parse as pairs;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use utoipa::IntoParams;

use super::{
    cursor::PageCursor,
    paging::{MAX_LIMIT, parse_limit},
    template_id,
};
use crate::{agent::Sandbox, policy::ValidationError};

/// The parameters, for the OpenAPI document.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it is written down for readers")]
pub(super) struct ListQueryParameters {
    /// `key=value` pairs, joined by `&` and percent-encoded. A sandbox must have all of them.
    #[param(required = false)]
    metadata: String,
    /// `running`, `paused`, or both separated by a comma. The agent never pauses a sandbox.
    #[param(required = false, pattern = "^((running|paused)(,(running|paused))*)?$")]
    state: String,
    /// `asc` or `desc`, by start time. Default: `desc`.
    #[param(required = false, pattern = "^(asc|desc)?$")]
    order: String,
    /// Only sandboxes that started at this time or later, RFC 3339.
    #[param(required = false, rename = "startedAfter", format = DateTime)]
    started_after: String,
    /// Only sandboxes created from this template.
    #[param(required = false)]
    template: String,
    /// The maximum number of sandboxes, 1 to 100. Default: 100.
    #[param(required = false, minimum = 1, maximum = 100)]
    limit: u32,
    /// The cursor to continue from: `X-Next-Token` of the previous response.
    #[param(required = false, rename = "nextToken", pattern = "^(-?[0-9]{1,19}_[a-z0-9]{1,63})?$")]
    next_token: String,
}

/// The order by start time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SortOrder {
    /// Oldest first.
    Ascending,
    /// Newest first.
    #[default]
    Descending,
}

/// Which sandboxes to list, in which order, and how many.
#[derive(Debug)]
pub(super) struct ListQuery {
    metadata: BTreeMap<String, String>,
    excludes_running: bool,
    started_after: Option<Timestamp>,
    template: Option<String>,
    /// The order by start time.
    pub order: SortOrder,
    /// The maximum number of sandboxes.
    pub limit: usize,
    /// The cursor of the last sandbox on the previous page.
    pub after: Option<PageCursor>,
}

impl ListQuery {
    /// Parses a query string. Ignores unknown parameters: they do not affect access.
    ///
    /// # Errors
    /// A parameter is invalid; the error names it.
    pub(super) fn parse(text: &str) -> Result<Self, ValidationError> {
        let mut states = Vec::new();
        let mut query = Self {
            metadata: BTreeMap::new(),
            excludes_running: false,
            started_after: None,
            template: None,
            order: SortOrder::default(),
            limit: MAX_LIMIT,
            after: None,
        };
        // An empty word counts as absent. An empty number or time is an error.
        let is_significant = |(name, value): &(Cow<'_, str>, Cow<'_, str>)| {
            !value.is_empty() || matches!(&**name, "limit" | "startedAfter")
        };
        for (name, value) in pairs(text.as_bytes()).filter(is_significant) {
            match &*name {
                "metadata" => query.metadata.extend(parse_metadata(&value)),
                "state" => states.extend(parse_states(&value)?),
                "order" => query.order = parse_order(&value)?,
                "startedAfter" => query.started_after = Some(parse_value(&name, &value)?),
                "template" => query.template = Some(value.into_owned()),
                "limit" => query.limit = parse_limit(&value)?,
                "nextToken" => query.after = Some(parse_value(&name, &value)?),
                _ => {}
            }
        }
        query.excludes_running =
            !states.is_empty() && !states.contains(&SandboxStateFilter::Running);
        Ok(query)
    }

    /// Returns whether the query selects a sandbox.
    pub(super) fn matches(&self, sandbox: &Sandbox) -> bool {
        let lifetime = &sandbox.lifetime;
        let has_entry = |(key, value): (&String, &String)| {
            lifetime.metadata().and_then(|metadata| metadata.metadata.get(key)) == Some(value)
        };
        !self.excludes_running
            && self.started_after.is_none_or(|time| lifetime.started_at() >= time)
            && self.template.as_ref().is_none_or(|template| *template == template_id(sandbox))
            && self.metadata.iter().all(has_entry)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SandboxStateFilter {
    Running,
    Paused,
}

fn parse_states(text: &str) -> Result<Vec<SandboxStateFilter>, ValidationError> {
    let state = |word: &str| match word {
        "running" => Ok(SandboxStateFilter::Running),
        "paused" => Ok(SandboxStateFilter::Paused),
        _ => Err(ValidationError::about_entry("state", word, "write running or paused")),
    };
    text.split(',').map(state).collect()
}

fn parse_order(text: &str) -> Result<SortOrder, ValidationError> {
    match text {
        "asc" => Ok(SortOrder::Ascending),
        "desc" => Ok(SortOrder::Descending),
        _ => Err(ValidationError::about_entry("order", text, "write asc or desc")),
    }
}

fn parse_value<T: FromStr<Err: ToString>>(name: &str, text: &str) -> Result<T, ValidationError> {
    text.parse()
        .map_err(|error: T::Err| ValidationError::about_entry(name, text, error.to_string()))
}

/// Parses metadata pairs. Clients percent-encode keys and values, encode them as a form, and then
/// percent-encode the form as a parameter. `text` is the parameter after decoding.
fn parse_metadata(text: &str) -> BTreeMap<String, String> {
    let percent_decode =
        |text: Cow<'_, str>| percent_decode_str(&text).decode_utf8_lossy().into_owned();
    pairs(text.as_bytes())
        .map(|(key, value)| (percent_decode(key), percent_decode(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalid_field(text: &str) -> String {
        ListQuery::parse(text).expect_err(text).field
    }

    #[test]
    fn metadata_is_read_as_the_clients_write_it() {
        // {"my key": "ä&b=c"}: percent-encoded, form-encoded, and percent-encoded again.
        let query = "metadata=my%252520key%3D%2525C3%2525A4%252526b%25253Dc%26other%3Dx";
        let query = ListQuery::parse(query).expect("good");
        assert_eq!(query.metadata["my key"], "ä&b=c");
        assert_eq!(query.metadata["other"], "x");
    }

    #[test]
    fn states_come_in_one_parameter_or_in_several() {
        let excludes_running = |text| ListQuery::parse(text).expect(text).excludes_running;
        assert!(!excludes_running("") && !excludes_running("state=running%2Cpaused"));
        assert!(!excludes_running("state=paused&state=running"));
        assert!(excludes_running("state=paused"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(invalid_field("state=stopped"), "state");
        assert_eq!(invalid_field("order=up"), "order");
        assert_eq!(invalid_field("limit=0"), "limit");
        assert_eq!(invalid_field("limit=101"), "limit");
        assert_eq!(
            (invalid_field("limit="), invalid_field("startedAfter=")),
            ("limit".into(), "startedAfter".into())
        );
        assert!(ListQuery::parse("state=&order=&template=&nextToken=").is_ok());
        assert_eq!(invalid_field("nextToken=x"), "nextToken");
        assert_eq!(invalid_field("startedAfter=yesterday"), "startedAfter");
    }

    #[test]
    fn a_time_may_have_any_offset() {
        let query = "startedAfter=2026-11-25T10%3A00%3A00.5%2B01%3A00&limit=7&order=asc&template=b";
        let query = ListQuery::parse(query).expect("good");
        let time = "2026-11-25T09:00:00.5Z".parse().expect("a time");
        assert_eq!(query.started_after, Some(time));
        assert_eq!((query.limit, query.order), (7, SortOrder::Ascending));
    }
}
