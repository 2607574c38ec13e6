//! Alternating rounds of measurements.

use anyhow::Result;

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
    Ok(results.into_iter().map(|values| values.map(median)).collect())
}

/// The median. For an even number of values, the higher of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
