//! Passwords: hashed with argon2id at the OWASP parameters, on a pool that cannot eat the machine.
//!
//! Each computation takes 19 MiB, which it gives back, and some tens of milliseconds of a core, so only so many run at once and
//! only so many wait; whoever comes after that is told to come back, instead of everybody waiting without end.

use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroizing;

/// Longest password that is looked at, in bytes.
pub const MAX_PASSWORD: usize = 1024;
/// How many may wait for each that runs.
const WAITING_PER_WORKER: usize = 16;
/// Longest wait for a turn.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Why a password was neither hashed nor compared.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too many passwords at once.
    #[error("too many passwords are being checked at the moment")]
    Busy,
    /// The hash in the database is none, or the computation failed.
    #[error("a password hash cannot be computed: {0}")]
    Failed(String),
}

/// Hashes and compares passwords.
pub struct Passwords {
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// Compared with when there is no such user, so that this takes the same time.
    nobody: Arc<str>,
}

/// A place in the queue: got before anything is counted, so that nobody is charged for an attempt that was never made.
pub struct Turn {
    _waiting: OwnedSemaphorePermit,
    _running: OwnedSemaphorePermit,
}

impl Passwords {
    /// A pool of as many workers as there are cores, four at most.
    ///
    /// # Errors
    /// When no hash can be computed at all.
    pub fn new() -> Result<Self, PasswordError> {
        let workers = available_parallelism().map_or(1, NonZero::get).min(4);
        Ok(Self {
            nobody: hash("no user has this password")?.into(),
            running: Arc::new(Semaphore::new(workers)),
            waiting: Arc::new(Semaphore::new(workers * WAITING_PER_WORKER)),
        })
    }

    /// Waits for a turn, not too long.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] when too many wait already, or for too long.
    pub async fn turn(&self) -> Result<Turn, PasswordError> {
        let waiting = self.waiting.clone().try_acquire_owned().map_err(|_| PasswordError::Busy)?;
        let running = tokio::time::timeout(LONGEST_WAIT, self.running.clone().acquire_owned())
            .await
            .ok()
            .and_then(Result::ok)
            .ok_or(PasswordError::Busy)?;
        Ok(Turn { _waiting: waiting, _running: running })
    }

    /// Whether `password` is the one behind `stored`. Without `stored` (no such user) it is not, after the same time.
    ///
    /// # Errors
    /// When `stored` is no hash.
    pub async fn verify(&self, turn: Turn, password: &str, stored: Option<&str>) -> Result<bool, PasswordError> {
        let known = stored.is_some();
        let stored: Arc<str> = stored.map_or_else(|| self.nobody.clone(), Into::into);
        let password = Zeroizing::new(password.to_owned());
        let matches = work(turn, move || verify(&password, &stored));
        Ok(matches.await? && known)
    }

    /// The hash to store of a password.
    ///
    /// # Errors
    /// When too many are computed at the moment.
    pub async fn hash(&self, password: &str) -> Result<String, PasswordError> {
        let password = Zeroizing::new(password.to_owned());
        work(self.turn().await?, move || hash(&password)).await
    }
}

async fn work<T: Send + 'static>(
    turn: Turn,
    job: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
) -> Result<T, PasswordError> {
    // The turn ends with the computation, not with the request: one that is given up must not make room for another.
    let task = tokio::task::spawn_blocking(move || {
        let result = job();
        drop(turn);
        result
    });
    task.await.map_err(|error| PasswordError::Failed(error.to_string()))?
}

fn hash(password: &str) -> Result<String, PasswordError> {
    let (argon2, salt) = (argon2()?, Salt::generate());
    let hash = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(argon2.params()).map_err(failed)?,
        salt: Some(salt),
        hash: Some(compute(&argon2, password, &salt)?),
    };
    Ok(hash.to_string())
}

fn verify(password: &str, stored: &str) -> Result<bool, PasswordError> {
    let (argon2, stored) = (argon2()?, PasswordHash::new(stored).map_err(failed)?);
    let current = stored.algorithm == Algorithm::Argon2id.ident()
        && stored.version == Some(Version::V0x13.into())
        && stored.params == ParamsString::try_from(argon2.params()).map_err(failed)?;
    match (&stored.salt, stored.hash) {
        // Outputs compare in constant time.
        (Some(salt), Some(hash)) if current => Ok(compute(&argon2, password, salt)? == hash),
        // Made with other parameters, before these.
        _ => Ok(argon2.verify_password(password.as_bytes(), &stored).is_ok()),
    }
}

