//! One connection: handshake, peer, HTTP, end.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Router, body::Body, response::Response};
use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tls::{Identity, peer_id};
use tokio::{
    net::TcpStream,
    sync::Semaphore,
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::{
    Limits, Peer,
    holding::{Counted, Holding},
    metrics::ServerMetrics,
    stall::StallGuard,
};

const HTTP2: &[u8] = b"h2";
const HTTP11: &[u8] = b"http/1.1";

/// HTTP/2 pings, so that a peer that vanished without a word is noticed.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Streams a peer may reset before they are accepted (CVE-2023-44487, "rapid reset"), and those it may make us reset
/// (CVE-2025-8671, "made you reset"), before the connection is ended.
const PENDING_RESETS: usize = 20;
const LOCAL_RESETS: usize = 256;

/// hyper's least buffer of an HTTP/1.1 connection.
const MIN_BUFFER: usize = 8192;

/// What all connections share.
pub(super) struct Connections {
    acceptor: TlsAcceptor,
    router: Router,
    limits: Limits,
    metrics: ServerMetrics,
    draining: CancellationToken,
    handshakes: Handshakes,
    open: Arc<Semaphore>,
}

impl Connections {
    pub(super) fn new(
        identity: &Identity,
        router: Router,
        limits: Limits,
        metrics: ServerMetrics,
        draining: CancellationToken,
    ) -> Self {
        Self {
            acceptor: identity.server_config(&[HTTP2, HTTP11]).into(),
            router,
            limits,
            metrics,
            draining,
            handshakes: Handshakes::new(limits.handshakes),
            open: Arc::new(Semaphore::new(limits.connections)),
        }
    }

    /// Serves a connection to its end.
    pub(super) async fn handle(self: Arc<Self>, stream: TcpStream) {
        let Some(stream) = self.handshake(stream).await else { return };
        let Ok(_permit) = Arc::clone(&self.open).try_acquire_owned() else {
            self.metrics.refuse("too-many");
            tracing::warn!(limit = self.limits.connections, "too many connections: a new one was closed");
            return;
        };
        let (_, session) = stream.get_ref();
        // The verifier let nobody through without an identity of the mesh.
        let Ok(peer) = peer_id(session.peer_certificates().unwrap_or_default()) else { return };
        let http2 = session.alpn_protocol() == Some(HTTP2);
        let _open = Counted::new(&self.metrics.connections);
        self.serve(stream, Peer(peer), http2).await;
    }

    async fn handshake(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let slot = self.handshakes.begin();
        let handshake = async {
            stream.set_nodelay(true)?;
            self.acceptor.accept(stream).await
        };
        let refused = tokio::select! {
            result = timeout(self.limits.handshake_timeout, handshake) => match result {
                Ok(Ok(stream)) => return Some(stream),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a TLS handshake failed");
                    "handshake-failed"
                }
                Err(_) => "handshake-timeout",
            },
            () = slot.displaced.cancelled() => "handshake-displaced",
            () = self.draining.cancelled() => "draining",
        };
        self.metrics.refuse(refused);
        None
    }

    async fn serve(&self, stream: TlsStream<TcpStream>, peer: Peer, http2: bool) {
        let activity = Activity::new();
        let service = service_fn(|request: Request<Incoming>| {
            let (router, peer, active) = (self.router.clone(), peer.clone(), activity.begin());
            async move {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(peer);
                let response: Response = router.oneshot(request).await?;
                Ok::<_, Infallible>(response.map(|body| Holding::new(body, active)))
            }
        });
        let io = TokioIo::new(StallGuard::new(stream, self.limits.stall_timeout));
        let builder = builder(&self.limits, http2);
        let mut connection = pin!(builder.serve_connection(io, service));
        let told_to_go = async {
            tokio::select! {
                () = self.draining.cancelled() => {}
                () = activity.idle_for(self.limits.idle_timeout) => {}
            }
        };
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = told_to_go => {
                connection.as_mut().graceful_shutdown();
                // A peer that has not even begun to speak HTTP never acknowledges it.
                tokio::select! {
                    result = connection => result,
                    () = activity.idle_for(self.limits.linger_timeout) => Ok(()),
                }
            }
        };
        if let Err(error) = result {
            tracing::debug!(error = &*error, peer = %peer.0, "a connection ended early");
        }
    }
}

/// The protocol is known from the handshake, so nothing waits for a first byte to tell it.
fn builder(limits: &Limits, http2: bool) -> auto::Builder<TokioExecutor> {
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = if http2 { builder.http2_only() } else { builder.http1_only() };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.header_bytes.max(MIN_BUFFER))
        .max_headers(limits.header_fields);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(limits.streams)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(LOCAL_RESETS);
    builder
}

