//! Percentiles and straight lines.

use serde::Serialize;

/// The distribution of some values.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Spread {
    /// How many.
    pub count: usize,
    /// The median.
    pub p50: f64,
    /// 99 of 100 are less.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let index = (values.len().saturating_sub(1) as f64 * part).round() as usize;
            values.get(index).copied().unwrap_or(f64::NAN)
        };
        Self { count: values.len(), p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

/// The slope of the straight line through `points`, and its standard error.
pub fn slope(points: &[(f64, f64)]) -> (f64, f64) {
    let n = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0 / n, y + p.1 / n));
    let (xy, xx) = points
        .iter()
        .fold((0.0, 0.0), |(xy, xx), p| (xy + (p.0 - x) * (p.1 - y), xx + (p.0 - x) * (p.0 - x)));
    let slope = xy / xx;
    let rest: f64 = points.iter().map(|p| (p.1 - y - slope * (p.0 - x)).powi(2)).sum();
    (slope, (rest / (n - 2.0) / xx).sqrt())
}
