//! Which of the addresses that are up gets a request.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use rand::{Rng, RngExt as _};
use tokio::time::Instant;

/// How long a latency is remembered: after this time without another, nothing is left of it.
const MEMORY: Duration = Duration::from_secs(5);
/// Added to every latency, so that what is in flight counts among addresses that are all too fast to measure.
const FLOOR_NANOS: f64 = 1_000.0;

/// A latency that rises at once and falls slowly: each peak counts as it is and fades, as in Finagle's "peak EWMA".
/// Unlike there, it fades in a straight line and not exponentially, and what is left of it does not add to what comes after.
/// An exponential would keep an address waiting the longer the slower it was, because it is tried
/// again only when it has become as cheap as the others: a minute, for a second against a millisecond. Here whatever was
/// slow once is tried again after [`MEMORY`] at the latest, and what it answers then counts in full.
///
/// The two numbers are not read and written as one. What a race can do is lose one observation of many.
#[derive(Debug)]
pub(super) struct PeakEwma {
    start: Instant,
    /// The average in nanoseconds, as the bits of an `f64`.
    average: AtomicU64,
    /// Nanoseconds from `start` to the last observation.
    observed: AtomicU64,
}

impl PeakEwma {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), average: AtomicU64::new(0), observed: AtomicU64::new(0) }
    }

    pub(super) fn observe(&self, latency: Duration) {
        let now = self.start.elapsed();
        let latency = nanos(latency);
        let average = f64::from_bits(self.average.load(Relaxed));
        let next = latency.max(average * self.kept(now));
        self.average.store(next.to_bits(), Relaxed);
        self.observed.store(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Forgets everything before this first latency of a new connection.
    pub(super) fn restart(&self, latency: Duration) {
        self.average.store(0, Relaxed);
        self.observe(latency);
    }

    /// What a request costs that is sent where so many are in flight already.
    pub(super) fn cost(&self, in_flight: usize) -> f64 {
        let average = f64::from_bits(self.average.load(Relaxed)) * self.kept(self.start.elapsed());
        #[expect(clippy::cast_precision_loss, reason = "requests in flight stay far below 2⁵²")]
        let queue = in_flight as f64 + 1.0;
        (average + FLOOR_NANOS) * queue
    }

    /// The share of the average that is left by now.
    fn kept(&self, now: Duration) -> f64 {
        let age = now.saturating_sub(Duration::from_nanos(self.observed.load(Relaxed)));
        (1.0 - nanos(age) / nanos(MEMORY)).max(0.0)
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn nanos(duration: Duration) -> f64 {
    duration.as_nanos() as f64
}

/// The power of two choices: draws two of the candidates at random and takes the cheaper one. What is not usable
/// (`cost` says `None`) is not taken; when that leaves neither, the cheapest usable one of all is.
pub(super) fn choose<'a, T>(
    candidates: &'a [T],
    random: &mut impl Rng,
    cost: impl Fn(&T) -> Option<f64>,
) -> Option<&'a T> {
    let priced = |candidate: &'a T| cost(candidate).map(|cost| (candidate, cost));
    let cheaper = |one: (&'a T, f64), other: (&'a T, f64)| if other.1 < one.1 { other } else { one };
    let drawn = match candidates {
        [] => None,
        [only] => priced(only),
        [one, other] => [one, other].into_iter().filter_map(priced).reduce(cheaper),
        many => {
            let one = random.random_range(0..many.len());
            // Any but `one`, each as likely.
            let other = (one + random.random_range(1..many.len())) % many.len();
            [one, other].into_iter().filter_map(|at| many.get(at)).filter_map(priced).reduce(cheaper)
        }
    };
    drawn.or_else(|| candidates.iter().filter_map(priced).reduce(cheaper)).map(|(candidate, _)| candidate)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn a_latency_rises_at_once_and_falls_slowly() {
        let ewma = PeakEwma::new();
        ewma.observe(10 * MS);
        let calm = ewma.cost(0);
        ewma.observe(100 * MS);
        let peak = ewma.cost(0);
        assert!(peak > 9.0 * calm, "the peak counts in full");
        tokio::time::advance(Duration::from_secs(1)).await;
        ewma.observe(10 * MS);
        let after = ewma.cost(0);
        assert!(after < peak && after > 5.0 * calm, "one good answer does not make up for it");
        tokio::time::advance(MEMORY).await;
        assert!(ewma.cost(0) < calm, "but time does");
        ewma.observe(100 * MS);
        ewma.restart(10 * MS);
        assert!((ewma.cost(0) - calm).abs() < 1.0, "and a new connection begins anew");
    }

    /// A request every ten milliseconds for two equals, of which one was slow with its first request: when that one has its
    /// share again does not depend on how slow it was.
    #[tokio::test(start_paused = true)]
    async fn who_was_slow_once_has_its_share_again_after_a_few_seconds() {
        for slow in [100 * MS, Duration::from_secs(1), Duration::from_secs(30)] {
            let (once_slow, other) = (PeakEwma::new(), PeakEwma::new());
            let mut random = StdRng::seed_from_u64(0);
            once_slow.observe(slow);
            let mut served = async |requests: u32| {
                let mut share = 0;
                for _ in 0..requests {
                    tokio::time::advance(10 * MS).await;
                    let candidates = [&once_slow, &other];
                    let chosen = choose(&candidates, &mut random, |ewma| Some(ewma.cost(0))).unwrap();
                    share += u32::from(std::ptr::eq(*chosen, &once_slow));
                    chosen.observe(Duration::from_micros(random.random_range(900..1100)));
                }
                share
            };
            assert_eq!(served(100).await, 0, "after {slow:?} it is spared at first");
            served(400).await;
            let share = served(1000).await;
            assert!((300..700).contains(&share), "after {slow:?} it got {share} of 1000 requests");
        }
    }

    proptest! {
        #[test]
        fn what_is_in_flight_makes_it_dearer(latency in 0u64..10_000, in_flight in 0usize..2_000) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let _guard = runtime.enter();
            let ewma = PeakEwma::new();
            ewma.observe(Duration::from_micros(latency));
            prop_assert!(ewma.cost(in_flight) < ewma.cost(in_flight + 1));
            prop_assert!(ewma.cost(in_flight) > 0.0);
        }

        #[test]
        fn the_chosen_one_is_usable_whenever_one_is(costs in prop::collection::vec(prop::option::of(0.0..1e9), 0..12), seed: u64) {
            let chosen = choose(&costs, &mut StdRng::seed_from_u64(seed), |cost| *cost);
            prop_assert_eq!(chosen.is_some(), costs.iter().any(Option::is_some));
            prop_assert!(chosen.is_none_or(Option::is_some));
        }

        #[test]
        fn the_dearest_of_several_is_never_chosen(costs in prop::collection::hash_set(0u32..1000, 2..12), seed: u64) {
            let costs: Vec<u32> = costs.into_iter().collect();
            let chosen = choose(&costs, &mut StdRng::seed_from_u64(seed), |cost| Some(f64::from(*cost)));
            prop_assert_ne!(chosen, costs.iter().max());
        }

        #[test]
        fn equals_share_the_work(count in 3usize..8, seed: u64) {
            let mut random = StdRng::seed_from_u64(seed);
            let candidates: Vec<usize> = (0..count).collect();
            let mut hits = vec![0u32; count];
            for _ in 0..count * 1000 {
                hits[*choose(&candidates, &mut random, |_| Some(1.0)).unwrap()] += 1;
            }
            // Binomial with mean 1000 and a standard deviation below 32: ten of them are never reached.
            prop_assert!(hits.iter().all(|hits| hits.abs_diff(1000) < 320), "{hits:?}");
        }
    }
}
