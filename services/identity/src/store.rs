//! Every SQL statement of the service, typed in and out, without rules. Each function is one statement; what belongs
//! together in a transaction is put together by those who call.

use std::collections::BTreeSet;

use database::{Error, Row, Statements, Transaction};
use jiff::Timestamp;
use uuid::Uuid;

use crate::domain::attempts::Attempts;
use crate::domain::client::Client;
use crate::domain::pkce::Challenge;
use crate::domain::{Grant, Session, User};
use crate::secrets::TokenHash;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// The schema's history, and the table that records what of it has been applied.
#[must_use]
pub fn schema() -> (database::refinery::Runner, &'static str) {
    (embedded::migrations::runner(), "identity_migrations")
}

/// The unique index that keeps two users from having one name.
pub const UNIQUE_NAME: &str = "users_name";

/// The advisory lock of whoever turns the ring of signing keys; "keys" in ASCII.
const KEYS_LOCK: i64 = 0x6b65_7973;

fn set(row: &Row, column: &str) -> BTreeSet<String> {
    row.get::<_, Vec<String>>(column).into_iter().collect()
}

fn list(set: &BTreeSet<String>) -> Vec<&str> {
    set.iter().map(String::as_str).collect()
}

fn user(row: &Row) -> User {
    User { id: row.get("id"), name: row.get("name"), password_hash: row.get("password_hash"), roles: set(row, "roles") }
}

/// A user by name, whatever its case.
pub async fn find_user_by_name(db: &impl Statements, name: &str) -> Result<Option<User>, Error> {
    let row = db.optional("SELECT * FROM users WHERE lower(name) = lower($1)", &[&name]).await?;
    Ok(row.as_ref().map(user))
}

/// A user.
pub async fn find_user(db: &impl Statements, id: Uuid) -> Result<Option<User>, Error> {
    let row = db.optional("SELECT * FROM users WHERE id = $1", &[&id]).await?;
    Ok(row.as_ref().map(user))
}

/// Makes a user, or brings the one with this id to this state. Fails with a conflict over [`UNIQUE_NAME`] when another one
/// has the name.
pub async fn put_user(tx: &Transaction<'_>, user: &User, now: Timestamp) -> Result<(), Error> {
    let sql = "INSERT INTO users (id, name, password_hash, roles, updated_at) VALUES ($1, $2, $3, $4, $5)
               ON CONFLICT (id) DO UPDATE SET name = $2, password_hash = $3, roles = $4, updated_at = $5";
    tx.run(sql, &[&user.id, &user.name, &user.password_hash, &list(&user.roles), &now]).await?;
    Ok(())
}

/// A client.
pub async fn find_client(db: &impl Statements, id: &str) -> Result<Option<Client>, Error> {
    let row = db.optional("SELECT * FROM clients WHERE id = $1", &[&id]).await?;
    Ok(row.map(|row| Client {
        id: row.get("id"),
        secret_hash: row.get("secret_hash"),
        redirect_uris: row.get("redirect_uris"),
        // A name this version does not know is a grant it cannot give.
        grants: set(&row, "grants").iter().filter_map(|name| name.parse().ok()).collect(),
        scopes: set(&row, "scopes"),
        roles: set(&row, "roles"),
    }))
}

/// Makes a client, or brings the one with this id to this state.
pub async fn put_client(tx: &Transaction<'_>, client: &Client, now: Timestamp) -> Result<(), Error> {
    let sql = "INSERT INTO clients (id, secret_hash, redirect_uris, grants, scopes, roles, updated_at)
               VALUES ($1, $2, $3, $4, $5, $6, $7)
               ON CONFLICT (id) DO UPDATE SET secret_hash = $2, redirect_uris = $3, grants = $4, scopes = $5, roles = $6, updated_at = $7";
    let grants: Vec<&str> = client.grants.iter().map(|grant| grant.name()).collect();
    let (scopes, roles) = (list(&client.scopes), list(&client.roles));
    tx.run(sql, &[&client.id, &client.secret_hash, &client.redirect_uris, &grants, &scopes, &roles, &now]).await?;
    Ok(())
}

