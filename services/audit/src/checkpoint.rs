//! Signed heads of the chain.
//!
//! Whoever keeps one can show later that the chain was shortened or written anew: the chain itself cannot, because its hashes need no
//! secret. The service gives one to every auditor who asks, and puts one onto the event bus again and again, which keeps it on
//! another server than the chain.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use auth::{
    TokenError,
    jws::{self, KeySet, SigningKey},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use database::{Database, ScopedFutureExt as _};
use jiff::Timestamp;
use outbox::{Events, NewEvent, Outbox};
use runtime::credentials::Credentials;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tls::SpiffeId;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    domain::{Hash, Head},
    messages::CHECKPOINT,
    store,
};

/// The credential with the key: 32 random bytes in base64url.
const CREDENTIAL: &str = "checkpoint-key";
/// The `typ` of a signed head.
const TYPE: &str = "berth-audit-checkpoint+jwt";
/// All checkpoints are events of one aggregate.
const AGGREGATE: Uuid = Uuid::from_u128(0x4f3a_7d52_90be_8c11_b6a4_7e0d_93c2_a8f6);

/// When a checkpoint is put onto the event bus.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// After so many entries…
const ENTRIES: i64 = 1000;
/// …or this long after the last one, if there are new entries…
const SECONDS: f64 = 60.0;
/// …or this long after the last one in any case, so that the bus has not forgotten it.
const LONGEST_SECONDS: f64 = 86_400.0;

/// What a checkpoint says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Checkpoint {
    /// The number of the last entry.
    pub seq: i64,
    /// Its hash, in hexadecimal.
    pub hash: String,
    /// The same, signed: a compact JWS (RFC 7515) of the type `berth-audit-checkpoint+jwt`, EdDSA.
    pub signed: String,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    iat: i64,
    seq: i64,
    hash: String,
}

/// Signs heads, and knows its own signature.
pub struct Signer {
    own: SpiffeId,
    key: SigningKey,
    keys: KeySet,
}

impl Signer {
    /// With the key from the credential `checkpoint-key`.
    ///
    /// # Errors
    /// When the credential is missing or is no key.
    pub fn load(credentials: &Credentials, own: &SpiffeId) -> anyhow::Result<Self> {
        let secret = credentials.read(CREDENTIAL)?;
        let seed = URL_SAFE_NO_PAD.decode(secret.text()?).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let seed = seed.with_context(|| format!("the credential `{CREDENTIAL}` must be 32 bytes in base64url"))?;
        Self::new(own, &seed)
    }

    /// With this key.
    ///
    /// # Errors
    /// When it is none.
    pub fn new(own: &SpiffeId, seed: &[u8; 32]) -> anyhow::Result<Self> {
        let key = SigningKey::from_seed(seed)?;
        let keys = KeySet::from_value(json!({ "keys": [key.jwk()] }))?;
        Ok(Self { own: own.clone(), key, keys })
    }

    /// The public key, as a JWK (RFC 7517).
    #[must_use]
    pub fn public_key(&self) -> Value {
        json!(self.key.jwk())
    }

    /// Signs a head.
    ///
    /// # Errors
    /// Never for a head.
    pub fn sign(&self, head: Head, now: Timestamp) -> Result<Checkpoint, serde_json::Error> {
        let (seq, hash) = (head.seq, head.hash.to_string());
        let claims = Claims { iss: self.own.to_string(), iat: now.as_second(), seq, hash: hash.clone() };
        Ok(Checkpoint { seq, hash, signed: self.key.sign(TYPE, &claims)? })
    }

    /// The head that was signed here.
    ///
    /// # Errors
    /// When it was not.
    pub fn verify(&self, signed: &str) -> Result<Head, TokenError> {
        let claims: Claims = jws::verify(signed, TYPE, &self.keys)
            .and_then(|claims| serde_json::from_value(claims.into()).map_err(|_| TokenError::InvalidClaim("seq")))?;
        let hash = Hash::from_hex(&claims.hash).ok_or(TokenError::InvalidClaim("hash"))?;
        if claims.iss != self.own.as_str() {
            return Err(TokenError::UnknownIssuer);
        }
        Ok(Head { seq: claims.seq, hash })
    }

