//! Numbers as people read them: short, with three digits at most.

/// The bars of a sparkline, from the lowest.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A number with a prefix of the SI: `12.3k`.
pub(super) fn short_number(value: f64) -> String {
    let mut value = value;
    for prefix in ["", "k", "M", "G", "T"] {
        if value < 9.95 && prefix.is_empty() && value.fract() >= 0.05 {
            return format!("{value:.1}");
        }
        if value < 999.5 {
            let digits = usize::from(!prefix.is_empty() && value < 99.95);
            return format!("{value:.digits$}{prefix}");
        }
        value /= 1000.0;
    }
    format!("{value:.0}P")
}

/// A count.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(super) fn short_count(count: u64) -> String {
    short_number(count as f64)
}

/// A rate of bytes as bits per second.
pub(super) fn bit_rate(bytes_per_second: f64) -> String {
    format!("{}b/s", short_number(bytes_per_second * 8.0))
}

/// A bar per value, relative to the largest. The newest value comes last.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "values are from 0 to 1, and the index is looked up"
)]
pub(super) fn sparkline(
    values: impl ExactSizeIterator<Item = f64> + Clone,
    width: usize,
) -> String {
    let shown = values.clone().skip(values.len().saturating_sub(width));
    let largest = shown.clone().fold(0.0_f64, f64::max);
    let bar = |value: f64| {
        if value <= 0.0 || largest <= 0.0 {
            return ' ';
        }
        let place = (value / largest * (BARS.len() - 1) as f64).round() as usize;
        BARS.get(place).copied().unwrap_or('█')
    };
    let bars: String = shown.map(bar).collect();
    format!("{bars:>width$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_at_most() {
        for (value, shown) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (7.0, "7"),
            (42.4, "42"),
            (999.4, "999"),
            (999.6, "1.0k"),
            (12_345.0, "12.3k"),
            (123_456.0, "123k"),
            (7.6e9, "7.6G"),
            (2e16, "20P"),
        ] {
            assert_eq!(short_number(value), shown, "{value}");
        }
        assert_eq!(bit_rate(125_000.0), "1.0Mb/s");
        assert_eq!(short_count(12), "12");
    }

    #[test]
    fn a_sparkline_shows_the_newest_values_at_the_right() {
        assert_eq!(sparkline([0.0, 1.0, 7.0].into_iter(), 5), "   ▂█");
        assert_eq!(sparkline([9.0, 1.0, 1.0].into_iter(), 2), "██");
        assert_eq!(sparkline([0.0, 0.0].into_iter(), 2), "  ");
    }
}