/// Keeps a session.
pub async fn insert_session(db: &impl Statements, hash: &TokenHash, session: &Session) -> Result<(), Error> {
    let sql = "INSERT INTO sessions (hash, user_id, authenticated_at, expires_at) VALUES ($1, $2, $3, $4)";
    db.run(sql, &[&hash.as_slice(), &session.user_id, &session.authenticated_at, &session.expires_at]).await?;
    Ok(())
}

/// A session and its user.
pub async fn find_session(db: &impl Statements, hash: &TokenHash) -> Result<Option<(Session, User)>, Error> {
    let sql =
        "SELECT users.*, authenticated_at, expires_at FROM sessions JOIN users ON users.id = user_id WHERE hash = $1";
    let row = db.optional(sql, &[&hash.as_slice()]).await?;
    Ok(row.map(|row| {
        let session = Session {
            user_id: row.get("id"),
            authenticated_at: row.get("authenticated_at"),
            expires_at: row.get("expires_at"),
        };
        (session, user(&row))
    }))
}

/// Ends a session.
pub async fn delete_session(db: &impl Statements, hash: &TokenHash) -> Result<(), Error> {
    db.run("DELETE FROM sessions WHERE hash = $1", &[&hash.as_slice()]).await?;
    Ok(())
}

/// Ends all sessions of a user.
pub async fn delete_sessions_of(tx: &Transaction<'_>, user: Uuid) -> Result<(), Error> {
    tx.run("DELETE FROM sessions WHERE user_id = $1", &[&user]).await?;
    Ok(())
}

fn grant(row: &Row) -> Grant {
    Grant {
        id: row.get("id"),
        client_id: row.get("client_id"),
        user_id: row.get("user_id"),
        scopes: set(row, "scopes"),
        authenticated_at: row.get("authenticated_at"),
        expires_at: row.get("expires_at"),
        revoked_at: row.get("revoked_at"),
    }
}

/// Keeps a grant.
pub async fn insert_grant(tx: &Transaction<'_>, grant: &Grant) -> Result<(), Error> {
    let sql = "INSERT INTO grants (id, client_id, user_id, scopes, authenticated_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)";
    let scopes = list(&grant.scopes);
    tx.run(sql, &[&grant.id, &grant.client_id, &grant.user_id, &scopes, &grant.authenticated_at, &grant.expires_at])
        .await?;
    Ok(())
}

/// A grant.
pub async fn find_grant(db: &impl Statements, id: Uuid) -> Result<Option<Grant>, Error> {
    let row = db.optional("SELECT * FROM grants WHERE id = $1", &[&id]).await?;
    Ok(row.as_ref().map(grant))
}

/// Takes a grant back, and with it all that came of it.
pub async fn revoke_grant(db: &impl Statements, id: Uuid, now: Timestamp) -> Result<(), Error> {
    db.run("UPDATE grants SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL", &[&id, &now]).await?;
    Ok(())
}

/// Takes back everything a user let any client do.
pub async fn revoke_grants_of(tx: &Transaction<'_>, user: Uuid, now: Timestamp) -> Result<(), Error> {
    tx.run("UPDATE grants SET revoked_at = $2 WHERE user_id = $1 AND revoked_at IS NULL", &[&user, &now]).await?;
    Ok(())
}

/// A code as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    /// Where the code was sent.
    pub redirect_uri: String,
    /// What its exchange must prove.
    pub challenge: Challenge,
    /// For the ID token.
    pub nonce: Option<String>,
    /// After this it is worth nothing.
    pub expires_at: Timestamp,
    /// When it was exchanged, or an exchange was tried.
    pub used_at: Option<Timestamp>,
}

/// Keeps a code of a grant.
pub async fn insert_code(tx: &Transaction<'_>, hash: &TokenHash, grant: Uuid, code: &Code) -> Result<(), Error> {
    let sql = "INSERT INTO codes (hash, grant_id, redirect_uri, code_challenge, nonce, expires_at) VALUES ($1, $2, $3, $4, $5, $6)";
    let challenge = code.challenge.as_bytes();
    tx.run(sql, &[&hash.as_slice(), &grant, &code.redirect_uri, &challenge, &code.nonce, &code.expires_at]).await?;
    Ok(())
}

