//! Whether this instance can do its work: what `/readyz` answers.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future;
use serde::Serialize;
use tokio::time::{Instant, timeout};

/// A check that takes longer counts as failed: the asker would have given up.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an answer is given again. Every gateway instance asks every second; the database need not be asked by each.
const FRESH: Duration = Duration::from_millis(250);

/// The checks of this process. Clones share them.
#[derive(Clone, Default)]
pub struct Health(Arc<Inner>);

#[derive(Default)]
struct Inner {
    checks: Mutex<Vec<(&'static str, Check)>>,
    awaited: RwLock<Vec<Waiting>>,
    latest: tokio::sync::Mutex<Option<(Instant, Readiness)>>,
}

/// Something that an instance waits for, and what it is like until it has happened.
#[derive(Clone)]
struct Waiting {
    name: &'static str,
    state: &'static str,
    happened: Arc<AtomicBool>,
}

type Check = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

impl Health {
    /// Without checks everything is ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds something this instance cannot work without. `check` tells in a few words what is wrong; it is called often, so it
    /// must be cheap, and has 2 seconds.
    pub fn check<F, C>(&self, name: &'static str, check: F)
    where
        F: Fn() -> C + Send + Sync + 'static,
        C: Future<Output = Result<(), String>> + Send + 'static,
    {
        let check: Check = Arc::new(move || Box::pin(check()));
        self.0.checks.lock().unwrap_or_else(PoisonError::into_inner).push((name, check));
    }

    /// Adds something that must happen once before this instance can work, such as a `schema` that is, until then, in the
    /// `state` of being "not up to date yet". Until then the [server](crate::server) answers in place of the handlers.
    pub fn awaits(&self, name: &'static str, state: &'static str) -> Awaited {
        let awaited = Awaited(Arc::default());
        let waiting = Waiting { name, state, happened: Arc::clone(&awaited.0) };
        self.0.awaited.write().unwrap_or_else(PoisonError::into_inner).push(waiting.clone());
        self.check(name, move || {
            let answer = if waiting.is_over() { Ok(()) } else { Err(waiting.state.to_owned()) };
            async { answer }
        });
        awaited
    }

    /// What this instance still waits for, in words, if there is anything.
    pub(crate) fn awaited(&self) -> Option<String> {
        let awaited = self.0.awaited.read().unwrap_or_else(PoisonError::into_inner);
        let waiting = awaited.iter().find(|waiting| !waiting.is_over())?;
        Some(format!("its {} is {}", waiting.name, waiting.state))
    }

    /// Asks all checks at once, or gives the answer of a moment ago.
    pub async fn readiness(&self) -> Readiness {
        let mut latest = self.0.latest.lock().await;
        if let Some((asked, readiness)) = &*latest
            && asked.elapsed() < FRESH
        {
            return readiness.clone();
        }
        let checks = self.0.checks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let answers = future::join_all(checks.iter().map(async |(name, check)| (*name, ask(check).await))).await;
        let readiness = Readiness { checks: answers.into_iter().collect() };
        *latest = Some((Instant::now(), readiness.clone()));
        readiness
    }
}

impl Waiting {
    fn is_over(&self) -> bool {
        self.happened.load(Ordering::Acquire)
    }
}

async fn ask(check: &Check) -> State {
    match timeout(CHECK_TIMEOUT, check()).await {
        Ok(Ok(())) => State::Ready,
        Ok(Err(reason)) => State::Unready { reason },
        Err(_) => State::Unready { reason: format!("no answer within {} s", CHECK_TIMEOUT.as_secs()) },
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let checks = self.0.checks.lock().unwrap_or_else(PoisonError::into_inner);
        formatter.debug_list().entries(checks.iter().map(|(name, _)| name)).finish()
    }
}

/// Something that an instance waits for.
#[derive(Debug)]
pub struct Awaited(Arc<AtomicBool>);

impl Awaited {
    /// It has happened.
    pub fn happened(self) {
        self.0.store(true, Ordering::Release);
    }
}

/// What each check said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// The answers by the checks' names.
    pub checks: BTreeMap<&'static str, State>,
}

impl Readiness {
    /// Whether all is well.
    pub fn is_ready(&self) -> bool {
        self.checks.values().all(|state| *state == State::Ready)
    }

    /// The names of the checks that failed.
    pub fn unready(&self) -> Vec<&'static str> {
        self.checks.iter().filter(|(_, state)| **state != State::Ready).map(|(name, _)| *name).collect()
    }

    pub(crate) fn draining() -> Self {
        Self { checks: BTreeMap::from([("lifecycle", State::Unready { reason: "draining".into() })]) }
    }
}

/// What one check said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum State {
    /// It works.
    Ready,
    /// It does not.
    Unready {
        /// Why, in a few words.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[tokio::test]
    async fn nothing_to_check_is_ready() {
        assert!(Health::new().readiness().await.is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_check_is_named_and_recovers() {
        let (health, broken) = (Health::new(), Arc::new(AtomicBool::new(true)));
        health.check("events", async || Ok(()));
        let database = Arc::clone(&broken);
        health.check("database", move || {
            let broken = database.load(Ordering::Relaxed);
            async move { if broken { Err("connection refused".to_owned()) } else { Ok(()) } }
        });
        let readiness = health.readiness().await;
        assert!(!readiness.is_ready());
        assert_eq!(readiness.unready(), ["database"]);
        broken.store(false, Ordering::Relaxed);
        tokio::time::advance(FRESH).await;
        assert!(health.readiness().await.is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_counts_as_failed() {
        let health = Health::new();
        health.check("database", std::future::pending);
        assert_eq!(health.readiness().await.unready(), ["database"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_awaited_is_unready_until_it_happens() {
        let health = Health::new();
        let schema = health.awaits("schema", "not there yet");
        let readiness = health.readiness().await;
        assert_eq!(readiness.checks["schema"], State::Unready { reason: "not there yet".into() });
        assert_eq!(health.awaited().as_deref(), Some("its schema is not there yet"));
        schema.happened();
        assert_eq!(health.awaited(), None);
        tokio::time::advance(FRESH).await;
        assert!(health.readiness().await.is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn many_askers_make_one_check() {
        let (health, count) = (Health::new(), Arc::new(AtomicU32::new(0)));
        let counted = Arc::clone(&count);
        health.check("database", move || {
            counted.fetch_add(1, Ordering::Relaxed);
            async { Ok(()) }
        });
        future::join_all((0..100).map(|_| health.readiness())).await;
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }
}
