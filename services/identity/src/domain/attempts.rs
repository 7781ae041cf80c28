//! Wrong passwords: a few are free, then each makes the next one wait twice as long, up to a limit. Nobody is locked out
//! for good, because that would be a way to lock others out.

use std::time::Duration;

use jiff::Timestamp;

use super::{after, between};

/// How much patience there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// So many failures cost nothing.
    pub free: u32,
    /// The wait after the first that does.
    pub first_wait: Duration,
    /// The longest wait.
    pub longest_wait: Duration,
    /// After this much quiet all is forgotten.
    pub forgotten_after: Duration,
}

/// For one account from one source.
pub const PER_ACCOUNT: Patience = Patience {
    free: 4,
    first_wait: Duration::from_secs(1),
    longest_wait: Duration::from_secs(15 * 60),
    forgotten_after: Duration::from_secs(60 * 60),
};

/// For all accounts from one source: many people may share an address, and one may try one password on many accounts.
pub const PER_SOURCE: Patience = Patience {
    free: 50,
    first_wait: Duration::from_secs(1),
    longest_wait: Duration::from_secs(5 * 60),
    forgotten_after: Duration::from_secs(15 * 60),
};

/// The failures of late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempts {
    /// How many in a row.
    pub failures: u32,
    /// No attempt before this.
    pub blocked_until: Timestamp,
    /// When the last one was.
    pub last_at: Timestamp,
}

/// Too many failures: come back later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many failed attempts; try again in {} s", self.0.as_secs().max(1))]
pub struct Wait(pub Duration);

impl Attempts {
    /// Counts an attempt that is about to be made as a failure. One that then succeeds is struck out again; so attempts
    /// made at the same time cannot outrun the count.
    ///
    /// # Errors
    /// When it comes too early.
    pub fn next(previous: Option<Self>, patience: &Patience, now: Timestamp) -> Result<Self, Wait> {
        let remembered = previous.filter(|previous| between(previous.last_at, now) < patience.forgotten_after);
        if let Some(previous) = remembered
            && now < previous.blocked_until
        {
            return Err(Wait(between(now, previous.blocked_until)));
        }
        let failures = remembered.map_or(0, |previous| previous.failures).saturating_add(1);
        let wait = match failures.checked_sub(patience.free) {
            None | Some(0) => Duration::ZERO,
            Some(beyond) => {
                let factor = 2_u32.saturating_pow(beyond - 1);
                patience.first_wait.saturating_mul(factor).min(patience.longest_wait)
            }
        };
        Ok(Self { failures, blocked_until: after(now, wait), last_at: now })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn start() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    #[test]
    fn each_failure_beyond_the_free_ones_doubles_the_wait() {
        let mut now = start();
        let mut attempts = None;
        let mut waits = Vec::new();
        for _ in 0..17 {
            let next = Attempts::next(attempts, &PER_ACCOUNT, now).unwrap();
            waits.push(between(now, next.blocked_until).as_secs());
            now = next.blocked_until;
            attempts = Some(next);
        }
        assert_eq!(waits, [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]);
    }

    #[test]
    fn who_comes_too_early_is_told_how_long_to_wait_and_nothing_is_counted() {
        let blocked = Attempts { failures: 6, blocked_until: after(start(), Duration::from_secs(2)), last_at: start() };
        let early = after(start(), Duration::from_millis(500));
        assert_eq!(Attempts::next(Some(blocked), &PER_ACCOUNT, early), Err(Wait(Duration::from_millis(1500))));
        assert_eq!(Attempts::next(Some(blocked), &PER_ACCOUNT, blocked.blocked_until).unwrap().failures, 7);
    }

    #[test]
    fn quiet_makes_all_forgotten() {
        let blocked = Attempts { failures: 60, blocked_until: start(), last_at: start() };
        let later = after(start(), PER_ACCOUNT.forgotten_after);
        assert_eq!(Attempts::next(Some(blocked), &PER_ACCOUNT, later).unwrap().failures, 1);
    }

    proptest! {
        #[test]
        fn nobody_waits_longer_than_the_limit(failures: u32, pause in 0_u64..10_000) {
            let previous = Attempts { failures, blocked_until: start(), last_at: start() };
            let now = after(start(), Duration::from_secs(pause));
            let next = Attempts::next(Some(previous), &PER_ACCOUNT, now).unwrap();
            prop_assert!(between(now, next.blocked_until) <= PER_ACCOUNT.longest_wait);
        }
    }
}
