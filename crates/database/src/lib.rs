//! The one way a service reaches its own PostgreSQL.
//!
//! Here live the connection pool with its limits, the classification of database errors by what a caller can do about
//! them, transactions that are retried when PostgreSQL asks for it, and migrations that several instances may start at
//! once. Not here: any SQL of a service (that stands in its `store.rs`) and messaging (that is `outbox`).
//!
//! A [`Database`] is built while the server may still be away: connecting happens on first use, every wait is bounded,
//! and what cannot be reached is [`Error::Unavailable`], which an HTTP handler turns into `503` with `Retry-After`.

mod connect;
mod error;
mod migrate;
mod statements;
mod transaction;

use std::{sync::Arc, time::Duration};

use berth_http::health::Health;
use connect::Password;
use deadpool::{Runtime, managed};
use runtime::{
    credentials::{Credentials, Secret},
    settings::Settings,
};
use tls::{Identity, SpiffeId};
use tokio::{sync::Mutex, time::timeout};
use tokio_postgres::Config;

pub use connect::{Connection, Connector, Dedicated};
pub use error::{Error, SetupError};
pub use migrate::MigrateError;
pub use refinery;
pub use scoped_futures::{ScopedBoxFuture, ScopedFutureExt};
pub use statements::Statements;
pub use tokio_postgres::{Row, error::SqlState, types};

/// A pooled [`Connection`]. Dropped, it goes back to the pool.
pub type Client = managed::Object<Connector>;

/// An open transaction on a pooled connection; rolled back when dropped without [`commit`](deadpool_postgres::Transaction::commit).
pub type Transaction<'a> = deadpool_postgres::Transaction<'a>;

/// What one process may take of the database server, and how long it waits for it.
#[derive(Clone, Debug)]
pub struct PoolLimits {
    /// Most connections open at once; further callers wait.
    pub connections: usize,
    /// Longest wait for a free connection.
    pub wait: Duration,
    /// Longest time to open a connection: TCP, TLS and authentication.
    pub connect: Duration,
    /// `statement_timeout` of each connection: PostgreSQL cancels a statement that runs longer.
    pub statement: Duration,
    /// Longest time for one transaction, or one statement outside of one, as seen from here. PostgreSQL's own timeouts come
    /// first while it lives; beyond this it hangs, and the connection is given up.
    pub answer: Duration,
    /// `idle_in_transaction_session_timeout` of each connection: PostgreSQL ends a session that holds a transaction open without working.
    pub idle_in_transaction: Duration,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            connections: 16,
            wait: Duration::from_secs(3),
            connect: Duration::from_secs(3),
            statement: Duration::from_secs(10),
            answer: Duration::from_secs(12),
            idle_in_transaction: Duration::from_secs(10),
        }
    }
}

/// A service's own database. Cheap to clone; all clones share one pool.
#[derive(Clone, Debug)]
pub struct Database {
    pool: managed::Pool<Connector>,
    answer: Duration,
    /// For signs of life alone: how busy the pool is says nothing about the server.
    pulse: Arc<Mutex<Option<Dedicated>>>,
}

/// Longest wait for a sign of life; shorter than what waits for a readiness check.
const PULSE: Duration = Duration::from_millis(800);

impl Database {
    /// The database that [`Settings::database_url`] names, with the password from the credential `database-password`.
    ///
    /// Opens no connection: the server may be away now and come later. With an `identity` every connection is mutual
    /// TLS and the server must be [`Settings::database_server`]; both credentials are read again for each new
    /// connection, so that rotating them needs no restart.
    ///
    /// # Errors
    /// [`SetupError`] names the setting that is missing or wrong.
    pub fn connect(
        settings: &Settings,
        credentials: &Credentials,
        identity: Option<Arc<Identity>>,
        limits: PoolLimits,
    ) -> Result<Self, SetupError> {
        let url = settings.database_url.as_deref().ok_or(SetupError::Missing("BERTH_DATABASE_URL"))?;
        let mut config = parse(url)?;
        config.application_name(&settings.instance);
        let tls = match identity {
            Some(identity) => {
                let name = settings.database_server.as_deref().ok_or(SetupError::Missing("BERTH_DATABASE_SERVER"))?;
                let server =
                    SpiffeId::new(&settings.domain, name).map_err(|error| SetupError::Server(error.to_string()))?;
                Some((identity, server))
            }
            None => None,
        };
        Self::build(config, Password::Credential(credentials.clone()), tls, &limits)
    }

    /// A database without TLS, for tests and tools: `url` without a password, and the password.
    ///
    /// # Errors
    /// [`SetupError`] when the URL does not parse.
    pub fn at(url: &str, password: &str) -> Result<Self, SetupError> {
        let password = Password::Fixed(Secret::new(password.as_bytes()));
        Self::build(parse(url)?, password, None, &PoolLimits::default())
    }

    fn build(
        mut config: Config,
        password: Password,
        tls: Option<(Arc<Identity>, SpiffeId)>,
        limits: &PoolLimits,
    ) -> Result<Self, SetupError> {
        config
            .options(format!(
                "-c statement_timeout={} -c idle_in_transaction_session_timeout={}",
                limits.statement.as_millis(),
                limits.idle_in_transaction.as_millis()
            ))
            .connect_timeout(limits.connect)
            .tcp_user_timeout(limits.statement)
            .keepalives_idle(Duration::from_secs(10));
        let pool = managed::Pool::builder(Connector { config, password, tls, answer: limits.answer })
            .max_size(limits.connections)
            .wait_timeout(Some(limits.wait))
            .create_timeout(Some(limits.connect))
            .recycle_timeout(Some(limits.connect))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| SetupError::Pool(error.to_string()))?;
        Ok(Self { pool, answer: limits.answer, pulse: Arc::default() })
    }

    /// A connection from the pool.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when none is free, or none can be opened, within the limits.
    pub async fn get(&self) -> Result<Client, Error> {
        Ok(self.pool.get().await?)
    }

    /// A connection outside the pool, for what belongs to a session: advisory locks, `LISTEN`, long migrations.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it cannot be opened.
    pub async fn dedicated(&self) -> Result<Dedicated, Error> {
        self.pool.manager().open().await
    }

    /// Has `/readyz` ask for a sign of life.
    pub fn watched_by(&self, health: &Health) {
        let database = self.clone();
        health.check("database", move || {
            let database = database.clone();
            async move { database.ping().await.map_err(|error| error.to_string()) }
        });
    }

    /// Asks the server for a sign of life, on a connection of its own; for a readiness check.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is none within 800 ms.
    pub async fn ping(&self) -> Result<(), Error> {
        let asked = timeout(PULSE, async {
            let mut pulse = self.pulse.lock().await;
            // Taken out: a connection that failed, or that somebody stopped waiting for, is not used again.
            let connection = match pulse.take().filter(|connection| !connection.is_closed()) {
                Some(connection) => connection,
                None => self.dedicated().await?,
            };
            connection.simple_query("").await?;
            *pulse = Some(connection);
            Ok(())
        });
        asked.await.unwrap_or_else(|elapsed| Err(Error::unavailable(elapsed)))
    }
}

fn parse(url: &str) -> Result<Config, SetupError> {
    url.parse().map_err(|error: tokio_postgres::Error| SetupError::Url(error.to_string()))
}
