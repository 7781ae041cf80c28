//! How much one client address may ask of us.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter, clock::Clock as _};

/// Addresses that are remembered. Beyond, all that are new share one quota until some are forgotten.
const MAX_CLIENTS: usize = 100_000;
/// Requests with a missing or bad token that one address may send: whoever guesses needs many more.
const FAILURES_PER_SECOND: NonZeroU32 = NonZeroU32::new(10).unwrap();
const FAILURES_AT_ONCE: NonZeroU32 = NonZeroU32::new(100).unwrap();

/// A rate per client address.
pub(crate) struct PerClient {
    limiter: DefaultKeyedRateLimiter<IpAddr>,
    full: AtomicBool,
}

impl PerClient {
    pub(crate) fn new(per_second: NonZeroU32, at_once: NonZeroU32) -> Self {
        let quota = Quota::per_second(per_second).allow_burst(at_once);
        Self { limiter: RateLimiter::keyed(quota), full: AtomicBool::new(false) }
    }

    /// For requests that were refused with 401.
    pub(crate) fn for_failures() -> Self {
        Self::new(FAILURES_PER_SECOND, FAILURES_AT_ONCE)
    }

    /// Counts one; the error says how long to wait.
    pub(crate) fn check(&self, client: IpAddr) -> Result<(), Duration> {
        let key = if self.full.load(Relaxed) { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { key(client) };
        let refused = |until: governor::NotUntil<_>| until.wait_time_from(self.limiter.clock().now());
        self.limiter.check_key(&key).map_err(refused)
    }

    /// Forgets those who have kept quiet. To be called about every second.
    pub(crate) fn forget(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
        self.full.store(self.limiter.len() >= MAX_CLIENTS, Relaxed);
    }
}

/// Of an IPv6 address the /64, which is what one client has; an IPv4 address in IPv6 clothes is the IPv4 address.
fn key(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_own_quota() {
        let per_client = PerClient::new(NonZeroU32::MIN, NonZeroU32::new(3).unwrap());
        let (one, other): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        for _ in 0..3 {
            per_client.check(one).unwrap();
        }
        assert!(per_client.check(one).unwrap_err() > Duration::ZERO);
        per_client.check(other).unwrap();
    }

    #[test]
    fn a_client_is_its_network() {
        for (one, other, same) in [
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("::ffff:192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
        ] {
            let equal = key(one.parse().unwrap()) == key(other.parse().unwrap());
            assert_eq!(equal, same, "{one} {other}");
        }
    }

    #[test]
    fn when_there_are_too_many_new_ones_share() {
        let per_client = PerClient::new(NonZeroU32::MIN, NonZeroU32::MIN);
        per_client.full.store(true, Relaxed);
        per_client.check("192.0.2.1".parse().unwrap()).unwrap();
        per_client.check("192.0.2.2".parse().unwrap()).unwrap_err();
        per_client.forget();
        per_client.check("192.0.2.2".parse().unwrap()).unwrap();
    }
}
