//! Whole numbers in JSON: 5 and 5.0 are equal (JSON Schema 2020-12, 6.1.1).

use serde_json::Value;

/// Doubles represent every whole number up to this one exactly.
const MAX_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;

/// The number, if it is whole and not negative.
#[must_use]
pub fn whole_number(value: &Value) -> Option<u64> {
    let exact = |number: &f64| number.fract() == 0.0 && (0.0..=MAX_EXACT_INTEGER).contains(number);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 2^53")]
    value.as_u64().or_else(|| value.as_f64().filter(exact).map(|number| number as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_may_have_a_point() {
        for (text, number) in [("5", 5), ("5.0", 5), ("0", 0), ("-0.0", 0), ("1e3", 1000)] {
            assert_eq!(
                whole_number(&serde_json::from_str(text).expect(text)),
                Some(number),
                "{text}"
            );
        }
        for text in ["-1", "-1.0", "0.5", "1e300", "\"5\"", "true", "null", "[5]"] {
            assert_eq!(whole_number(&serde_json::from_str(text).expect(text)), None, "{text}");
        }
    }
}
