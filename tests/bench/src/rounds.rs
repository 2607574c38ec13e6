//! Alternating rounds of measurements.

use std::cell::Cell;

use anyhow::Result;

thread_local! {
    /// The widest spread of a subject's rounds since the last call of [`take_spread`].
    static WIDEST_SPREAD: Cell<f64> = const { Cell::new(0.0) };
}

/// The widest spread since the last call: how far the middle half of the rounds of a subject is
/// from its median, as a fraction of it.
pub(crate) fn take_spread() -> f64 {
    WIDEST_SPREAD.take()
}

/// Measures every subject once per round and returns the medians in the order of the subjects.
pub(crate) fn medians<S>(
    rounds: usize,
    subjects: &mut [S],
    mut measure: impl FnMut(&mut S) -> Result<f64>,
) -> Result<Vec<f64>> {
    let results = medians_of_each(rounds, subjects, |subject| Ok([measure(subject)?]))?;
    Ok(results.into_iter().map(|[result]| result).collect())
}

/// Like [`medians`], for measurements of several values. Each value has its own median.
pub(crate) fn medians_of_each<S, const N: usize>(
    rounds: usize,
    subjects: &mut [S],
    mut measure: impl FnMut(&mut S) -> Result<[f64; N]>,
) -> Result<Vec<[f64; N]>> {
    let mut results: Vec<_> = subjects.iter().map(|_| [const { Vec::new() }; N]).collect();
    for _ in 0..rounds {
        for (subject, results) in subjects.iter_mut().zip(&mut results) {
            for (result, results) in measure(subject)?.into_iter().zip(results) {
                results.push(result);
            }
        }
    }
    results.iter().flatten().for_each(|values| note_spread(values));
    Ok(results.into_iter().map(|values| values.map(median)).collect())
}

fn note_spread(values: &[f64]) {
    let half = (quantile(values, 0.75) - quantile(values, 0.25)) / 2.0;
    let spread = half / quantile(values, 0.5);
    if spread.is_finite() {
        WIDEST_SPREAD.set(WIDEST_SPREAD.get().max(spread));
    }
}

/// The value below which this fraction of the values lies.
pub(crate) fn quantile(values: &[f64], fraction: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a fraction of an index is an index"
    )]
    let index = (last as f64 * fraction).round() as usize;
    values.get(index).copied().unwrap_or(f64::NAN)
}

/// The median. For an even number of values, the higher of the two in the middle.
pub(crate) fn median(values: Vec<f64>) -> f64 {
    quantile(&values, 0.5)
}
