//! The probability of a count of samples for a given truth. Exact tails, no normal approximation.
//!
//! # The test and its false-alarm rate
//! A function with a share `p` of a program's CPU time is in each of the program's `n` samples with
//! probability `p`, so its count is Binomial(n, p). Sampling with fixed periods spreads samples
//! more evenly than chance, so the true variance is smaller, and the test rejects less often than
//! stated. A count fails if a count at least as far out, on either side, has a probability below
//! [`FALSE_ALARM`] = 1e-5 (a z of about 4.4). One run of all workloads makes about 50 such
//! comparisons, so a correct profiler fails one run in 2,000. With the 1,200 samples of a workload
//! of 12 s, a share of 10 % passes from 6.4 to 14.0 %, a share of 40 % from 33.8 to 46.3 %.

/// The probability of rejecting a correct count, per comparison.
pub const FALSE_ALARM: f64 = 1e-5;

/// The probability that Binomial(`n`, `p`) is at least as far out as `k`: twice the smaller tail
/// including `k`, at most 1.
#[must_use]
pub fn binomial_two_sided(k: u64, n: u64, p: f64) -> f64 {
    two_sided(binomial_tail(0, k, n, p), binomial_tail(k, n, n, p))
}

/// Probability that Poisson(`mean`) is `k` or less.
#[must_use]
pub fn poisson_at_most(k: u64, mean: f64) -> f64 {
    // Summed downwards from k: the terms decrease fast if k is below the mean, which is the
    // interesting case.
    (0..=k)
        .rev()
        .map(|i| (as_f64(i) * mean.ln() - mean - ln_factorial(i)).exp())
        .sum::<f64>()
        .min(1.0)
}

/// Probability that Poisson(`mean`) is `k` or more.
#[must_use]
pub fn poisson_at_least(k: u64, mean: f64) -> f64 {
    match k.checked_sub(1) {
        None => 1.0,
        Some(below) if as_f64(k) < mean => 1.0 - poisson_at_most(below, mean),
        Some(_) => {
            // Beyond the mean the terms shrink by mean/i: sum until they are negligible.
            let mut term = (as_f64(k) * mean.ln() - mean - ln_factorial(k)).exp();
            let (mut sum, mut i) = (0.0, k);
            while term > 1e-30 {
                sum += term;
                i += 1;
                term *= mean / as_f64(i);
            }
            sum.min(1.0)
        }
    }
}

/// Sum of the probabilities of `from` to `to` (both included) in Binomial(`n`, `p`).
fn binomial_tail(from: u64, to: u64, n: u64, p: f64) -> f64 {
    if p <= 0.0 {
        return if from == 0 { 1.0 } else { 0.0 };
    }
    if p >= 1.0 {
        return if to == n { 1.0 } else { 0.0 };
    }
    let ln_n = ln_factorial(n);
    (from..=to)
        .map(|k| {
            let ln_choose = ln_n - ln_factorial(k) - ln_factorial(n - k);
            (ln_choose + as_f64(k) * p.ln() + as_f64(n - k) * (1.0 - p).ln()).exp()
        })
        .sum::<f64>()
        .min(1.0)
}

fn two_sided(lower: f64, upper: f64) -> f64 {
    (2.0 * lower.min(upper)).min(1.0)
}

/// ln(n!), exact below 16, then by Stirling's series, whose error there is below 1e-10.
fn ln_factorial(n: u64) -> f64 {
    if n < 16 {
        return (2..=n).map(|i| as_f64(i).ln()).sum();
    }
    let x = as_f64(n);
    x * x.ln() - x + 0.5 * (std::f64::consts::TAU * x).ln() + 1.0 / (12.0 * x)
        - 1.0 / (360.0 * x.powi(3))
        + 1.0 / (1260.0 * x.powi(5))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of samples, far below 2^53"
)]
fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(value: f64, expected: f64) {
        assert!(
            (value / expected - 1.0).abs() < 1e-6,
            "{value} is not {expected}"
        );
    }

    /// Check against values computed by hand from the definition.
    #[test]
    fn small_binomials() {
        assert_close(binomial_two_sided(0, 4, 0.5), 2.0 / 16.0);
        assert_close(binomial_two_sided(1, 4, 0.5), 10.0 / 16.0);
        assert_close(binomial_two_sided(2, 4, 0.5), 1.0);
        assert_close(binomial_two_sided(3, 3, 0.1), 0.002);
    }

    /// Check that the two tails of a long run add up to one, and the widths stated in the module's
    /// documentation.
    #[test]
    fn long_binomials() {
        assert_close(binomial_tail(0, 5_000, 5_000, 0.3), 1.0);
        assert_close(
            binomial_tail(0, 499, 1_000, 0.5) + binomial_tail(500, 1_000, 1_000, 0.5),
            1.0,
        );
        for (n, p, inside, outside) in [
            (1_200, 0.1, 77, 76),
            (1_200, 0.1, 168, 169),
            (1_200, 0.4, 406, 405),
            (1_200, 0.4, 555, 556),
        ] {
            assert!(
                binomial_two_sided(inside, n, p) >= FALSE_ALARM,
                "{inside} of {n}"
            );
            assert!(
                binomial_two_sided(outside, n, p) < FALSE_ALARM,
                "{outside} of {n}"
            );
        }
    }

    #[test]
    fn a_certain_function_is_in_every_sample() {
        assert_close(binomial_two_sided(100, 100, 1.0), 1.0);
        assert!(binomial_two_sided(99, 100, 1.0) < FALSE_ALARM);
        assert!(binomial_two_sided(1, 100, 0.0) < FALSE_ALARM);
    }

    #[test]
    fn poisson_tails() {
        assert_close(poisson_at_most(0, 2.0), (-2.0_f64).exp());
        assert_close(poisson_at_most(1, 2.0), 3.0 * (-2.0_f64).exp());
        assert_close(poisson_at_least(0, 2.0), 1.0);
        assert_close(poisson_at_least(3, 2.0), 1.0 - 5.0 * (-2.0_f64).exp());
        assert_close(
            poisson_at_least(1_300, 1_200.0) + poisson_at_most(1_299, 1_200.0),
            1.0,
        );
        assert!(poisson_at_most(1_050, 1_200.0) < FALSE_ALARM);
        assert!(poisson_at_most(1_060, 1_200.0) > FALSE_ALARM);
    }
}
