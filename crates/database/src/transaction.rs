//! Transactions that are tried again when PostgreSQL asks for it.

use std::{error::Error as StdError, time::Duration};

use runtime::retry::Backoff;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;

use crate::{Database, Error, ScopedBoxFuture, Transaction};

/// How often a transaction is tried before its serialization failure or deadlock is the caller's.
const ATTEMPTS: usize = 5;

impl Database {
    /// Runs `work` in a transaction and commits it when it gives `Ok`; otherwise everything is rolled back.
    ///
    /// When the work, or the commit, fails because of a concurrent transaction (SQLSTATE 40001 or 40P01, anywhere in the
    /// chain of the error's sources), all of it is rolled back and run again, five times in all, with growing random pauses. So
    /// `work` must have no effect outside the transaction. A commit whose answer is lost is *not* run again: it may
    /// have happened, and the caller gets [`Error::Unavailable`].
    ///
    /// # Errors
    /// What `work` gave, or the error of beginning and committing.
    ///
    /// ```no_run
    /// use database::{Database, Error, ScopedFutureExt as _, Statements as _};
    ///
    /// async fn rename(database: &Database, from: &str, to: &str) -> Result<u64, Error> {
    ///     let sql = "UPDATE things SET name = $2 WHERE name = $1";
    ///     database.transaction(|tx| async move { tx.run(sql, &[&from, &to]).await }.scope_boxed()).await
    /// }
    /// ```
    pub async fn transaction<'a, T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: for<'t> Fn(&'t Transaction<'t>) -> ScopedBoxFuture<'a, 't, Result<T, E>>,
        E: From<Error> + StdError + 'static,
    {
        let mut pauses = Backoff::new(Duration::from_millis(5), Duration::from_millis(200)).take(ATTEMPTS - 1);
        loop {
            let error = match self.attempt(&work).await {
                Err(error) if must_retry(&error) => error,
                done => return done,
            };
            match pauses.next() {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error),
            }
        }
    }

    async fn attempt<'a, T, E, F>(&self, work: &F) -> Result<T, E>
    where
        F: for<'t> Fn(&'t Transaction<'t>) -> ScopedBoxFuture<'a, 't, Result<T, E>>,
        E: From<Error>,
    {
        let mut client = self.get().await?;
        let done = timeout(self.answer, async {
            let transaction = client.transaction().await.map_err(Error::from)?;
            let value = work(&transaction).await?;
            transaction.commit().await.map_err(Error::from)?;
            Ok(value)
        });
        match done.await {
            Ok(done) => done,
            Err(elapsed) => {
                client.give_up();
                Err(Error::unavailable(elapsed).into())
            }
        }
    }
}

fn must_retry(error: &(dyn StdError + 'static)) -> bool {
    std::iter::successors(Some(error), |error: &&(dyn StdError + 'static)| (*error).source())
        .filter_map(|error| error.downcast_ref::<tokio_postgres::Error>())
        .any(|error| {
            matches!(error.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED))
        })
}
