//! What becomes of a grant: a code, tokens for the code, more tokens for a refresh token, and its end. Each step is one
//! transaction; what is shown a second time ends the whole family (RFC 9700 §4.5, §4.14).

use std::collections::BTreeSet;

use database::{Database, ScopedFutureExt, Transaction};
use jiff::Timestamp;
use runtime::clock::Clock;
use uuid::Uuid;

use crate::domain::authorization::{self, AuthorizationRequest};
use crate::domain::client::{Client, GrantType};
use crate::domain::parameters::words;
use crate::domain::{
    ACCESS_TOKEN_LIFETIME, CODE_LIFETIME, GRANT_LIFETIME, Grant, OFFLINE_ACCESS, OPENID, REFRESH_TOKEN_LIFETIME,
    Session, User, after,
};
use crate::policy::{Beneficiary, Policy};
use crate::secrets::{self, CryptoError, Token, TokenHash};
use crate::store::{self, Code};
use crate::tokens::{SignError, Signer};

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// The code or refresh token is not good. The text is for whoever writes the client.
    #[error("{0}")]
    InvalidGrant(&'static str),
    /// More is asked for than there is.
    #[error("{}", authorization::SCOPE)]
    InvalidScope,
    /// The database.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// No key to sign with yet.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// A primitive.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

/// What a client is given.
#[derive(Debug)]
pub struct TokenSet {
    /// For services.
    pub access_token: String,
    /// For more of them.
    pub refresh_token: Option<Token>,
    /// For the client itself.
    pub id_token: Option<String>,
    /// What the access token can.
    pub scopes: BTreeSet<String>,
}

/// Takes the steps.
#[derive(Clone)]
pub struct Grants {
    /// The service's own.
    pub database: Database,
    /// Says who may have what.
    pub policy: Policy,
    /// Signs what is given.
    pub signer: Signer,
    /// Says what has expired.
    pub clock: Clock,
}

/// How a step ended that is kept either way.
enum Outcome<T> {
    Taken(T),
    Refused(&'static str),
}

/// What tokens are made of.
struct Redeemed {
    grant: Grant,
    user: User,
    nonce: Option<String>,
    refresh_token: Option<Token>,
}

const UNKNOWN: &str = "the code or token is unknown, expired, revoked or used";

impl Grants {
    /// A code for what the user behind `session` lets `client` do.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn issue_code(
        &self,
        client: &Client,
        request: &AuthorizationRequest,
        session: &Session,
    ) -> Result<Token, GrantError> {
        let code = Token::generate()?;
        let now = self.clock.now();
        // Without a refresh token the family ends with its only access token.
        let lifetime = if self.wants_refresh(client, &request.scopes) {
            GRANT_LIFETIME
        } else {
            CODE_LIFETIME + ACCESS_TOKEN_LIFETIME
        };
        let grant = Grant {
            id: Uuid::now_v7(),
            client_id: client.id.clone(),
            user_id: session.user_id,
            scopes: request.scopes.clone(),
            authenticated_at: session.authenticated_at,
            expires_at: after(now, lifetime),
            revoked_at: None,
        };
        let stored = Code {
            redirect_uri: request.redirect_uri.clone(),
            challenge: request.challenge,
            nonce: request.nonce.clone(),
            expires_at: after(now, CODE_LIFETIME),
            used_at: None,
        };
        let hash = code.hash();
        self.database.transaction(|tx| keep(tx, &grant, &hash, &stored).scope_boxed()).await?;
        Ok(code)
    }

    /// Tokens for a code (RFC 6749 §4.1.3). The code is spent whatever comes of it; shown again, it ends the family.
    ///
    /// # Errors
    /// When the code is not good, or not `client`'s, or the rest does not fit it.
    pub async fn exchange(
        &self,
        client: &Client,
        code: &str,
        redirect_uri: Option<&str>,
        verifier: &str,
    ) -> Result<TokenSet, GrantError> {
        let hash = secrets::hash(code);
        let redeem =
            self.database.transaction(|tx| self.redeem_code(tx, client, &hash, redirect_uri, verifier).scope_boxed());
        let redeemed = taken(redeem.await?)?;
        let scopes = redeemed.grant.scopes.clone();
        self.token_set(redeemed, scopes)
    }

    /// More tokens for a refresh token (RFC 6749 §6). Another one takes its place; shown again, it ends the family.
    ///
    /// # Errors
    /// When the token is not good, or not `client`'s, or `scope` is more than the grant's.
    pub async fn refresh(&self, client: &Client, token: &str, scope: Option<&str>) -> Result<TokenSet, GrantError> {
        let hash = secrets::hash(token);
        let asked = scope.map(|scope| words(scope).ok_or(GrantError::InvalidScope)).transpose()?;
        let redeem =
            self.database.transaction(|tx| self.redeem_refresh_token(tx, client, &hash, asked.as_ref()).scope_boxed());
        let redeemed = taken(redeem.await?)?;
        let scopes = asked.clone().unwrap_or_else(|| redeemed.grant.scopes.clone());
        self.token_set(redeemed, scopes)
    }

    async fn redeem_code(
        &self,
        tx: &Transaction<'_>,
        client: &Client,
        hash: &TokenHash,
        redirect_uri: Option<&str>,
        verifier: &str,
    ) -> Result<Outcome<Redeemed>, GrantError> {
        let now = self.clock.now();
        let Some((code, grant)) = store::lock_code(tx, hash).await? else {
            return Ok(Outcome::Refused(UNKNOWN));
        };
        if code.used_at.is_some() {
            tracing::warn!(client = client.id, grant = %grant.id, "a code was shown a second time: its tokens are revoked");
            store::revoke_grant(tx, grant.id, now).await?;
            return Ok(Outcome::Refused(UNKNOWN));
        }
        store::use_code(tx, hash, now).await?;
        if now >= code.expires_at || !grant.is_alive(now) {
            return Ok(Outcome::Refused(UNKNOWN));
        }
        if self.policy.redeem(client, &grant).is_err() {
            tracing::warn!(client = client.id, owner = grant.client_id, "a code was shown by another client");
            return Ok(Outcome::Refused(UNKNOWN));
        }
        if redirect_uri != Some(&code.redirect_uri) {
            return Ok(Outcome::Refused("redirect_uri is not the one the code was asked for with"));
        }
        if !code.challenge.is_met_by(verifier) {
            return Ok(Outcome::Refused("code_verifier does not fit the code_challenge"));
        }
        self.redeem(tx, client, grant, code.nonce, now).await
    }

    async fn redeem_refresh_token(
        &self,
        tx: &Transaction<'_>,
        client: &Client,
        hash: &TokenHash,
        asked: Option<&BTreeSet<String>>,
    ) -> Result<Outcome<Redeemed>, GrantError> {
        let now = self.clock.now();
        let Some((token, grant)) = store::lock_refresh_token(tx, hash).await? else {
            return Ok(Outcome::Refused(UNKNOWN));
        };
        if token.used_at.is_some() || self.policy.redeem(client, &grant).is_err() {
            tracing::warn!(
                client = client.id, owner = grant.client_id, grant = %grant.id,
                "a refresh token was shown a second time, or by another client: its family is revoked"
            );
            store::revoke_grant(tx, grant.id, now).await?;
            return Ok(Outcome::Refused(UNKNOWN));
        }
        if now >= token.expires_at || !grant.is_alive(now) {
            return Ok(Outcome::Refused(UNKNOWN));
        }
        // Before anything is spent: a client that asks for too much may ask again. So may one that was registered for more
        // when the user signed in than it is now.
        let scopes = asked.unwrap_or(&grant.scopes);
        if !scopes.is_subset(&grant.scopes) || self.policy.ask_for(client, Beneficiary::User, scopes).is_err() {
            return Err(GrantError::InvalidScope);
        }
        store::use_refresh_token(tx, hash, now).await?;
        self.redeem(tx, client, grant, None, now).await
    }

    async fn redeem(
        &self,
        tx: &Transaction<'_>,
        client: &Client,
        grant: Grant,
        nonce: Option<String>,
        now: Timestamp,
    ) -> Result<Outcome<Redeemed>, GrantError> {
        let Some(user) = store::find_user(tx, grant.user_id).await? else {
            return Ok(Outcome::Refused(UNKNOWN));
        };
        let mut refresh_token = None;
        if self.wants_refresh(client, &grant.scopes) {
            let token = Token::generate()?;
            let expires_at = after(now, REFRESH_TOKEN_LIFETIME).min(grant.expires_at);
            store::insert_refresh_token(tx, &token.hash(), grant.id, expires_at).await?;
            refresh_token = Some(token);
        }
        Ok(Outcome::Taken(Redeemed { grant, user, nonce, refresh_token }))
    }

    fn wants_refresh(&self, client: &Client, scopes: &BTreeSet<String>) -> bool {
        scopes.contains(OFFLINE_ACCESS) && self.policy.use_grant_type(client, GrantType::RefreshToken).is_ok()
    }

    fn token_set(&self, redeemed: Redeemed, scopes: BTreeSet<String>) -> Result<TokenSet, GrantError> {
        let Redeemed { grant, user, nonce, refresh_token } = redeemed;
        let id_token = scopes
            .contains(OPENID)
            .then(|| self.signer.id_token(&grant, &user, &scopes, nonce.as_deref()))
            .transpose()?;
        let access_token = self.signer.access_token(&grant, &user, &scopes)?;
        Ok(TokenSet { access_token, refresh_token, id_token, scopes })
    }

    /// Tokens for a client that acts for itself (RFC 6749 §4.4).
    ///
    /// # Errors
    /// When it may not ask for what it asks for.
    pub fn for_client(&self, client: &Client, scope: Option<&str>) -> Result<TokenSet, GrantError> {
        let scopes = authorization::scopes(scope, client)
            .filter(|scopes| self.policy.ask_for(client, Beneficiary::Client, scopes).is_ok())
            .ok_or(GrantError::InvalidScope)?;
        let access_token = self.signer.client_access_token(client, &scopes)?;
        Ok(TokenSet { access_token, refresh_token: None, id_token: None, scopes })
    }

    /// Ends the family of a refresh token, if it is `client`'s (RFC 7009). Gives whether there was one.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn revoke_by_refresh_token(&self, client: &Client, token: &str) -> Result<bool, GrantError> {
        let hash = secrets::hash(token);
        self.database.transaction(|tx| self.revoke_family(tx, client, &hash).scope_boxed()).await
    }

    async fn revoke_family(&self, tx: &Transaction<'_>, client: &Client, hash: &TokenHash) -> Result<bool, GrantError> {
        let found = store::lock_refresh_token(tx, hash).await?;
        let Some((_, grant)) = found.filter(|(_, grant)| self.policy.revoke(client, grant).is_ok()) else {
            return Ok(false);
        };
        store::revoke_grant(tx, grant.id, self.clock.now()).await?;
        Ok(true)
    }

    /// Ends the family of a grant, if it is `client`'s.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn revoke(&self, client: &Client, grant: Uuid) -> Result<(), GrantError> {
        let db = self.database.get().await?;
        let found = store::find_grant(&*db, grant).await?;
        if found.is_some_and(|grant| self.policy.revoke(client, &grant).is_ok()) {
            store::revoke_grant(&*db, grant, self.clock.now()).await?;
        }
        Ok(())
    }

    /// The user of a grant from which tokens may still come.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn user_of(&self, grant: Uuid) -> Result<Option<User>, GrantError> {
        let db = self.database.get().await?;
        let grant = store::find_grant(&*db, grant).await?;
        match grant.filter(|grant| grant.is_alive(self.clock.now())) {
            Some(grant) => Ok(store::find_user(&*db, grant.user_id).await?),
            None => Ok(None),
        }
    }
}

async fn keep(tx: &Transaction<'_>, grant: &Grant, hash: &TokenHash, code: &Code) -> Result<(), database::Error> {
    store::insert_grant(tx, grant).await?;
    store::insert_code(tx, hash, grant.id, code).await
}

fn taken<T>(outcome: Outcome<T>) -> Result<T, GrantError> {
    match outcome {
        Outcome::Taken(value) => Ok(value),
        Outcome::Refused(why) => Err(GrantError::InvalidGrant(why)),
    }
}
