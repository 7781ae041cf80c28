//! Subscriptions and deliveries: what they are, and the rules that need neither database nor network.

use std::{net::IpAddr, time::Duration};

use auth::{Kind, Principal};
use jiff::Timestamp;
use postgres_types::{FromSql, ToSql};
use serde::{Deserialize, Serialize};
use url::{Host, Url};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::reach::{Blocked, Reach};

/// Most bytes of a URL.
pub const MAX_URL: usize = 2048;
/// Most patterns of event types in a subscription.
pub const MAX_EVENT_TYPES: usize = 32;
/// Most subscriptions of one owner.
pub const MAX_SUBSCRIPTIONS: i64 = 20;

/// Whether a subscriber is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, FromSql, ToSql, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[postgres(name = "subscription_state", rename_all = "kebab-case")]
pub enum State {
    /// Events are delivered.
    Active,
    /// Its owner wants to be told nothing for a while; what happens meanwhile is not told later.
    Paused,
    /// The service gave up, because nothing could be delivered for long. Its owner may make it active again.
    Disabled,
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, FromSql, ToSql, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[postgres(name = "delivery_state", rename_all = "kebab-case")]
pub enum DeliveryState {
    /// It is to be tried, for the first time or again.
    Pending,
    /// The subscriber answered that they have it.
    Delivered,
    /// It was tried as often as it is ever tried.
    Failed,
}

/// Where a subscriber wants to be told: an absolute URL without user, password and fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(Url);

impl Endpoint {
    /// Reads what a subscriber gave.
    ///
    /// # Errors
    /// Says what it must be, as the end of a sentence that begins with it.
    pub fn parse(text: &str, reach: &Reach) -> Result<Self, String> {
        if text.len() > MAX_URL {
            return Err(format!("must not be longer than {MAX_URL} bytes"));
        }
        let url: Url =
            text.parse().map_err(|error| format!("must be a URL like https://shop.example/hooks: {error}"))?;
        let encrypted = match url.scheme() {
            "https" => true,
            "http" if reach.may_be_in_the_clear() => false,
            _ => return Err(Blocked::InTheClear.to_string()),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not have a user or a password: verify the signature instead".to_owned());
        }
        if url.fragment().is_some() {
            return Err("must not have a fragment".to_owned());
        }
        let literal = match url.host() {
            None => return Err("must have a host".to_owned()),
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(Host::Domain(_)) => None,
        };
        // Of a name it is known only when it is connected to.
        if let Some(address) = literal {
            reach.check(address, encrypted).map_err(|blocked| blocked.to_string())?;
        }
        Ok(Self(url))
    }

    /// One that was parsed before.
    #[must_use]
    pub fn stored(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }

    /// The URL.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// Scheme, host and port: `https://shop.example:443`.
    #[must_use]
    pub fn target(&self) -> String {
        let host = self.0.host_str().unwrap_or_default();
        format!("{}://{host}:{}", self.0.scheme(), self.0.port_or_known_default().unwrap_or_default())
    }
}

/// Whether a text names a type of events, or several with the wildcards of NATS: `documents.order.placed`, `documents.order.*`,
/// `documents.>`, `>`.
#[must_use]
pub fn is_event_type(pattern: &str) -> bool {
    let word = |part: &str| {
        part == "*" || (!part.is_empty() && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')))
    };
    let parts: Vec<&str> = pattern.split('.').collect();
    match parts.as_slice() {
        [before @ .., ">"] => before.len() <= 2 && before.iter().copied().all(word),
        parts => parts.len() == 3 && parts.iter().copied().all(word),
    }
}

/// Somebody's wish to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Never changes.
    pub id: Uuid,
    /// Whose it is, and what their token said when it was last written.
    pub owner: Owner,
    /// Whether it may be about others' things than the owner's.
    pub everybodys: bool,
    /// Where to.
    pub url: String,
    /// Of what.
    pub event_types: Vec<String>,
    /// Whether.
    pub state: State,
    /// Since when nothing could be delivered.
    pub failing_since: Option<Timestamp>,
    /// Why the service gave up.
    pub disabled_for: Option<String>,
    /// Grows by one with every change.
    pub version: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A subscriber, as far as it decides what they may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The subject of their token.
    pub subject: String,
    /// Their roles.
    pub roles: Vec<String>,
    /// The scopes of their token.
    pub scopes: Vec<String>,
}

impl From<&Principal> for Owner {
    fn from(principal: &Principal) -> Self {
        Self {
            subject: principal.subject.clone(),
            roles: principal.roles.iter().cloned().collect(),
            scopes: principal.scopes.iter().cloned().collect(),
        }
    }
}

impl From<&Owner> for Principal {
    fn from(owner: &Owner) -> Self {
        Self {
            roles: owner.roles.iter().cloned().collect(),
            scopes: owner.scopes.iter().cloned().collect(),
            ..Self::new(Kind::User, &*owner.subject)
        }
    }
}

/// When what failed is tried again, and when the service gives up.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The delay after the first attempt; each later one is four times as long.
    pub first_delay: Duration,
    /// The longest delay.
    pub longest_delay: Duration,
    /// How often one delivery is attempted.
    pub attempts: u32,
    /// A subscription of which nothing was delivered for so long is disabled, …
    pub failing: Duration,
    /// …if at least so many attempts failed meanwhile.
    pub failures: i32,
}

