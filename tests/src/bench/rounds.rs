//! Rounds of measurements, in turns.

use anyhow::Result;

/// Measures every subject once per round, in turns: their medians, in the order of the subjects.
pub fn medians<S>(
    rounds: usize,
    subjects: &mut [S],
    mut measure: impl FnMut(&mut S) -> Result<f64>,
) -> Result<Vec<f64>> {
    let mut results = vec![Vec::new(); subjects.len()];
    for _ in 0..rounds {
        for (subject, results) in subjects.iter_mut().zip(&mut results) {
            results.push(measure(subject)?);
        }
    }
    Ok(results.into_iter().map(median).collect())
}

/// The middle one; of an even number the higher of the two in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
