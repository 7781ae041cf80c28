//! When which signing key signs. Pure: from the keys there are and the time to what has to be done.
//!
//! ```text
//! published ──lead──▶ signs ──period──▶ its successor signs ──tail──▶ gone
//! ```
//!
//! A key is published well before it is used, so that every verifier has it by then, and stays published until the last
//! token it signed has expired.

use std::time::Duration;

use jiff::Timestamp;

use super::{ACCESS_TOKEN_LIFETIME, after};

/// For how long a key signs.
pub const PERIOD: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long it is published before it signs. Far longer than any verifier caches a key set, and than it takes every
/// instance to hear of it.
pub const LEAD: Duration = Duration::from_secs(24 * 60 * 60);
/// How long it stays published after it has signed its last token: the life of that token, and time for clocks to differ.
pub const TAIL: Duration = Duration::from_secs(ACCESS_TOKEN_LIFETIME.as_secs() + 10 * 60);

/// What the schedule needs to know of a key.
pub trait Scheduled {
    /// When it begins to sign.
    fn signs_from(&self) -> Timestamp;
}

impl Scheduled for Timestamp {
    fn signs_from(&self) -> Timestamp {
        *self
    }
}

/// The key that signs now: the newest of those that may.
pub fn signer<K: Scheduled>(keys: &[K], now: Timestamp) -> Option<&K> {
    keys.iter().filter(|key| key.signs_from() <= now).max_by_key(|key| key.signs_from())
}

/// When the next key begins to sign, if it has to be made now.
pub fn due<K: Scheduled>(keys: &[K], now: Timestamp) -> Option<Timestamp> {
    // Without any key there is nobody to wait for: no verifier knows an old one.
    let Some(newest) = keys.iter().map(Scheduled::signs_from).max() else {
        return Some(now);
    };
    let planned = after(newest, PERIOD);
    let announced = after(now, LEAD);
    // Late, because nobody ran for a while: still announced first.
    (planned <= announced).then_some(planned.max(announced))
}

/// Whether a key can go: a successor has signed for so long that nothing it signed is good any more.
pub fn is_spent<K: Scheduled>(key: &K, keys: &[K], now: Timestamp) -> bool {
    let successor = keys.iter().map(Scheduled::signs_from).filter(|from| *from > key.signs_from()).min();
    successor.is_some_and(|from| after(from, TAIL) <= now)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        after(Timestamp::from_second(1_800_000_000).unwrap(), Duration::from_secs(seconds))
    }

    const DAY: u64 = 24 * 60 * 60;

    #[test]
    fn the_first_key_signs_at_once() {
        assert_eq!(due::<Timestamp>(&[], at(0)), Some(at(0)));
        assert_eq!(signer::<Timestamp>(&[], at(0)), None);
    }

    #[test]
    fn the_next_key_is_made_a_day_before_it_signs() {
        let keys = [at(0)];
        assert_eq!(due(&keys, at(29 * DAY - 1)), None);
        assert_eq!(due(&keys, at(29 * DAY)), Some(at(30 * DAY)));
        let keys = [at(0), at(30 * DAY)];
        assert_eq!(due(&keys, at(29 * DAY)), None, "one is enough");
        assert_eq!(signer(&keys, at(30 * DAY - 1)), Some(&at(0)));
        assert_eq!(signer(&keys, at(30 * DAY)), Some(&at(30 * DAY)));
    }

    #[test]
    fn after_a_long_sleep_the_next_key_is_still_announced_first() {
        assert_eq!(due(&[at(0)], at(300 * DAY)), Some(at(301 * DAY)));
    }

    #[test]
    fn a_key_goes_when_its_last_token_has_expired() {
        let keys = [at(0), at(30 * DAY), at(60 * DAY)];
        let end = 30 * DAY + TAIL.as_secs();
        assert!(!is_spent(&keys[0], &keys, at(end - 1)));
        assert!(is_spent(&keys[0], &keys, at(end)));
        assert!(!is_spent(&keys[1], &keys, at(end)));
        assert!(!is_spent(&keys[2], &keys, at(1000 * DAY)), "the last one stays, however old");
    }

    proptest! {
        /// A year of turning the ring at odd times: always one key signs, every token can be verified until it expires, and
        /// (but for the very first) no key signs that was not published a day before.
        #[test]
        fn no_token_is_ever_without_its_key(pauses in prop::collection::vec(1_u64..(3 * DAY), 50..250)) {
            let mut keys: Vec<(Timestamp, Timestamp)> = Vec::new();
            let mut now = at(0);
            let mut tokens: Vec<(Timestamp, Timestamp)> = Vec::new();
            for pause in pauses {
                let starts: Vec<Timestamp> = keys.iter().map(|key| key.1).collect();
                if let Some(from) = due(&starts, now) {
                    keys.push((now, from));
                }
                let starts: Vec<Timestamp> = keys.iter().map(|key| key.1).collect();
                keys.retain(|key| !is_spent(&key.1, &starts, now));

                let starts: Vec<Timestamp> = keys.iter().map(|key| key.1).collect();
                let signing = *signer(&starts, now).unwrap();
                let published = keys.iter().find(|key| key.1 == signing).unwrap().0;
                prop_assert!(signing == at(0) || after(published, LEAD) <= now);
                tokens.push((signing, after(now, ACCESS_TOKEN_LIFETIME)));
                tokens.retain(|token| now < token.1);
                for (key, _) in &tokens {
                    prop_assert!(starts.contains(key));
                }
                now = after(now, Duration::from_secs(pause));
            }
        }
    }
}
