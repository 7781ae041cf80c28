//! How long to wait before trying again.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// Exponential backoff with full jitter: the n-th delay is uniform in `0..=min(max, base·2ⁿ)`, so that clients which
/// failed together do not come back together
/// (<https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>).
///
/// As an iterator it never ends; bound the attempts with `take`.
#[derive(Debug)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    attempt: u32,
    random: StdRng,
}

impl Backoff {
    /// Delays that start below `base` and never exceed `max`.
    pub fn new(base: Duration, max: Duration) -> Self {
        Self { base, max, attempt: 0, random: rand::make_rng() }
    }

    /// The same delays for the same seed, for tests that must be repeatable.
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Self {
        self.random = StdRng::seed_from_u64(seed);
        self
    }

    /// The next delay.
    pub fn delay(&mut self) -> Duration {
        let ceiling = self.base.saturating_mul(2u32.saturating_pow(self.attempt)).min(self.max);
        self.attempt = self.attempt.saturating_add(1);
        ceiling.mul_f64(self.random.random_range(0.0..=1.0))
    }

    /// Starts again from `base`, after something succeeded.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.delay())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_delay_stays_below_its_ceiling(base in 1u64..10_000, max in 1u64..100_000, seed: u64) {
            let (base, max) = (Duration::from_millis(base), Duration::from_millis(max));
            for (attempt, delay) in Backoff::new(base, max).seeded(seed).take(80).enumerate() {
                let ceiling = base.saturating_mul(2u32.saturating_pow(u32::try_from(attempt).unwrap())).min(max);
                prop_assert!(delay <= ceiling, "attempt {attempt}: {delay:?} > {ceiling:?}");
            }
        }
    }

    #[test]
    fn delays_are_spread_and_repeatable() {
        let delays = |seed| {
            Backoff::new(Duration::from_secs(1), Duration::from_secs(60)).seeded(seed).take(10).collect::<Vec<_>>()
        };
        assert_eq!(delays(7), delays(7));
        assert_ne!(delays(7), delays(8));
    }

    #[test]
    fn reset_goes_back_to_the_base() {
        let base = Duration::from_millis(10);
        let mut backoff = Backoff::new(base, Duration::from_secs(60)).seeded(1);
        let grown = backoff.by_ref().take(12).max().unwrap();
        assert!(grown > base);
        backoff.reset();
        assert!(backoff.delay() <= base);
    }
}
