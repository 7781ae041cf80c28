//! The ring of signing keys: kept encrypted in the database, turned by whichever instance comes first, read by all.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use auth::access::{FetchError, JwksSource};
use auth::jws::{Jwk, KeyError, SigningKey};
use bytes::Bytes;
use database::{Database, ScopedFutureExt, Transaction};
use jiff::Timestamp;
use runtime::clock::Clock;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::domain::rotation::{self, Scheduled};
use crate::secrets::{CryptoError, MasterKeys, Unopenable};
use crate::store::{self, StoredKey};

/// How often the ring is read again. Far shorter than the time a key is published before it signs.
const PERIOD: Duration = Duration::from_secs(60);
/// The same while it could not be read.
const RETRY: Duration = Duration::from_secs(5);

/// Why the ring could not be turned or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The database.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// A primitive.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// A stored key does not open.
    #[error("a signing key does not open with the credential `key-encryption-key`: {0}")]
    Unopenable(#[from] Unopenable),
    /// A stored key is none.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// The keys this instance knows of.
pub struct Keyring {
    keys: ArcSwap<Vec<RingKey>>,
    master: Arc<MasterKeys>,
    clock: Clock,
}

#[derive(Clone)]
struct RingKey {
    signs_from: Timestamp,
    key: Arc<SigningKey>,
}

impl Scheduled for RingKey {
    fn signs_from(&self) -> Timestamp {
        self.signs_from
    }
}

impl Scheduled for StoredKey {
    fn signs_from(&self) -> Timestamp {
        self.signs_from
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.load().iter().map(|key| key.key.kid())).finish()
    }
}

impl Keyring {
    /// An empty ring; [`Keyring::turn`] fills it.
    #[must_use]
    pub fn new(master: Arc<MasterKeys>, clock: Clock) -> Self {
        Self { keys: ArcSwap::default(), master, clock }
    }

    /// The key that signs now; none before the ring was read for the first time.
    #[must_use]
    pub fn signer(&self) -> Option<Arc<SigningKey>> {
        let keys = self.keys.load();
        rotation::signer(&keys, self.clock.now()).map(|key| key.key.clone())
    }

    /// The public halves of all keys, also of those that do not sign yet or no longer.
    #[must_use]
    pub fn published(&self) -> Vec<Jwk> {
        self.keys.load().iter().map(|key| key.key.jwk().clone()).collect()
    }

    /// Makes the next key if it is time, throws spent ones away, and takes up what other instances did.
    ///
    /// # Errors
    /// When the database is away or a key does not open. The keys that are known stay in use.
    pub async fn turn(&self, database: &Database) -> Result<(), KeyringError> {
        let stored = database.transaction(|tx| self.turn_stored(tx).scope_boxed()).await?;
        let known = self.keys.load();
        let keys = stored.iter().map(|stored| {
            let known = known.iter().find(|known| known.key.kid() == stored.kid);
            let key = match known {
                Some(known) => known.key.clone(),
                None => Arc::new(SigningKey::from_pkcs8(&self.master.sealer().open(&stored.kid, &stored.sealed)?)?),
            };
            Ok(RingKey { signs_from: stored.signs_from, key })
        });
        let keys: Vec<RingKey> = keys.collect::<Result<_, KeyringError>>()?;
        self.keys.store(Arc::new(keys));
        Ok(())
    }

    async fn turn_stored(&self, tx: &Transaction<'_>) -> Result<Vec<StoredKey>, KeyringError> {
        store::lock_keys(tx).await?;
        let now = self.clock.now();
        let mut keys = store::signing_keys(tx).await?;
        if let Some(signs_from) = rotation::due(&keys, now) {
            let (key, pkcs8) = SigningKey::generate()?;
            let sealed = self.master.sealer().seal(key.kid(), &pkcs8)?;
            let key = StoredKey { kid: key.kid().to_owned(), sealed, published_at: now, signs_from };
            store::insert_signing_key(tx, &key).await?;
            tracing::info!(kid = key.kid, %signs_from, "published a new signing key");
            keys.push(key);
        }
        let (spent, kept): (Vec<_>, Vec<_>) =
            keys.clone().into_iter().partition(|key| rotation::is_spent(key, &keys, now));
        for key in spent {
            store::delete_signing_key(tx, &key.kid).await?;
            tracing::info!(kid = key.kid, "threw a spent signing key away");
        }
        Ok(kept)
    }

    /// Turns the ring now and then, until `stop`.
    pub async fn run(&self, database: &Database, stop: CancellationToken) {
        loop {
            let pause = match self.turn(database).await {
                Ok(()) => PERIOD,
                Err(error) => {
                    tracing::warn!(%error, "the signing keys cannot be read; the known ones stay in use");
                    RETRY
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// The service verifies its own tokens with the verifier everybody else uses.
#[derive(Debug)]
pub struct OwnKeys(pub Arc<Keyring>);

impl JwksSource for OwnKeys {
    fn fetch(&self) -> Pin<Box<dyn Future<Output = Result<Bytes, FetchError>> + Send + '_>> {
        let document = json!({ "keys": self.0.published() }).to_string();
        Box::pin(std::future::ready(Ok(document.into())))
    }
}