/// A code and its grant; nobody else uses either until the transaction ends.
pub async fn lock_code(tx: &Transaction<'_>, hash: &TokenHash) -> Result<Option<(Code, Grant)>, Error> {
    let sql = "SELECT grants.*, redirect_uri, code_challenge, nonce, codes.expires_at AS code_expires_at, used_at
               FROM codes JOIN grants ON grants.id = grant_id WHERE hash = $1 FOR UPDATE";
    let row = tx.optional(sql, &[&hash.as_slice()]).await?;
    Ok(row.and_then(|row| {
        let code = Code {
            redirect_uri: row.get("redirect_uri"),
            challenge: Challenge::from_bytes(row.get("code_challenge"))?,
            nonce: row.get("nonce"),
            expires_at: row.get("code_expires_at"),
            used_at: row.get("used_at"),
        };
        Some((code, grant(&row)))
    }))
}

/// Marks a code as used.
pub async fn use_code(tx: &Transaction<'_>, hash: &TokenHash, now: Timestamp) -> Result<(), Error> {
    tx.run("UPDATE codes SET used_at = $2 WHERE hash = $1", &[&hash.as_slice(), &now]).await?;
    Ok(())
}

/// A refresh token as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshToken {
    /// After this it is worth nothing.
    pub expires_at: Timestamp,
    /// When another took its place.
    pub used_at: Option<Timestamp>,
}

/// Keeps a refresh token of a grant.
pub async fn insert_refresh_token(
    tx: &Transaction<'_>,
    hash: &TokenHash,
    grant: Uuid,
    expires_at: Timestamp,
) -> Result<(), Error> {
    let sql = "INSERT INTO refresh_tokens (hash, grant_id, expires_at) VALUES ($1, $2, $3)";
    tx.run(sql, &[&hash.as_slice(), &grant, &expires_at]).await?;
    Ok(())
}

/// A refresh token and its grant; nobody else uses either until the transaction ends.
pub async fn lock_refresh_token(
    tx: &Transaction<'_>,
    hash: &TokenHash,
) -> Result<Option<(RefreshToken, Grant)>, Error> {
    let sql = "SELECT grants.*, refresh_tokens.expires_at AS token_expires_at, used_at
               FROM refresh_tokens JOIN grants ON grants.id = grant_id WHERE hash = $1 FOR UPDATE";
    let row = tx.optional(sql, &[&hash.as_slice()]).await?;
    Ok(row.map(|row| {
        let token = RefreshToken { expires_at: row.get("token_expires_at"), used_at: row.get("used_at") };
        (token, grant(&row))
    }))
}

/// Marks a refresh token as used.
pub async fn use_refresh_token(tx: &Transaction<'_>, hash: &TokenHash, now: Timestamp) -> Result<(), Error> {
    tx.run("UPDATE refresh_tokens SET used_at = $2 WHERE hash = $1", &[&hash.as_slice(), &now]).await?;
    Ok(())
}

/// Makes sure that there is a row to lock for attempts on `account` from `source`.
pub async fn touch_attempts(tx: &Transaction<'_>, account: &[u8], source: &str, now: Timestamp) -> Result<(), Error> {
    let sql = "INSERT INTO attempts (account, source, failures, blocked_until, last_at) VALUES ($1, $2, 0, $3, $3)
               ON CONFLICT (account, source) DO NOTHING";
    tx.run(sql, &[&account, &source, &now]).await?;
    Ok(())
}

/// The failures of late; nobody else counts until the transaction ends.
pub async fn lock_attempts(tx: &Transaction<'_>, account: &[u8], source: &str) -> Result<Option<Attempts>, Error> {
    let sql = "SELECT failures, blocked_until, last_at FROM attempts WHERE account = $1 AND source = $2 FOR UPDATE";
    let row = tx.optional(sql, &[&account, &source]).await?;
    Ok(row.map(|row| Attempts {
        failures: u32::try_from(row.get::<_, i32>("failures")).unwrap_or_default(),
        blocked_until: row.get("blocked_until"),
        last_at: row.get("last_at"),
    }))
}