/// The handshakes under way, oldest first.
#[derive(Debug)]
pub struct Handshakes {
    limit: usize,
    slots: Arc<Mutex<Slots>>,
}

#[derive(Debug, Default)]
struct Slots {
    next: u64,
    taken: BTreeMap<u64, CancellationToken>,
}

impl Handshakes {
    /// At most so many at the same time.
    pub fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), slots: Arc::default() }
    }

    /// Takes a slot. If all are taken the oldest handshake loses its own: peers that mean it need milliseconds, so that those
    /// who connect and say nothing are always the oldest, and cannot keep others out.
    pub fn begin(&self) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        while slots.taken.len() >= self.limit
            && let Some((_, oldest)) = slots.taken.pop_first()
        {
            oldest.cancel();
        }
        let (number, displaced) = (slots.next, CancellationToken::new());
        slots.next += 1;
        slots.taken.insert(number, displaced.clone());
        Slot { number, displaced, slots: Arc::clone(&self.slots) }
    }
}

/// A handshake's place, given back when it is dropped.
#[derive(Debug)]
pub struct Slot {
    number: u64,
    /// Fires when the handshake must be given up.
    pub displaced: CancellationToken,
    slots: Arc<Mutex<Slots>>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).taken.remove(&self.number);
    }
}

/// Whether a connection has requests, and since when it has none. Two atomic operations a request: nobody is woken.
#[derive(Clone, Debug)]
pub struct Activity(Arc<Active>);

#[derive(Debug)]
struct Active {
    start: Instant,
    requests: AtomicUsize,
    /// Nanoseconds from `start` to the end of the last request.
    ended: AtomicU64,
}

impl Activity {
    /// A connection without a request yet.
    #[expect(clippy::new_without_default, reason = "the time it starts counts: a default would promise a fixed value")]
    pub fn new() -> Self {
        Self(Arc::new(Active { start: Instant::now(), requests: AtomicUsize::new(0), ended: AtomicU64::new(0) }))
    }

    /// Counts a request until the guard is dropped.
    pub fn begin(&self) -> Answering {
        self.0.requests.fetch_add(1, SeqCst);
        Answering(Arc::clone(&self.0))
    }

    /// Ends when there was no request for `timeout`, counted from now at the earliest: whoever asks because something has
    /// just been said to the peer gives it that time to answer.
    pub fn idle_for(&self, timeout: Duration) -> impl Future<Output = ()> + use<> {
        let (active, now) = (Arc::clone(&self.0), Instant::now());
        async move {
            loop {
                let ended = now.max(active.start + Duration::from_nanos(active.ended.load(SeqCst)));
                // While there are requests, none of them can have ended long enough ago before this time has passed.
                let busy = active.requests.load(SeqCst) > 0;
                let due = if busy { Instant::now() + timeout } else { ended + timeout };
                if !busy && Instant::now() >= due {
                    return;
                }
                sleep_until(due).await;
            }
        }
    }
}

/// A request that is being answered, down to the last byte of its answer.
#[derive(Debug)]
pub struct Answering(Arc<Active>);

impl Drop for Answering {
    fn drop(&mut self) {
        let ended = u64::try_from(self.0.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0.ended.store(ended, SeqCst);
        self.0.requests.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_handshake_gives_way() {
        let handshakes = Handshakes::new(2);
        let (first, second) = (handshakes.begin(), handshakes.begin());
        assert!(!first.displaced.is_cancelled());
        let third = handshakes.begin();
        assert!(first.displaced.is_cancelled());
        drop(third);
        let _fourth = handshakes.begin();
        assert!(!second.displaced.is_cancelled(), "a finished handshake frees its slot");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_when_its_last_answer_is_sent_and_not_before() {
        let (activity, start) = (Activity::new(), Instant::now());
        let (first, second) = (activity.begin(), activity.begin());
        let idle = tokio::spawn(activity.idle_for(Duration::from_secs(10)));
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(first);
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(second);
        idle.await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 130);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_has_long_been_idle_is_given_the_whole_time_from_now() {
        let activity = Activity::new();
        drop(activity.begin());
        tokio::time::sleep(Duration::from_secs(60)).await;
        let start = Instant::now();
        activity.idle_for(Duration::from_secs(10)).await;
        assert_eq!(start.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_never_asks_is_idle() {
        let start = Instant::now();
        Activity::new().idle_for(Duration::from_secs(10)).await;
        assert_eq!(start.elapsed().as_secs(), 10);
    }
}
