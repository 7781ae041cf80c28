//! The public listener: TLS 1.3 and 1.2, HTTP/2 and HTTP/1.1, and bounds on everything a client can hold.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use berth_http::server::{Activity, Handshakes, StallGuard};
use http::{HeaderValue, Request};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use runtime::{lifecycle::Lifecycle, retry::Backoff};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use crate::{
    framing::{Findings, Watched},
    proxy::{Arrival, Gateway},
    state::Limits,
};

/// Protocols of the public listener, most wanted first.
pub const ALPN: [&[u8]; 2] = [HTTP2, b"http/1.1"];
const HTTP2: &[u8] = b"h2";

/// Handshakes at the same time; beyond, the oldest gives way.
const HANDSHAKES: usize = 512;
/// Streams of one HTTP/2 connection at the same time.
const STREAMS: u32 = 128;
/// What one stream may have sent that nobody has taken yet, and all of a connection together.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Pings, so that a client that vanished without a word is noticed.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams a client may reset before they are accepted, and those it may make us reset (CVE-2023-44487, CVE-2025-8671).
const PENDING_RESETS: usize = 20;
const LOCAL_RESETS: usize = 256;
/// Header fields of one request.
const FIELDS: usize = 100;
/// hyper takes no smaller buffer.
const SMALLEST_BUFFER: usize = 8 * 1024;
/// After it was told to go, a client without a request is waited for so long.
const LINGER: Duration = Duration::from_secs(5);
/// A client that takes no bytes for so long is given up.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A public listener to be.
pub struct Listener {
    socket: TcpListener,
    tls: TlsAcceptor,
    gateway: Gateway,
}

impl Listener {
    /// A listener on a bound socket.
    #[must_use]
    pub fn new(socket: TcpListener, tls: Arc<ServerConfig>, gateway: Gateway) -> Self {
        Self { socket, tls: TlsAcceptor::from(tls), gateway }
    }

    /// Serves until the drain begins. Connections are tracked by the lifecycle: they are told to go away (GOAWAY, or
    /// `Connection: close`) and finish what they have. The socket is closed unless somebody else holds it as well.
    pub async fn serve(self, lifecycle: &Lifecycle) {
        // As many as there ever may be; a reload can only lower it for those that come.
        let most = self.gateway.state().limits.connections;
        let open = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        let shared = Arc::new(Shared {
            tls: self.tls,
            gateway: self.gateway,
            handshakes: Handshakes::new(HANDSHAKES),
            draining: lifecycle.draining(),
        });
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        loop {
            // Beyond the bound, connections wait in the socket's queue.
            let accepting = async {
                let permit = Arc::clone(&open).acquire_owned().await.map_err(io::Error::other)?;
                let (stream, client) = self.socket.accept().await?;
                Ok::<_, io::Error>((stream, client, permit))
            };
            let accepted = tokio::select! {
                accepted = accepting => accepted,
                () = shared.draining.cancelled() => return,
            };
            match accepted {
                Ok((stream, client, permit)) => {
                    backoff.reset();
                    lifecycle.tasks().spawn(Arc::clone(&shared).handle(stream, client, permit));
                }
                Err(error) => {
                    // No descriptors, no memory: it lasts until something is closed.
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(backoff.delay()).await;
                }
            }
        }
    }
}

/// What all connections share.
struct Shared {
    tls: TlsAcceptor,
    gateway: Gateway,
    handshakes: Handshakes,
    draining: CancellationToken,
}

impl Shared {
    async fn handle(self: Arc<Self>, stream: TcpStream, client: SocketAddr, _permit: OwnedSemaphorePermit) {
        let limits = self.gateway.state().limits;
        let Some(stream) = self.handshake(stream, limits.header_timeout).await else {
            self.gateway.metrics().refused_handshakes.inc();
            return;
        };
        let http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
        let connections = &self.gateway.metrics().connections;
        connections.inc();
        let stream = StallGuard::new(stream, STALL_TIMEOUT);
        if http2 {
            self.serve(stream, client, limits, Findings::none(), auto::Builder::http2_only).await;
        } else {
            let (stream, findings) = Watched::new(stream, hard_limit(limits), limits.header_timeout);
            self.serve(stream, client, limits, findings, auto::Builder::http1_only).await;
        }
        connections.dec();
    }

    async fn handshake(&self, stream: TcpStream, within: Duration) -> Option<TlsStream<TcpStream>> {
        let slot = self.handshakes.begin();
        let shaking = async {
            stream.set_nodelay(true)?;
            self.tls.accept(stream).await
        };
        tokio::select! {
            shaken = timeout(within, shaking) => shaken.ok()?.inspect_err(|error| tracing::debug!(%error, "a TLS handshake failed")).ok(),
            () = slot.displaced.cancelled() => None,
            () = self.draining.cancelled() => None,
        }
    }

    async fn serve<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: IO,
        client: SocketAddr,
        limits: Limits,
        findings: Findings,
        protocol: impl FnOnce(auto::Builder<TokioExecutor>) -> auto::Builder<TokioExecutor>,
    ) {
        let activity = Activity::new();
        let requests = AtomicU64::new(0);
        let client = client.ip().to_canonical();
        let forwarded_for = HeaderValue::try_from(client.to_string()).unwrap_or(HeaderValue::from_static("unknown"));
        let service = service_fn(|request: Request<Incoming>| {
            let number = requests.fetch_add(1, Relaxed);
            let arrival = Arrival {
                client,
                forwarded_for: forwarded_for.clone(),
                sound: findings.is_sound(number),
                answering: activity.begin(),
            };
            let gateway = self.gateway.clone();
            async move { Ok::<_, Infallible>(gateway.answer(request, arrival).await) }
        });
        let builder = builder(limits, protocol);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let told_to_go = async {
            tokio::select! {
                () = self.draining.cancelled() => {}
                () = activity.idle_for(limits.idle_timeout) => {}
            }
        };
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = told_to_go => {
                connection.as_mut().graceful_shutdown();
                // A client that has not even begun to speak HTTP/2 never acknowledges it.
                tokio::select! {
                    ended = connection => ended,
                    () = activity.idle_for(LINGER) => Ok(()),
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error = &*error, %client, "a connection ended early");
        }
    }
}

/// Where the protocol itself refuses a head. Higher than the limit, below which we can say why.
fn hard_limit(limits: Limits) -> usize {
    limits.header_bytes.saturating_mul(2).max(SMALLEST_BUFFER)
}

/// The protocol is known from the handshake, so nothing waits for a first byte to tell it.
fn builder(
    limits: Limits,
    protocol: impl FnOnce(auto::Builder<TokioExecutor>) -> auto::Builder<TokioExecutor>,
) -> auto::Builder<TokioExecutor> {
    let mut builder = protocol(auto::Builder::new(TokioExecutor::new()));
    builder
        .http1()
        // [`Watched`] bounds the time of a head: hyper would count the time without a request as well.
        .header_read_timeout(None)
        .max_buf_size(hard_limit(limits))
        .max_headers(FIELDS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(hard_limit(limits)).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(LOCAL_RESETS);
    builder
}
