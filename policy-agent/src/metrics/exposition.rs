//! The exposition formats of metrics: Prometheus' text format by default, and OpenMetrics for
//! clients that ask for it, as Prometheus itself does.

use std::collections::BTreeSet;

/// The media type of [`ExpositionFormat::Text`].
pub(super) const TEXT_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The media type of [`ExpositionFormat::OpenMetrics`].
pub(super) const OPEN_METRICS_CONTENT_TYPE: &str =
    "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// An exposition format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpositionFormat {
    /// Prometheus' text format, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl ExpositionFormat {
    /// Selects a format by the values of `Accept`: text, unless OpenMetrics is preferred
    /// explicitly.
    pub fn negotiate<'a>(accept: impl Iterator<Item = &'a str>) -> Self {
        let (mut text, mut open_metrics) = (None, None);
        for range in accept.flat_map(|value| value.split(',')).filter_map(MediaRange::parse) {
            let best = match range.kind.as_str() {
                "application/openmetrics-text" if range.accepts_version(&["1.0.0"]) => {
                    &mut open_metrics
                }
                "text/plain" if range.accepts_version(&["0.0.4", "1.0.0"]) => &mut text,
                _ => continue,
            };
            *best = (*best).max(Some(range.weight));
        }
        // In thousandths; 0 means not acceptable.
        match open_metrics {
            Some(weight) if weight > 0 && Some(weight) >= text => Self::OpenMetrics,
            _ => Self::Text,
        }
    }

    /// The media type of the format.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => TEXT_CONTENT_TYPE,
            Self::OpenMetrics => OPEN_METRICS_CONTENT_TYPE,
        }
    }

    /// Converts OpenMetrics text to this format.
    #[must_use]
    pub fn convert(self, open_metrics: String) -> String {
        match self {
            Self::Text => to_text_format(&open_metrics),
            Self::OpenMetrics => open_metrics,
        }
    }
}

/// A media range of `Accept` (RFC 9110, 12.5.1).
struct MediaRange {
    kind: String,
    version: Option<String>,
    /// The quality value in thousandths.
    weight: u16,
}

impl MediaRange {
    /// Parses a media range. `None` if it is invalid.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let kind = parts.next()?.to_ascii_lowercase();
        let mut range = Self { kind, version: None, weight: 1000 };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim().to_ascii_lowercase().as_str() {
                "version" => range.version = Some(value.trim().trim_matches('"').to_owned()),
                "q" => range.weight = parse_weight(value.trim())?,
                _ => {}
            }
        }
        Some(range)
    }

    fn accepts_version(&self, known: &[&str]) -> bool {
        self.version.as_deref().is_none_or(|version| known.contains(&version))
    }
}

fn parse_weight(text: &str) -> Option<u16> {
    let weight: f32 = text.parse().ok()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
    (0.0..=1.0).contains(&weight).then_some((weight * 1000.0).round() as u16)
}

/// Converts to text format 0.0.4, in which a counter has the name of its samples and there is no
/// end marker.
fn to_text_format(open_metrics: &str) -> String {
    let counters: BTreeSet<&str> = open_metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut text = String::with_capacity(open_metrics.len() + 1024);
    for line in open_metrics.lines().filter(|line| *line != "# EOF") {
        match parse_comment(line).filter(|(_, name, _)| counters.contains(name)) {
            Some((keyword, name, rest)) => text.extend(["# ", keyword, " ", name, "_total ", rest]),
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

/// Parses `# HELP name …` and `# TYPE name …`.
fn parse_comment(line: &str) -> Option<(&str, &str, &str)> {
    let (keyword, rest) = line.strip_prefix("# ")?.split_once(' ')?;
    let (name, rest) = rest.split_once(' ')?;
    matches!(keyword, "HELP" | "TYPE").then_some((keyword, name, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiated(accept: &str) -> ExpositionFormat {
        ExpositionFormat::negotiate([accept].into_iter())
    }

    #[test]
    fn the_format_is_negotiated() {
        // The `Accept` headers of Prometheus 2.42, 2.55 and 3.5.
        for open in [
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;\
             version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
            "application/openmetrics-text",
            "Application/OpenMetrics-Text; Version=\"1.0.0\"; charset=utf-8",
            "text/plain, application/openmetrics-text",
        ] {
            assert_eq!(negotiated(open), ExpositionFormat::OpenMetrics, "{open}");
        }
        for plain in [
            "",
            "*/*",
            "text/html, */*",
            "text/plain",
            "text/plain;version=0.0.4;q=0.5,application/openmetrics-text;q=0.4",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;q=2",
            ";;q=,=",
        ] {
            assert_eq!(negotiated(plain), ExpositionFormat::Text, "{plain}");
        }
        assert_eq!(ExpositionFormat::negotiate(std::iter::empty()), ExpositionFormat::Text);
    }

    #[test]
    fn in_text_a_counter_is_called_as_its_samples_are() {
        let open_metrics = "# HELP a Things.\n# TYPE a counter\na_total{x=\"# TYPE b counter\"} 1\n\
                            # HELP b More.\n# TYPE b gauge\nb 2\n# EOF\n";
        let expected = "# HELP a_total Things.\n# TYPE a_total counter\n\
                        a_total{x=\"# TYPE b counter\"} 1\n# HELP b More.\n# TYPE b gauge\nb 2\n";
        assert_eq!(ExpositionFormat::Text.convert(open_metrics.to_owned()), expected);
        assert_eq!(ExpositionFormat::OpenMetrics.convert(open_metrics.to_owned()), open_metrics);
    }
}