impl Default for Patience {
    /// Twelve attempts over some three days: 5 s, 20 s, 80 s, 5 min, 21 min, 85 min, 6 h, then every 12 h.
    fn default() -> Self {
        Self {
            first_delay: Duration::from_secs(5),
            longest_delay: Duration::from_secs(12 * 3600),
            attempts: 12,
            failing: Duration::from_secs(3 * 24 * 3600),
            failures: 10,
        }
    }
}

impl Patience {
    /// How long to wait after so many attempts, give or take a fifth: those that failed together do not come back together.
    /// `random` lies between 0 and 1. `wish` is what the subscriber asked for, granted up to an hour.
    #[must_use]
    pub fn delay(&self, attempts: u32, wish: Option<Duration>, random: f64) -> Duration {
        let growth = 4_u32.saturating_pow(attempts.saturating_sub(1));
        let delay = self.first_delay.saturating_mul(growth).min(self.longest_delay);
        let wish = wish.unwrap_or_default().min(Duration::from_secs(3600));
        delay.mul_f64(0.8 + 0.4 * random.clamp(0.0, 1.0)).max(wish)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_url_is_taken_or_refused_with_the_reason() {
        let (nowhere, inside) = (Reach::default(), "127.0.0.0/8".parse::<Reach>().unwrap());
        for (url, reach, refused) in [
            ("https://shop.example/hooks?a=b", &nowhere, None),
            ("https://8.8.8.8:8443/", &nowhere, None),
            ("https://[2606:4700::1111]/", &nowhere, None),
            ("HTTPS://Shop.Example", &nowhere, None),
            ("http://127.0.0.1:8080/", &inside, None),
            ("http://shop.example/", &inside, None),
            ("http://shop.example/", &nowhere, Some("https://")),
            ("http://8.8.8.8/", &inside, Some("https://")),
            ("ftp://shop.example/", &inside, Some("https://")),
            ("file:///etc/passwd", &nowhere, Some("https://")),
            ("shop.example/hooks", &nowhere, Some("must be a URL")),
            ("https://", &nowhere, Some("must be a URL")),
            ("", &nowhere, Some("must be a URL")),
            ("https://user@shop.example/", &nowhere, Some("user")),
            ("https://:password@shop.example/", &nowhere, Some("password")),
            ("https://shop.example/#x", &nowhere, Some("fragment")),
            ("https://127.0.0.1/", &nowhere, Some("public")),
            ("https://0x7f.1/", &nowhere, Some("public")),
            ("https://2130706433/", &nowhere, Some("public")),
            ("https://017700000001/", &nowhere, Some("public")),
            ("https://127.1/", &nowhere, Some("public")),
            ("https://①②⑦.0.0.1/", &nowhere, Some("public")),
            ("https://[::1]/", &nowhere, Some("public")),
            ("https://[::ffff:169.254.169.254]/", &nowhere, Some("public")),
            ("https://[64:ff9b::a9fe:a9fe]/", &nowhere, Some("public")),
        ] {
            let parsed = Endpoint::parse(url, reach);
            match refused {
                None => assert!(parsed.is_ok(), "{url}: {parsed:?}"),
                Some(reason) => {
                    assert!(parsed.as_ref().is_err_and(|error| error.contains(reason)), "{url}: {parsed:?}")
                }
            }
        }
        let long = format!("https://shop.example/{}", "a".repeat(MAX_URL));
        assert!(Endpoint::parse(&long, &nowhere).unwrap_err().contains("longer"));
        let endpoint = Endpoint::parse("https://Shop.Example/hooks", &nowhere).unwrap();
        assert_eq!(endpoint.target(), "https://shop.example:443");
    }

    #[test]
    fn event_types_are_subjects_with_wildcards() {
        for pattern in
            ["documents.order.placed", "documents.order.*", "*.*.*", "documents.>", "documents.credit-note.>", ">"]
        {
            assert!(is_event_type(pattern), "{pattern}");
        }
        for pattern in [
            "",
            "documents",
            "documents.order",
            "documents.order.placed.x",
            "Documents.order.*",
            "a.b.",
            "a..b",
            "a.>.b",
            "a.b.c.>",
            "a b.c.d",
            "a.b.\u{0}",
        ] {
            assert!(!is_event_type(pattern), "{pattern:?}");
        }
    }

    #[test]
    fn delays_grow_fourfold_up_to_half_a_day() {
        let seconds = |attempts| Patience::default().delay(attempts, None, 0.5).as_secs();
        let delays: Vec<u64> = (1..=11).map(seconds).collect();
        assert_eq!(delays, [5, 20, 80, 320, 1280, 5120, 20480, 43200, 43200, 43200, 43200]);
        let wish = Some(Duration::from_secs(120));
        assert_eq!(Patience::default().delay(1, wish, 0.0), Duration::from_secs(120));
        assert_eq!(Patience::default().delay(1, Some(Duration::MAX), 0.0), Duration::from_secs(3600));
    }

    proptest! {
        #[test]
        fn no_delay_is_longer_than_the_longest_and_a_fifth(attempts: u32, random in 0.0..=1.0) {
            let patience = Patience::default();
            prop_assert!(patience.delay(attempts, None, random) <= patience.longest_delay.mul_f64(1.2));
        }
    }
}
