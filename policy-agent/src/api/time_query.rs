//! Times and durations in requests: `1h30m`, `2d`, or a time of RFC 3339.

use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};

use crate::policy::ValidationError;

/// Parses a time in the past, written as itself or as how long ago it is.
///
/// # Errors
/// The text is neither.
pub(super) fn parse_since(text: &str) -> Result<Timestamp, ValidationError> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago = parse_duration("since", text)?;
    Timestamp::now().checked_sub(ago).map_err(|_| {
        ValidationError::about_entry("since", text, "is before all time; write less, like 7d")
    })
}

/// Parses a duration, with days of 24 hours.
///
/// # Errors
/// The text is no duration, or not a positive one. The error names the field.
pub(super) fn parse_duration(field: &str, text: &str) -> Result<SignedDuration, ValidationError> {
    let span: Option<Span> = text.parse().ok();
    let duration = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
    duration.filter(SignedDuration::is_positive).ok_or_else(|| {
        let problem = "write a duration, like 30m, 1h or 7d";
        ValidationError::about_entry(field, text, problem)
    })
}

/// Parses a duration as the time at which it ends, from now on.
///
/// # Errors
/// The text is no duration, or too long. The error names the field.
pub(crate) fn parse_until(field: &str, text: &str) -> Result<Timestamp, ValidationError> {
    let until = Timestamp::now().checked_add(parse_duration(field, text)?);
    until.map_err(|_| ValidationError::about_entry(field, text, "is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations_are_understood() {
        let now = Timestamp::now();
        for (text, seconds) in
            [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("1h 30m", 5400), ("2d", 172_800)]
        {
            let ago = now.duration_since(parse_since(text).expect(text)).as_secs();
            assert!((seconds - 5..=seconds + 5).contains(&ago), "{text}: {ago}");
        }
        let time = "2026-11-29T08:00:00Z";
        assert_eq!(parse_since(time).expect(time).to_string(), time);
    }

    #[test]
    fn anything_else_is_refused_with_an_example() {
        for text in ["", "yesterday", "-1h", "0s", "5", "1 month", "99999999999d"] {
            let error = parse_since(text).expect_err(text);
            assert_eq!(error.field, "since", "{text}");
            assert!(error.problem.contains("7d"), "{text}: {error}");
        }
    }
}
