//! The mesh listener of a service: mutual TLS, HTTP/2 and HTTP/1.1, and limits on everything a peer can hold.
//!
//! A request passes, from the outside in: [`connection`] (handshake, peer, protocol limits), [`layers`] (trace, metrics and
//! log line; admission; whether the service is prepared; deadline; panics; problems for every rejection), then the service's router. `/livez`, `/readyz` and
//! `/metrics` are answered [here](operations), without admission: an overloaded service is still alive.

mod accept;
mod connection;
mod holding;
mod layers;
mod limits;
mod metrics;
mod operations;
mod probe;
mod stall;

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use runtime::{lifecycle::Lifecycle, settings::Settings, sockets, telemetry::Metrics};
use tls::{Identity, SpiffeId};
use tokio::net::TcpListener;

use self::{accept::Acceptor, connection::Connections, metrics::ServerMetrics};
pub use self::{
    connection::{Activity, Answering, Handshakes, Slot},
    limits::Limits,
    probe::{ProbeError, probe},
    stall::StallGuard,
};
use crate::health::Health;

/// The name under which a service manager may pass the mesh listener's socket.
const SOCKET: &str = "mesh";

/// Who sent the request: the SPIFFE ID of the peer's certificate, as a request extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer(pub SpiffeId);

/// A mesh listener to be.
#[derive(Debug)]
pub struct Server {
    listen: SocketAddr,
    identity: Arc<Identity>,
    router: Router,
    metrics: Metrics,
    health: Health,
    limits: Limits,
}

impl Server {
    /// A listener on `settings.listen`, or on the passed socket `mesh`, with the default [`Limits`].
    pub fn new(settings: &Settings, identity: Arc<Identity>, router: Router, metrics: Metrics, health: Health) -> Self {
        Self { listen: settings.listen, identity, router, metrics, health, limits: Limits::default() }
    }

    /// Other limits than the default.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Opens the socket, so that connections queue from here on. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn bind(self) -> io::Result<BoundServer> {
        Ok(BoundServer { listener: sockets::listener(SOCKET, self.listen)?, server: self })
    }

    /// Binds, says [`Lifecycle::ready`], and serves until the drain begins.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn serve(self, lifecycle: &Lifecycle) -> io::Result<()> {
        let server = self.bind()?;
        lifecycle.ready();
        server.serve(lifecycle).await;
        Ok(())
    }
}

/// A mesh listener whose socket is open.
#[derive(Debug)]
pub struct BoundServer {
    listener: TcpListener,
    server: Server,
}

impl BoundServer {
    /// The address it listens on, with the port the system chose if none was given.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves at once, while `preparation` does what must be done before the service works, which may wait for other servers: until
    /// then the listener answers, and `/readyz` says what is missing. Returns when the drain is over, which takes `grace` at most.
    ///
    /// # Errors
    /// That of the preparation, unless the drain cut it short.
    pub async fn serve_prepared<E>(
        self,
        lifecycle: &Lifecycle,
        grace: Duration,
        preparation: impl Future<Output = Result<(), E>>,
    ) -> Result<(), E> {
        let serving = async {
            self.serve(lifecycle).await;
            lifecycle.drained(grace).await;
        };
        tokio::pin!(serving);
        tokio::select! {
            prepared = lifecycle.prepare(preparation) => match prepared {
                Err(error) if !lifecycle.is_draining() => return Err(error),
                _ => serving.await,
            },
            () = &mut serving => {}
        }
        Ok(())
    }

    /// Serves until the drain begins, then closes the socket and returns. Connections are tracked in
    /// [`Lifecycle::tasks`]: they finish what they hold, and [`Lifecycle::drained`] waits for them.
    pub async fn serve(self, lifecycle: &Lifecycle) {
        let Server { identity, router, metrics, health, limits, .. } = self.server;
        let server_metrics = ServerMetrics::register(&metrics);
        let router = layers::wrap(router, limits, health.clone(), &server_metrics).merge(operations::router(
            metrics,
            health,
            lifecycle.draining(),
            &server_metrics,
        ));
        let connections = Connections::new(&identity, router, limits, server_metrics, lifecycle.draining());
        Acceptor::new(self.listener, lifecycle.clone()).run(connections).await;
    }
}