/// More than 32 MiB. Of what is smaller, the allocator of glibc learns after the first time to keep it, and each worker would
/// hold its 19 MiB for good; what is larger it returns to the kernel as soon as it is freed (mallopt(3), on
/// `M_MMAP_THRESHOLD`). What is reserved and never touched takes no memory.
const RETURNED_WHEN_FREED: usize = (33 << 20) / size_of::<Block>();

fn compute(argon2: &Argon2<'_>, password: &str, salt: &[u8]) -> Result<Output, PasswordError> {
    let count = argon2.params().block_count();
    let mut blocks = Vec::with_capacity(count.max(RETURNED_WHEN_FREED));
    blocks.resize(count, Block::new());
    let mut out = [0; Params::DEFAULT_OUTPUT_LEN];
    argon2.hash_password_into_with_memory(password.as_bytes(), salt, &mut out, &mut blocks).map_err(failed)?;
    Output::new(&out).map_err(failed)
}

/// OWASP Password Storage Cheat Sheet: argon2id, 19 MiB, two passes, one lane.
fn argon2() -> Result<Argon2<'static>, PasswordError> {
    let parameters = Params::new(19 * 1024, 2, 1, None).map_err(failed)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters))
}

fn failed(error: impl std::fmt::Display) -> PasswordError {
    PasswordError::Failed(error.to_string())
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::PasswordHasher;

    use super::*;

    #[tokio::test]
    async fn a_password_is_known_by_its_hash_and_nobody_by_any() {
        let passwords = Passwords::new().unwrap();
        let hash = passwords.hash("correct horse").await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hash, passwords.hash("correct horse").await.unwrap(), "each has a salt of its own");
        for (password, stored, expected) in [
            ("correct horse", Some(hash.as_str()), true),
            ("correct horse ", Some(hash.as_str()), false),
            ("", Some(hash.as_str()), false),
            ("no user has this password", None, false),
        ] {
            let turn = passwords.turn().await.unwrap();
            assert_eq!(passwords.verify(turn, password, stored).await.unwrap(), expected, "{password:?}");
        }
        let turn = passwords.turn().await.unwrap();
        assert!(passwords.verify(turn, "x", Some("not a hash")).await.is_err());
    }

    #[tokio::test]
    async fn a_hash_is_what_everybody_elses_argon2_makes_of_it_and_of_other_parameters_too() {
        let passwords = Passwords::new().unwrap();
        let ours = passwords.hash("correct horse").await.unwrap();
        let parsed = PasswordHash::new(&ours).unwrap();
        assert!(Argon2::default().verify_password(b"correct horse", &parsed).is_ok());
        let weaker = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(64, 1, 1, None).unwrap());
        let theirs = weaker.hash_password(b"correct horse").unwrap().to_string();
        for (password, expected) in [("correct horse", true), ("wrong", false)] {
            let turn = passwords.turn().await.unwrap();
            assert_eq!(passwords.verify(turn, password, Some(&theirs)).await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn memory_is_given_back() {
        let passwords = Arc::new(Passwords::new().unwrap());
        let hashes: Vec<_> = (0..12)
            .map(|_| {
                let passwords = passwords.clone();
                tokio::spawn(async move { passwords.hash("correct horse").await.map(drop) })
            })
            .collect();
        for hash in hashes {
            hash.await.unwrap().unwrap();
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.strip_suffix("kB")).unwrap();
        let anonymous: u64 = anonymous.trim().parse().unwrap();
        assert!(anonymous < 12 * 1024, "{anonymous} KiB are still held; one computation alone takes {}", 19 * 1024);
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_has_an_end() {
        let passwords = Arc::new(Passwords::new().unwrap());
        let mut turns = Vec::new();
        while passwords.running.available_permits() > 0 {
            turns.push(passwords.turn().await.unwrap());
        }
        let room = passwords.waiting.available_permits();
        let waiting: Vec<_> = (0..room)
            .map(|_| {
                let passwords = passwords.clone();
                tokio::spawn(async move { passwords.turn().await.map(drop) })
            })
            .collect();
        while passwords.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(passwords.turn().await, Err(PasswordError::Busy)), "there is no room to wait");
        for task in waiting {
            assert!(matches!(task.await.unwrap(), Err(PasswordError::Busy)), "nobody waits for ever");
        }
        turns.clear();
        assert!(passwords.turn().await.is_ok());
    }
}
