//! The one load balancer of the mesh: from "a request for this service" to "an answer of one of its instances".
//! The gateway sends through it, and services call each other through it.
//!
//! An [`Upstream`] is given where the instances of a service may be, as `host:port`. It resolves them, again and again,
//! and keeps warm connections to every address: mutual TLS with HTTP/2 to services of the mesh, HTTP/1.1 with keep-alive
//! to foreign ones. An address takes requests while it has a connection *and* passes its health check; it stops the
//! moment its connection dies. Requests never connect by themselves when they could use what is warm.
//!
//! Among the addresses that are up, the cheaper of two drawn at random is taken (Mitzenmacher, "The power of two choices
//! in randomized load balancing", 2001), cheap by peak-sensitive latency and by what is in flight ([`balance`]).
//!
//! A request that provably never reached an instance is sent again, whatever its method, if its body can be replayed;
//! one that may have reached it only if its method is idempotent (RFC 9110, §9.2.2), and only as far as the retry budget
//! allows, so that retries cannot multiply an overload.
//!
//! Everything here is bounded: connections, requests in flight, attempts, each wait.

mod balance;
mod body;
mod connect;
mod error;
mod health;
mod link;
mod metrics;
mod resolve;
mod roster;
mod send;

use std::{fmt, sync::Arc, time::Duration};

use http::{Request, Response, uri::PathAndQuery};
use tls::{Identity, SpiffeId};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::retry::budget::TpsBudget;

pub use self::{
    body::{Payload, ResponseBody},
    error::Error,
    metrics::UpstreamMetrics,
};
use self::{metrics::ServiceMetrics, roster::Roster};

/// Any error at all.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What an upstream is made from.
#[derive(Clone, Debug)]
pub struct Config {
    /// The service, as metrics and logs name it.
    pub service: String,
    /// Where its instances may be, as `host:port`. A host name may resolve to several addresses.
    pub endpoints: Vec<String>,
    /// How they are spoken to.
    pub protocol: Protocol,
    /// How it is found out whether one can take requests.
    pub health: HealthCheck,
    /// What is waited and tried at most.
    pub limits: Limits,
}

/// How instances are spoken to.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// HTTP/2 over mutual TLS, to this workload and nobody else.
    Mesh {
        /// Who we are.
        identity: Arc<Identity>,
        /// Who they must be.
        peer: SpiffeId,
    },
    /// HTTP/1.1 in the clear, to a foreign program on a trusted network.
    Plain,
}

/// Active health checks: a GET that must be answered with 2xx.
#[derive(Clone, Debug)]
pub struct HealthCheck {
    /// What is asked for. `None`: that a connection can be made is enough.
    pub path: Option<PathAndQuery>,
    /// From one check to the next; jittered by a tenth.
    pub interval: Duration,
    /// For one check.
    pub timeout: Duration,
    /// Checks that must pass in a row after one has failed.
    pub rise: u32,
    /// Checks that must fail in a row.
    pub fall: u32,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            path: Some(PathAndQuery::from_static("/readyz")),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 2,
        }
    }
}

/// What is waited and tried at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For a connection, its TLS handshake included; also how long a request waits for an instance that is just being
    /// connected to.
    pub connect_timeout: Duration,
    /// From a request whose body is known to the head of its response. A request that streams its body has the deadline
    /// alone, for it is its sender who decides how long that takes.
    pub head_timeout: Duration,
    /// Requests in flight to one address; above it another is taken, or the request is refused.
    pub max_in_flight: usize,
    /// HTTP/2 connections kept to one address.
    pub connections: usize,
    /// How often one request is sent at most, the first time included.
    pub attempts: u32,
    /// Retries of requests that may have reached an instance, as a share of all requests. Ten a second are always allowed.
    pub retry_percent: u8,
    /// How often host names are resolved again.
    pub resolve_interval: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            head_timeout: Duration::from_secs(30),
            max_in_flight: 1024,
            connections: 1,
            attempts: 3,
            retry_percent: 20,
            resolve_interval: Duration::from_secs(5),
        }
    }
}

/// A service's instances as one thing to send requests to. Clones share everything; when the last is dropped, the
/// connections are closed.
#[derive(Clone)]
pub struct Upstream(Arc<Inner>);

struct Inner {
    roster: Arc<Roster>,
    budget: TpsBudget,
    metrics: ServiceMetrics,
    limits: Limits,
    _stop_on_drop: DropGuard,
}

impl Upstream {
    /// Starts resolving, connecting and checking in the background of the current tokio runtime.
    #[must_use]
    pub fn start(config: Config, metrics: &UpstreamMetrics) -> Self {
        let stop = CancellationToken::new();
        let limits = config.limits;
        let metrics = metrics.of_service(&config.service);
        let roster = Arc::new(Roster::new(config, metrics.clone()));
        tokio::spawn(resolve::keep(Arc::clone(&roster), stop.clone()));
        Self(Arc::new(Inner {
            roster,
            // Finagle's window; the percentage is a share of the requests of the last ten seconds.
            budget: TpsBudget::new(Duration::from_secs(10), 10, f32::from(limits.retry_percent) / 100.0),
            metrics,
            limits,
            _stop_on_drop: stop.drop_guard(),
        }))
    }

    /// Sends a request and waits for the head of the response. The URI needs no scheme and no authority: for services of
    /// the mesh both are set, foreign ones get the request's own `Host`. Headers pass as they are.
    ///
    /// The body of the response fails if it has not ended by `deadline`.
    ///
    /// # Errors
    /// When no instance is up, all are full, the time is up, or the last attempt failed.
    pub async fn send(&self, request: Request<Payload>, deadline: Instant) -> Result<Response<ResponseBody>, Error> {
        self.0.send(request, deadline).await
    }

    /// What is known of the addresses, now and whenever it changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.0.roster.changes()
    }

    /// Whether some address is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        !self.0.roster.live().is_empty()
    }
}

/// What is known of a service's addresses. Each counts once for every connection that is kept to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether the host names have been looked up at least once.
    pub resolved: bool,
    /// Being connected to for the first time, or again at once after the connection died.
    pub connecting: usize,
    /// Connected, and the last health checks passed.
    pub up: usize,
    /// Neither.
    pub down: usize,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = &self.0.roster.config.service;
        f.debug_struct("Upstream")
            .field("service", service)
            .field("status", &*self.status().borrow())
            .finish_non_exhaustive()
    }
}
