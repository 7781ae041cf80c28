//! Migrations: each schema change once, whoever of several instances comes first.

use std::time::Duration;

use refinery::Runner;
use runtime::retry::Backoff;
use tokio_util::sync::CancellationToken;

use crate::{Database, Error};

/// The advisory lock that whoever migrates a database holds; "migrate" in ASCII.
const LOCK: i64 = 0x006d_6967_7261_7465;

/// Why the schema is not up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A migration does not apply, or one that was applied has been changed or removed.
    #[error("the schema cannot be brought up to date: {0}")]
    Migration(#[from] refinery::Error),
    /// The server refused something else.
    #[error(transparent)]
    Database(Error),
    /// The process was told to stop before the database came.
    #[error("stopped while waiting for the database: {0}")]
    Stopped(#[source] Error),
}

impl Database {
    /// Applies the migrations that are not recorded in `table` yet, in one session under an advisory lock, so that
    /// instances which start together do not collide. Waits for the database with backoff until it comes, or until
    /// `stop`.
    ///
    /// Several sets of migrations live in one database by keeping their records in different tables.
    ///
    /// # Errors
    /// [`MigrateError::Migration`] when a migration is wrong; [`MigrateError::Stopped`] when `stop` came first.
    pub async fn migrate(&self, runner: Runner, table: &str, stop: &CancellationToken) -> Result<(), MigrateError> {
        let mut runner = runner;
        runner.set_migration_table_name(table);
        let mut pauses = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        loop {
            let error = match self.migrate_once(&runner).await {
                Err(MigrateError::Database(error)) if error.is_transient() => error,
                done => return done,
            };
            tracing::warn!(%error, "waiting for the database to migrate it");
            tokio::select! {
                () = tokio::time::sleep(pauses.delay()) => {}
                () = stop.cancelled() => return Err(MigrateError::Stopped(error)),
            }
        }
    }

    async fn migrate_once(&self, runner: &Runner) -> Result<(), MigrateError> {
        let mut connection = self.dedicated().await.map_err(MigrateError::Database)?;
        let prepare = format!("SET statement_timeout = 0; SELECT pg_advisory_lock({LOCK})");
        connection.batch_execute(&prepare).await.map_err(|error| MigrateError::Database(error.into()))?;
        let report = runner.run_async(&mut ***connection).await?;
        for migration in report.applied_migrations() {
            tracing::info!(%migration, "applied a migration");
        }
        Ok(())
    }
}
