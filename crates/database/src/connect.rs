//! How one connection is opened: the password and the TLS configuration are looked up each time.

use std::{
    fmt,
    future::poll_fn,
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use deadpool_postgres::ClientWrapper;
use runtime::credentials::{Credentials, Secret};
use tls::{Identity, SpiffeId};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
    time::timeout,
};
use tokio_postgres::{
    AsyncMessage, Config, NoTls, Socket,
    config::SslMode,
    tls::{MakeTlsConnect, TlsConnect},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::Error;

/// Opens the pool's connections.
pub struct Connector {
    pub(crate) config: Config,
    pub(crate) password: Password,
    pub(crate) tls: Option<(Arc<Identity>, SpiffeId)>,
    pub(crate) answer: Duration,
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
    pub(crate) async fn open(&self) -> Result<Dedicated, Error> {
        let mut config = self.config.clone();
        match &self.password {
            Password::Fixed(secret) => config.password(secret.expose()),
            Password::Credential(credentials) => {
                let secret = credentials.read("database-password").map_err(Error::unavailable)?;
                config.password(secret.text().map_err(Error::unavailable)?)
            }
        };
        let (client, signal) = match &self.tls {
            Some((identity, server)) => {
                let client = identity.client_config(server.clone(), &[]);
                let tls = MakeRustlsConnect::new(Arc::unwrap_or_clone(client));
                establish(config.ssl_mode(SslMode::Require), tls).await?
            }
            None => establish(config.ssl_mode(SslMode::Disable), NoTls).await?,
        };
        Ok(Dedicated { connection: Connection { client, answer: self.answer, hangs: AtomicBool::new(false) }, signal })
    }
}

async fn establish<T>(config: &Config, tls: T) -> Result<(ClientWrapper, Arc<Notify>), Error>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    let (client, wire) = config.connect(tls).await.map_err(Error::unavailable)?;
    let signal = Arc::new(Notify::new());
    let driver = tokio::spawn(drive(wire, Arc::clone(&signal)));
    Ok((ClientWrapper::new(client, driver), signal))
}

/// Moves the bytes of one connection until it ends.
async fn drive<S, T>(mut wire: tokio_postgres::Connection<S, T>, signal: Arc<Notify>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|context| wire.poll_message(context)).await {
        match message {
            Ok(AsyncMessage::Notification(_)) => signal.notify_one(),
            Ok(AsyncMessage::Notice(notice)) => tracing::debug!(%notice, "PostgreSQL"),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(error = %Error::from(error), "lost a database connection");
                return;
            }
        }
    }
}

/// A connection with its cache of prepared statements. Dropped, it closes.
#[derive(Debug)]
pub struct Connection {
    client: ClientWrapper,
    answer: Duration,
    /// Something was asked and never answered: whatever is asked next would wait behind it.
    hangs: AtomicBool,
}

impl Connection {
    /// Waits for an answer no longer than [`PoolLimits::answer`](crate::PoolLimits::answer).
    pub(crate) async fn answered<T>(
        &self,
        asked: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Error> {
        match timeout(self.answer, asked).await {
            Ok(answer) => Ok(answer?),
            Err(elapsed) => {
                self.give_up();
                Err(Error::unavailable(elapsed))
            }
        }
    }

    /// Keeps the pool from lending the connection again.
    pub(crate) fn give_up(&self) {
        self.hangs.store(true, Relaxed);
    }
}

impl Deref for Connection {
    type Target = ClientWrapper;

    fn deref(&self) -> &ClientWrapper {
        &self.client
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut ClientWrapper {
        &mut self.client
    }
}

/// A [`Connection`] outside the pool, which also hears notifications. Dropped, it closes.
#[derive(Debug)]
pub struct Dedicated {
    connection: Connection,
    signal: Arc<Notify>,
}

impl Dedicated {
    /// Waits until the server notifies of a channel that this connection listens to. Notifications that came since the last
    /// wait count as one.
    pub async fn notified(&self) {
        self.signal.notified().await;
    }
}

impl Deref for Dedicated {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Dedicated {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

impl Manager for Connector {
    type Type = Connection;
    type Error = Error;

    async fn create(&self) -> Result<Connection, Error> {
        Ok(self.open().await?.connection)
    }

    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<Error> {
        match (connection.is_closed(), connection.hangs.load(Relaxed)) {
            (true, _) => Err(RecycleError::message("the connection is closed")),
            (_, true) => Err(RecycleError::message("the connection hangs")),
            (false, false) => Ok(()),
        }
    }
}
