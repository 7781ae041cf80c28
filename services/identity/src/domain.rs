//! The rules: what a client may ask for, when a key signs, how long somebody waits after wrong passwords. No I/O.

pub mod attempts;
pub mod authorization;
pub mod client;
pub mod parameters;
pub mod pkce;
pub mod rotation;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

/// How long an access token and an ID token are good for.
pub const ACCESS_TOKEN_LIFETIME: Duration = Duration::from_secs(10 * 60);
/// How long a code may take from the redirect to the token endpoint (RFC 6749 §4.1.2 recommends ten minutes at most).
pub const CODE_LIFETIME: Duration = Duration::from_secs(60);
/// How long a refresh token may lie unused.
pub const REFRESH_TOKEN_LIFETIME: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// How long a user's consent carries a client before the user has to sign in again.
pub const GRANT_LIFETIME: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// How long a browser stays signed in.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(8 * 60 * 60);

/// The scope that asks for an ID token.
pub const OPENID: &str = "openid";
/// The scope that asks for the user's name in ID token and userinfo.
pub const PROFILE: &str = "profile";
/// The scope that asks for a refresh token.
pub const OFFLINE_ACCESS: &str = "offline_access";

/// Somebody who can sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Never changes; the `sub` of tokens.
    pub id: Uuid,
    /// What they sign in with; no two differ in case alone.
    pub name: String,
    /// Argon2id, as a PHC string.
    pub password_hash: String,
    /// What services decide by.
    pub roles: BTreeSet<String>,
}

/// A browser in which somebody has signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Who.
    pub user_id: Uuid,
    /// When they gave their password.
    pub authenticated_at: Timestamp,
    /// When they must give it again.
    pub expires_at: Timestamp,
}

/// What a user let a client do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Names the family of tokens that comes of it.
    pub id: Uuid,
    /// The client.
    pub client_id: String,
    /// The user.
    pub user_id: Uuid,
    /// The most that its tokens can.
    pub scopes: BTreeSet<String>,
    /// When the user gave their password.
    pub authenticated_at: Timestamp,
    /// When nothing more comes of it.
    pub expires_at: Timestamp,
    /// When it was taken back.
    pub revoked_at: Option<Timestamp>,
}

impl Grant {
    /// Whether tokens may still come of it.
    #[must_use]
    pub fn is_alive(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && now < self.expires_at
    }
}

/// `time` and a while later, or the end of time.
#[must_use]
pub fn after(time: Timestamp, duration: Duration) -> Timestamp {
    time.saturating_add(duration).unwrap_or(Timestamp::MAX)
}

/// How long it was from `earlier` to `later`; nothing if they are the other way round.
#[must_use]
pub fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or_default()
}
