//! How one connection is opened: the password and the TLS configuration are looked up each time.

use std::{fmt, sync::Arc};

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use runtime::credentials::{Credentials, Secret};
use tls::{Identity, SpiffeId};
use tokio_postgres::{
    Config, NoTls, Socket,
    config::SslMode,
    tls::{MakeTlsConnect, TlsConnect},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{Connection, Error};

/// Opens the pool's connections.
pub struct Connector {
    pub(crate) config: Config,
    pub(crate) password: Password,
    pub(crate) tls: Option<(Arc<Identity>, SpiffeId)>,
}

/// Where the role's password comes from.
pub(crate) enum Password {
    Fixed(Secret),
    Credential(Credentials),
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Connector {
    /// Opens a connection. Whatever stands in the way, the database cannot be used now: every failure is
    /// [`Error::Unavailable`], and its text says why.
    pub(crate) async fn open(&self) -> Result<Connection, Error> {
        let mut config = self.config.clone();
        match &self.password {
            Password::Fixed(secret) => config.password(secret.expose()),
            Password::Credential(credentials) => {
                let secret = credentials.read("database-password").map_err(Error::unavailable)?;
                config.password(secret.text().map_err(Error::unavailable)?)
            }
        };
        match &self.tls {
            Some((identity, server)) => {
                let client = identity.client_config(server.clone(), &[]);
                establish(config.ssl_mode(SslMode::Require), MakeRustlsConnect::new(Arc::unwrap_or_clone(client))).await
            }
            None => establish(config.ssl_mode(SslMode::Disable), NoTls).await,
        }
    }
}

async fn establish<T>(config: &Config, tls: T) -> Result<Connection, Error>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    let (client, connection) = config.connect(tls).await.map_err(Error::unavailable)?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::warn!(%error, "lost a database connection");
        }
    });
    Ok(Connection::new(client, driver))
}

impl Manager for Connector {
    type Type = Connection;
    type Error = Error;

    async fn create(&self) -> Result<Connection, Error> {
        self.open().await
    }

    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<Error> {
        if connection.is_closed() { Err(RecycleError::message("connection closed")) } else { Ok(()) }
    }
}
