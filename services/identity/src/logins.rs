//! Checking passwords and client secrets, with patience for typing errors and none for guessing.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use database::{Database, ScopedFutureExt, Transaction};
use runtime::clock::Clock;

use crate::domain::attempts::{Attempts, PER_ACCOUNT, PER_SOURCE, Patience, Wait};
use crate::domain::client::Client;
use crate::domain::{SESSION_LIFETIME, Session, User, after};
use crate::passwords::{MAX_PASSWORD, PasswordError, Passwords};
use crate::secrets::{self, CryptoError, Token, TokenHash};
use crate::store;

/// Longest name that is looked up, in bytes.
pub const MAX_NAME: usize = 128;

/// Why nobody can say whether a password is right.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// Too many wrong ones.
    #[error(transparent)]
    Wait(#[from] Wait),
    /// Too many at once, or a broken hash.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The database.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// A primitive.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

/// Where an attempt comes from, as far as it can be told: an address, or the network of 64 bits that one IPv6 subscriber
/// has to itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source(String);

impl Source {
    /// The source of a request from this address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
            }
        })
    }

    /// Inside the mesh, past the gateway.
    #[must_use]
    pub fn mesh() -> Self {
        Self("mesh".to_owned())
    }
}

/// Checks passwords.
#[derive(Clone)]
pub struct Logins {
    /// The service's own.
    pub database: Database,
    /// Computes hashes.
    pub passwords: Arc<Passwords>,
    /// For the waits and the life of sessions.
    pub clock: Clock,
}

impl Logins {
    /// The user with this name, if this is their password.
    ///
    /// # Errors
    /// When somebody guesses too fast, or too many try at once, or the database is away.
    pub async fn user(&self, name: &str, password: &str, source: &Source) -> Result<Option<User>, LoginError> {
        if name.len() > MAX_NAME || password.len() > MAX_PASSWORD {
            return Ok(None);
        }
        let user = store::find_user_by_name(&*self.database.get().await?, name).await?;
        let account = secrets::hash(&format!("user\0{}", name.to_lowercase()));
        let stored = user.as_ref().map(|user| user.password_hash.as_str());
        let matches = self.check(&account, password, stored, source).await?;
        Ok(user.filter(|_| matches))
    }

    /// Whether this is the secret of the client with this name, if there is one.
    ///
    /// # Errors
    /// As [`Logins::user`].
    pub async fn client(
        &self,
        id: &str,
        client: Option<&Client>,
        secret: &str,
        source: &Source,
    ) -> Result<bool, LoginError> {
        if id.len() > MAX_NAME || secret.len() > MAX_PASSWORD {
            return Ok(false);
        }
        let account = secrets::hash(&format!("client\0{id}"));
        let stored = client.and_then(|client| client.secret_hash.as_deref());
        self.check(&account, secret, stored, source).await
    }

    async fn check(
        &self,
        account: &TokenHash,
        password: &str,
        stored: Option<&str>,
        source: &Source,
    ) -> Result<bool, LoginError> {
        let turn = self.passwords.turn().await?;
        self.database.transaction(|tx| self.count(tx, account, source).scope_boxed()).await?;
        let matches = self.passwords.verify(turn, password, stored).await?;
        if matches {
            self.database.transaction(|tx| self.strike(tx, account, source).scope_boxed()).await?;
        }
        Ok(matches)
    }

    async fn count(&self, tx: &Transaction<'_>, account: &TokenHash, source: &Source) -> Result<(), LoginError> {
        let now = self.clock.now();
        let counters: [(&[u8], &Patience); 2] = [(account, &PER_ACCOUNT), (ANY_ACCOUNT, &PER_SOURCE)];
        for (account, patience) in counters {
            store::touch_attempts(tx, account, &source.0, now).await?;
            let previous = store::lock_attempts(tx, account, &source.0).await?;
            let next = Attempts::next(previous, patience, now)?;
            store::put_attempts(tx, account, &source.0, &next).await?;
        }
        Ok(())
    }

    async fn strike(&self, tx: &Transaction<'_>, account: &TokenHash, source: &Source) -> Result<(), LoginError> {
        store::forget_attempts(tx, account, &source.0).await?;
        Ok(store::strike_attempt(tx, ANY_ACCOUNT, &source.0, self.clock.now()).await?)
    }

    /// Signs a user in: a session, and what the browser has to show for it.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn open_session(&self, user: &User) -> Result<(Token, Session), LoginError> {
        let token = Token::generate()?;
        let now = self.clock.now();
        let session = Session { user_id: user.id, authenticated_at: now, expires_at: after(now, SESSION_LIFETIME) };
        store::insert_session(&*self.database.get().await?, &token.hash(), &session).await?;
        Ok((token, session))
    }

    /// The session a browser shows a token for, and its user.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn session(&self, token: &str) -> Result<Option<(Session, User)>, LoginError> {
        let found = store::find_session(&*self.database.get().await?, &secrets::hash(token)).await?;
        Ok(found.filter(|(session, _)| self.clock.now() < session.expires_at))
    }

    /// Signs a browser out.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn close_session(&self, token: &str) -> Result<(), LoginError> {
        Ok(store::delete_session(&*self.database.get().await?, &secrets::hash(token)).await?)
    }
}

/// The account under which all attempts from one source are counted together.
const ANY_ACCOUNT: &[u8] = &[];

/// How long counts are kept after the last attempt.
pub const KEPT: Duration = PER_ACCOUNT.forgotten_after;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_subscriber_is_one_source_and_a_mapped_address_is_the_ipv4_one() {
        for (address, expected) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
            ("::1", "0:0:0:0::/64"),
        ] {
            assert_eq!(Source::of(address.parse().unwrap()), Source(expected.to_owned()), "{address}");
        }
    }
}
