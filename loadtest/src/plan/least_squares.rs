//! Least squares over few features whose coefficients are costs, so never negative.
//!
//! Every subset of the features is fitted by the normal equations; of those whose coefficients are all at
//! least zero, the best wins. With four features these are fifteen small systems: no iteration, no tolerance
//! to choose, the same answer each time.
//!
//! # Promises
//! 1. Errors are relative: a cell of 1 ms weighs as much as one of 100 ms.
//! 2. Two features that the data cannot tell apart are never both used.

/// The most features of one fit.
pub(super) const FEATURES: usize = 4;

/// One observation: features, and the positive figure that they explain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) features: [f64; FEATURES],
    pub(super) figure: f64,
}

/// The coefficients; those of unused features are zero. None where there is nothing to fit.
pub(super) fn fit(rows: &[Row]) -> Option<[f64; FEATURES]> {
    let scaled: Vec<[f64; FEATURES]> = rows.iter().map(|row| row.features.map(|value| value / row.figure)).collect();
    if scaled.is_empty() || scaled.iter().flatten().any(|value| !value.is_finite()) {
        return None;
    }
    // Columns of like length keep the elimination exact enough.
    let norms: [f64; FEATURES] =
        std::array::from_fn(|column| scaled.iter().map(|row| row[column] * row[column]).sum::<f64>().sqrt());
    let mut best: Option<(f64, [f64; FEATURES])> = None;
    // Fewer features first: more of them must fit better to win.
    let mut subsets: Vec<u32> = (1..1 << FEATURES).collect();
    subsets.sort_by_key(|subset| subset.count_ones());
    for subset in subsets {
        let used: Vec<usize> = (0..FEATURES).filter(|column| subset & (1 << column) != 0).collect();
        let Some(solution) = solve(&scaled, &norms, &used) else { continue };
        if solution.iter().any(|value| *value < 0.0) {
            continue;
        }
        let mut coefficients = [0.0; FEATURES];
        for (column, value) in used.iter().zip(&solution) {
            coefficients[*column] = value / norms[*column];
        }
        let error: f64 = scaled.iter().map(|row| (dot(row, &coefficients) - 1.0).powi(2)).sum();
        if best.is_none_or(|(least, _)| error < least * 0.999) {
            best = Some((error, coefficients));
        }
    }
    best.map(|(_, coefficients)| coefficients)
}

pub(super) fn dot(features: &[f64; FEATURES], coefficients: &[f64; FEATURES]) -> f64 {
    features.iter().zip(coefficients).map(|(feature, coefficient)| feature * coefficient).sum()
}

/// The normal equations of the `used` columns against ones, by elimination with pivots; none where they are
/// singular (promise 2).
fn solve(rows: &[[f64; FEATURES]], norms: &[f64; FEATURES], used: &[usize]) -> Option<Vec<f64>> {
    if used.iter().any(|column| norms[*column] <= 0.0) {
        return None;
    }
    let size = used.len();
    let column = |row: &[f64; FEATURES], index: usize| row[used[index]] / norms[used[index]];
    let mut system: Vec<Vec<f64>> = (0..size)
        .map(|i| {
            let mut line: Vec<f64> =
                (0..size).map(|j| rows.iter().map(|row| column(row, i) * column(row, j)).sum()).collect();
            line.push(rows.iter().map(|row| column(row, i)).sum());
            line
        })
        .collect();
    for pivot in 0..size {
        let best = (pivot..size).max_by(|a, b| system[*a][pivot].abs().total_cmp(&system[*b][pivot].abs()))?;
        system.swap(pivot, best);
        if system[pivot][pivot].abs() < 1e-6 {
            return None;
        }
        let head = system[pivot].clone();
        for line in system.iter_mut().skip(pivot + 1) {
            let factor = line[pivot] / head[pivot];
            line.iter_mut().zip(&head).for_each(|(value, above)| *value -= factor * above);
        }
    }
    let mut solution = vec![0.0; size];
    for line in (0..size).rev() {
        let known: f64 = (line + 1..size).map(|column| system[line][column] * solution[column]).sum();
        solution[line] = (system[line][size] - known) / system[line][line];
    }
    Some(solution)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(truth: [f64; FEATURES], features: impl Fn(f64) -> [f64; FEATURES]) -> Vec<Row> {
        (1..30)
            .map(|index| {
                let features = features(f64::from(index));
                Row { features, figure: dot(&features, &truth) }
            })
            .collect()
    }

    #[test]
    fn exact_data_gives_back_its_coefficients() {
        let truth = [3.0, 0.2, 40.0, 0.0];
        let found = fit(&rows(truth, |x| [1.0, x, 1.0 / x, x * x])).expect("fitted");
        for (found, truth) in found.iter().zip(truth) {
            assert!((found - truth).abs() < 1e-6, "{found} is not {truth}");
        }
    }

    #[test]
    fn no_cost_is_negative() {
        let found = fit(&rows([9.0, -0.1, 0.0, 0.0], |x| [1.0, x, x * x, 0.0])).expect("fitted");
        assert!(found.iter().all(|value| *value >= 0.0), "{found:?}");
    }

    #[test]
    fn twins_are_not_both_used() {
        let found = fit(&rows([2.0, 2.0, 5.0, 0.0], |x| [x, 2.0 * x, 1.0, 0.0])).expect("fitted");
        assert_eq!(found.iter().filter(|value| **value > 0.0).count(), 2, "promise 2: {found:?}");
        assert_eq!(fit(&[]), None);
        assert_eq!(fit(&[Row { features: [1.0; FEATURES], figure: 0.0 }]), None);
    }
}