/// Keeps what was counted.
pub async fn put_attempts(
    tx: &Transaction<'_>,
    account: &[u8],
    source: &str,
    attempts: &Attempts,
) -> Result<(), Error> {
    let sql = "UPDATE attempts SET failures = $3, blocked_until = $4, last_at = $5 WHERE account = $1 AND source = $2";
    let failures = i32::try_from(attempts.failures).unwrap_or(i32::MAX);
    tx.run(sql, &[&account, &source, &failures, &attempts.blocked_until, &attempts.last_at]).await?;
    Ok(())
}

/// Strikes out all failures on `account` from `source`.
pub async fn forget_attempts(tx: &Transaction<'_>, account: &[u8], source: &str) -> Result<(), Error> {
    tx.run("DELETE FROM attempts WHERE account = $1 AND source = $2", &[&account, &source]).await?;
    Ok(())
}

/// Strikes out one failure on `account` from `source`, and the wait it brought.
pub async fn strike_attempt(tx: &Transaction<'_>, account: &[u8], source: &str, now: Timestamp) -> Result<(), Error> {
    let sql = "UPDATE attempts SET failures = greatest(failures - 1, 0), blocked_until = least(blocked_until, $3)
               WHERE account = $1 AND source = $2";
    tx.run(sql, &[&account, &source, &now]).await?;
    Ok(())
}

/// A signing key as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// Its name.
    pub kid: String,
    /// The private key, encrypted.
    pub sealed: Vec<u8>,
    /// Since when verifiers may know it.
    pub published_at: Timestamp,
    /// Since when it signs.
    pub signs_from: Timestamp,
}

/// Only one transaction turns the ring at a time; the others wait here.
pub async fn lock_keys(tx: &Transaction<'_>) -> Result<(), Error> {
    tx.run("SELECT pg_advisory_xact_lock($1)", &[&KEYS_LOCK]).await?;
    Ok(())
}

/// All signing keys, the oldest first.
pub async fn signing_keys(db: &impl Statements) -> Result<Vec<StoredKey>, Error> {
    let rows = db.all("SELECT * FROM signing_keys ORDER BY signs_from", &[]).await?;
    let key = |row: &Row| StoredKey {
        kid: row.get("kid"),
        sealed: row.get("sealed"),
        published_at: row.get("published_at"),
        signs_from: row.get("signs_from"),
    };
    Ok(rows.iter().map(key).collect())
}

/// Keeps a signing key.
pub async fn insert_signing_key(tx: &Transaction<'_>, key: &StoredKey) -> Result<(), Error> {
    let sql = "INSERT INTO signing_keys (kid, sealed, published_at, signs_from) VALUES ($1, $2, $3, $4)";
    tx.run(sql, &[&key.kid, &key.sealed, &key.published_at, &key.signs_from]).await?;
    Ok(())
}

/// Throws a signing key away.
pub async fn delete_signing_key(tx: &Transaction<'_>, kid: &str) -> Result<(), Error> {
    tx.run("DELETE FROM signing_keys WHERE kid = $1", &[&kid]).await?;
    Ok(())
}

/// Throws sessions away that have expired.
pub async fn purge_sessions(db: &impl Statements, now: Timestamp) -> Result<u64, Error> {
    db.run("DELETE FROM sessions WHERE expires_at <= $1", &[&now]).await
}

/// Throws grants away that have expired, with their codes and refresh tokens. Until then those are kept, used or not: a
/// second use must be seen.
pub async fn purge_grants(db: &impl Statements, now: Timestamp) -> Result<u64, Error> {
    db.run("DELETE FROM grants WHERE expires_at <= $1", &[&now]).await
}

/// Throws counts away that nobody added to since `before`.
pub async fn purge_attempts(db: &impl Statements, before: Timestamp) -> Result<u64, Error> {
    db.run("DELETE FROM attempts WHERE last_at <= $1 AND blocked_until <= $1", &[&before]).await
}
