//! Sets the headers of a rule in a request, and removes what the sandbox sent in their place.

use std::sync::Arc;

use hyper::{
    Request,
    header::{HeaderMap, HeaderName, HeaderValue},
};

use crate::policy::{HeaderRule, RenderError, SecretLookup};

/// The headers of one request, with their current values.
pub(super) struct RuleHeaders(Vec<(HeaderName, HeaderValue)>);

impl RuleHeaders {
    /// The headers of a rule.
    ///
    /// # Errors
    /// A secret is unknown, so the request must not be sent.
    pub(super) fn render(
        rule: &HeaderRule,
        secrets: &dyn SecretLookup,
    ) -> Result<Self, RenderError> {
        let render = |(name, template): (&HeaderName, &crate::policy::HeaderTemplate)| {
            Ok((name.clone(), template.render(secrets)?))
        };
        rule.headers().map(render).collect::<Result<_, _>>().map(Self)
    }

    /// Sets the headers. All lines of these names that the sandbox sent are removed.
    pub(super) fn apply<B>(self, request: &mut Request<B>) {
        let headers = request.headers_mut();
        remove_fields(headers, self.0.iter().map(|(name, _)| name));
        for (name, value) in self.0 {
            headers.insert(name, value);
        }
    }

    /// The names, which must not be in the trailers of the request either.
    pub(super) fn names(&self) -> Arc<[HeaderName]> {
        self.0.iter().map(|(name, _)| name.clone()).collect()
    }
}

/// Removes fields of these names, and those that differ by `_` in place of `-`: many servers treat
/// them as the same (RFC 3875, 4.1.18).
pub(super) fn remove_fields<'a>(
    headers: &mut HeaderMap,
    names: impl Iterator<Item = &'a HeaderName>,
) {
    let underscored: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().contains('_')).cloned().collect();
    for name in names {
        headers.remove(name);
        for alias in underscored.iter().filter(|alias| is_alias(alias, name)) {
            headers.remove(alias);
        }
    }
}

fn is_alias(one: &HeaderName, other: &HeaderName) -> bool {
    let bytes = |name: &HeaderName| name.as_str().replace('_', "-");
    bytes(one) == bytes(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, value.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn all_lines_that_the_sandbox_sent_are_replaced() {
        let mut request = Request::new(());
        *request.headers_mut() = headers(&[
            ("Authorization", "Bearer forged"),
            ("AUTHORIZATION", "Basic forged"),
            ("x_api_key", "forged"),
            ("X-API_Key", "forged"),
            ("x-other_key", "kept"),
        ]);
        let set = |name: &str| (name.parse().expect("a name"), HeaderValue::from_static("real"));
        RuleHeaders(vec![set("authorization"), set("x-api-key")]).apply(&mut request);
        let expected =
            headers(&[("x-other_key", "kept"), ("authorization", "real"), ("x-api-key", "real")]);
        assert_eq!(*request.headers(), expected);
    }
}
