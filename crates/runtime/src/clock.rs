//! The wall clock, as a value that tests can set.
//!
//! For durations use `tokio::time`, which is monotonic and can be paused in tests.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

/// Tells the time of day: the system's, or one that a test moves by hand. Clones share the same hand.
#[derive(Clone, Debug, Default)]
pub struct Clock(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    System,
    Manual(Arc<Mutex<Timestamp>>),
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `start` until [`advance`](Self::advance) moves it.
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(Mutex::new(start))))
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => Timestamp::now(),
            Source::Manual(hand) => *hand.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Moves a manual clock forward, stopping at the last representable moment.
    ///
    /// # Panics
    /// On the system's clock, which nobody may move.
    pub fn advance(&self, by: Duration) {
        match &self.0 {
            Source::System => {
                panic!("the system's clock cannot be advanced: use Clock::manual in tests")
            }
            Source::Manual(hand) => {
                let mut hand = hand.lock().unwrap_or_else(PoisonError::into_inner);
                *hand = hand.saturating_add(by).unwrap_or(Timestamp::MAX);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_for_all_its_clones() {
        let clock = Clock::manual(Timestamp::UNIX_EPOCH);
        let other = clock.clone();
        clock.advance(Duration::from_secs(90));
        assert_eq!(other.now().to_string(), "1970-01-01T00:01:30Z");
    }

    #[test]
    fn a_manual_clock_stops_at_the_end_of_time() {
        let clock = Clock::manual(Timestamp::MAX);
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), Timestamp::MAX);
    }

    #[test]
    #[should_panic(expected = "Clock::manual")]
    fn the_system_clock_cannot_be_moved() {
        Clock::system().advance(Duration::from_secs(1));
    }
}
