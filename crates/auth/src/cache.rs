//! Tokens that were verified a moment ago, so that verifying costs a hash and a look-up on the second request.

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use quick_cache::sync::Cache;

/// How many verified tokens are remembered. The least useful are forgotten first.
const CAPACITY: usize = 8 * 1024;

/// What names a token in the cache: its SHA-256, so that the cache holds nothing that could be replayed.
pub(crate) type TokenHash = [u8; 32];

/// The hash a token is remembered under.
pub(crate) fn hash(token: &str) -> TokenHash {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    out
}

#[derive(Clone)]
struct Entry<V> {
    value: V,
    until: Timestamp,
}

/// A bounded map from token to what it proved, each entry gone once its token has expired.
pub(crate) struct Verified<V> {
    entries: Cache<TokenHash, Entry<V>>,
}

impl<V: Clone> Verified<V> {
    pub(crate) fn new() -> Self {
        Self { entries: Cache::new(CAPACITY) }
    }

    pub(crate) fn get(&self, token: &TokenHash, now: Timestamp) -> Option<V> {
        let entry = self.entries.get(token)?;
        if now < entry.until {
            return Some(entry.value);
        }
        self.entries.remove(token);
        None
    }

    pub(crate) fn insert(&self, token: TokenHash, value: V, until: Timestamp) {
        self.entries.insert(token, Entry { value, until });
    }

    /// Forgets everything: a key was taken away, and with it whatever it had signed.
    pub(crate) fn clear(&self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn an_entry_lives_until_its_token_expires() {
        let cache = Verified::new();
        let key = hash("token");
        cache.insert(key, 7, at(100));
        assert_eq!(cache.get(&key, at(99)), Some(7));
        assert_eq!(cache.get(&key, at(100)), None);
        assert_eq!(cache.get(&key, at(99)), None, "an expired entry is dropped, not kept");
    }

    #[test]
    fn it_never_outgrows_its_bound() {
        let cache = Verified::new();
        for n in 0..(3 * CAPACITY) {
            cache.insert(hash(&n.to_string()), n, at(100));
        }
        assert!(cache.entries.len() <= CAPACITY);
    }
}