    /// The head that the event bus remembers; none when it has not seen any.
    ///
    /// # Errors
    /// Why the bus cannot be asked, or that what it has was not signed here.
    pub async fn remembered_by(&self, events: &Events) -> Result<Option<Head>, String> {
        let Some(event) = events.last(CHECKPOINT).await? else { return Ok(None) };
        let checkpoint: Checkpoint = serde_json::from_value(event.data).map_err(|error| error.to_string())?;
        self.verify(&checkpoint.signed).map(Some).map_err(|error| error.to_string())
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("kid", &self.key.kid()).finish_non_exhaustive()
    }
}

/// Tells the event bus of the chain's head now and then, until `stop`, and then once more.
pub async fn run(database: Database, outbox: Outbox, signer: Arc<Signer>, stop: CancellationToken) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if let Err(error) = tell_if_due(&database, &outbox, &signer).await {
            tracing::warn!(%error, "cannot sign a checkpoint now");
        }
    }
    if let Err(error) = tell(&database, &outbox, &signer).await {
        tracing::warn!(%error, "cannot sign the last checkpoint");
    }
}

async fn tell_if_due(database: &Database, outbox: &Outbox, signer: &Signer) -> anyhow::Result<()> {
    let client = database.get().await?;
    let ((head, _), (last, age)) = (store::end(&*client).await?, store::last_checkpoint(&*client).await?);
    drop(client);
    let new = head.seq - last;
    if new >= ENTRIES || (new > 0 && age >= SECONDS) || (head.seq > 0 && age >= LONGEST_SECONDS) {
        tell(database, outbox, signer).await?;
    }
    Ok(())
}

/// Puts the signed head into the outbox, unless that was done for the same head within a day.
///
/// # Errors
/// That of the database.
pub async fn tell(database: &Database, outbox: &Outbox, signer: &Signer) -> anyhow::Result<()> {
    let (head, _) = store::end(&*database.get().await?).await?;
    let checkpoint = &signer.sign(head, Timestamp::now())?;
    if head.seq == 0 {
        return Ok(());
    }
    let told: Result<bool, outbox::Error> = database
        .transaction(|tx| {
            async move {
                if !store::keep_checkpoint(tx, head.seq, LONGEST_SECONDS / 2.0).await? {
                    return Ok(false);
                }
                let event = NewEvent {
                    subject: CHECKPOINT,
                    aggregate_id: AGGREGATE,
                    saga: None,
                    initiator: None,
                    trace: None,
                    data: checkpoint,
                };
                Outbox::put(tx, event).await?;
                Ok(true)
            }
            .scope_boxed()
        })
        .await;
    if told? {
        tracing::info!(seq = head.seq, hash = %head.hash, signed = checkpoint.signed, "signed a checkpoint");
        outbox.wake();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(seed: u8) -> Signer {
        Signer::new(&"spiffe://test.internal/audit".parse().unwrap(), &[seed; 32]).unwrap()
    }

    #[test]
    fn a_signed_head_is_known_again_and_no_other() {
        let head = Head { seq: 7, hash: Hash([9; 32]) };
        let signed = signer(1).sign(head, Timestamp::UNIX_EPOCH).unwrap().signed;
        assert_eq!(signer(1).verify(&signed), Ok(head));
        assert!(signer(2).verify(&signed).is_err(), "another key");
        let other = signer(1).key.sign("JWT", &json!({ "seq": 7 })).unwrap();
        assert_eq!(signer(1).verify(&other), Err(TokenError::WrongType));
        for broken in ["", "a.b.c", &signed[1..], &signed[..signed.len() - 4]] {
            assert!(signer(1).verify(broken).is_err(), "{broken}");
        }
    }
}
