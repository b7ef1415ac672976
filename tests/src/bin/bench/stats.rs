//! Medians and quartiles.

use serde::{Deserialize, Serialize};

/// Median and quartiles of samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub median: f64,
    pub q1: f64,
    pub q3: f64,
}

impl Spread {
    /// Of nothing all are 0.
    pub fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |quarter: usize| {
            let index = sorted.len().saturating_sub(1) * quarter;
            let lower = sorted.get(index / 4).copied().unwrap_or_default();
            let upper = sorted.get(index.div_ceil(4)).copied().unwrap_or_default();
            let fraction = [0.0, 0.25, 0.5, 0.75].get(index % 4).copied();
            lower + (upper - lower) * fraction.unwrap_or_default()
        };
        Self {
            median: at(2),
            q1: at(1),
            q3: at(3),
        }
    }

    /// Of the quotients of samples that were taken in the same round.
    pub fn of_ratios(samples: &[f64], to: &[f64]) -> Self {
        let ratios: Vec<f64> = samples.iter().zip(to).map(|(one, two)| one / two).collect();
        Self::of(&ratios)
    }
}

/// A count as a figure to calculate with.
#[expect(
    clippy::cast_precision_loss,
    reason = "figures are shown with four digits"
)]
pub const fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn quartiles_lie_between_neighbours() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]);
        let expected = Spread {
            median: 2.5,
            q1: 1.75,
            q3: 3.25,
        };
        assert_eq!(spread, expected);
    }

    #[test]
    fn one_sample_is_all_three_and_none_is_zero() {
        assert_eq!(Spread::of(&[7.0]).q1.to_bits(), 7.0_f64.to_bits());
        assert_eq!(Spread::of(&[]), Spread::default());
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let spread = Spread::of_ratios(&[2.0, 30.0, 8.0], &[1.0, 10.0, 2.0]);
        assert_eq!(spread.median.to_bits(), 3.0_f64.to_bits());
    }
}
