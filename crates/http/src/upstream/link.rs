//! One way to one address: its warm connections, what a request costs there, and sending it.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version, header::HOST, uri::Scheme};
use hyper::{body::Incoming, client::conn::TrySendError};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use super::BoxError;
use super::{
    Config, Error, Payload,
    balance::PeakEwma,
    connect::{self, Http1, Http2, Target, Workload},
    error::Reached,
};

/// HTTP/1.1 connections without a request that are kept.
const MAX_IDLE: usize = 64;
/// How long they are kept. Shorter than what servers commonly allow, so that the server is not the one to close.
const MAX_IDLE_TIME: Duration = Duration::from_secs(15);
/// What an answer counts for at least that says "not now": an instance must not look fast because it refuses quickly.
const REFUSAL: Duration = Duration::from_secs(1);

/// One way to one address.
pub(super) struct Link {
    pub(super) address: SocketAddr,
    pub(super) transport: Transport,
    pub(super) latency: PeakEwma,
    /// Asks for a health check at once.
    pub(super) doubted: Notify,
    service: String,
    connect_timeout: Duration,
    max_in_flight: usize,
    in_flight: AtomicUsize,
}

/// The connections of a link.
pub(super) enum Transport {
    /// One that carries all requests, while there is one.
    Http2 { workload: Arc<Workload>, sender: ArcSwapOption<Http2> },
    /// Those that wait for a request, the one used last at the end.
    Http1 { idle: Mutex<Vec<(Http1, Instant)>> },
}

impl Link {
    pub(super) fn new(address: SocketAddr, config: &Config, target: &Target) -> Self {
        Self {
            address,
            transport: match target {
                Target::Mesh(workload) => {
                    Transport::Http2 { workload: Arc::clone(workload), sender: ArcSwapOption::empty() }
                }
                Target::Plain => Transport::Http1 { idle: Mutex::default() },
            },
            latency: PeakEwma::new(),
            doubted: Notify::new(),
            service: config.service.clone(),
            connect_timeout: config.limits.connect_timeout,
            max_in_flight: config.limits.max_in_flight,
            in_flight: AtomicUsize::new(0),
        }
    }

    /// What the next request costs here; nothing when there is no room for it.
    pub(super) fn cost(&self) -> Option<f64> {
        let in_flight = self.in_flight.load(Relaxed);
        (in_flight < self.max_in_flight).then(|| self.latency.cost(in_flight))
    }

    /// A place for one request, if there is one left.
    pub(super) fn lease(self: &Arc<Self>) -> Option<Lease> {
        let before = self.in_flight.fetch_add(1, Relaxed);
        let lease = Lease { link: Arc::clone(self), started: Instant::now(), http1: None };
        (before < self.max_in_flight).then_some(lease)
    }

    /// Sends one request. What it needs for itself alone comes back with the response.
    pub(super) async fn send(
        &self,
        mut request: Request<Payload>,
    ) -> Result<(Response<Incoming>, Option<Http1>), Failure> {
        match &self.transport {
            Transport::Http2 { workload, sender } => {
                let Some(sender) = sender.load_full() else {
                    return Err(Failure::unsent("the connection has just ended", request));
                };
                address_http2(&mut request, workload);
                let Http2 { mut sender, written } = Http2::clone(&sender);
                let before = written.bytes();
                let response = sender.try_send_request(request).await;
                Ok((response.map_err(|failed| Failure::from_hyper(failed, written.bytes() > before))?, None))
            }
            Transport::Http1 { idle } => {
                let mut http1 = match timeout(self.connect_timeout, self.check_out(idle)).await {
                    Ok(Ok(http1)) => http1,
                    Ok(Err(error)) => return Err(Failure { doubtful: true, ..Failure::unsent(error, request) }),
                    Err(elapsed) => return Err(Failure { doubtful: true, ..Failure::unsent(elapsed, request) }),
                };
                address_http1(&mut request, self.address);
                let before = http1.written.bytes();
                let response = http1.sender.try_send_request(request).await;
                let left = http1.written.bytes() > before;
                Ok((response.map_err(|failed| Failure::from_hyper(failed, left))?, Some(http1)))
            }
        }
    }

    /// An HTTP/1.1 connection for one request: a warm one, or a new one.
    async fn check_out(&self, idle: &Mutex<Vec<(Http1, Instant)>>) -> Result<Http1, BoxError> {
        loop {
            let warm = lock(idle).pop();
            match warm {
                Some((mut http1, since)) => {
                    if since.elapsed() < MAX_IDLE_TIME && http1.sender.ready().await.is_ok() {
                        return Ok(http1);
                    }
                }
                None => {
                    let (http1, connection) = connect::plain(self.address).await?;
                    tokio::spawn(connection);
                    return Ok(http1);
                }
            }
        }
    }

    /// Keeps an HTTP/1.1 connection whose response has been read to its end.
    pub(super) fn check_in(&self, http1: Http1) {
        if let Transport::Http1 { idle } = &self.transport {
            let mut idle = lock(idle);
            idle.retain(|(http1, since)| !http1.sender.is_closed() && since.elapsed() < MAX_IDLE_TIME);
            if idle.len() < MAX_IDLE && !http1.sender.is_closed() {
                idle.push((http1, Instant::now()));
            }
        }
    }

    /// Closes what is idle; what is in flight ends by itself.
    pub(super) fn close(&self) {
        match &self.transport {
            Transport::Http2 { sender, .. } => sender.store(None),
            Transport::Http1 { idle } => lock(idle).clear(),
        }
    }
}

/// A request's place at a link. Dropping it gives the place back.
pub(super) struct Lease {
    link: Arc<Link>,
    started: Instant,
    /// The HTTP/1.1 connection that the request has for itself.
    http1: Option<Http1>,
}

impl Lease {
    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    pub(super) fn service(&self) -> &str {
        &self.link.service
    }

    /// Sends the request and waits for the head of the response, which says how fast the instance is.
    pub(super) async fn send(&mut self, request: Request<Payload>) -> Result<Response<Incoming>, Failure> {
        let (response, http1) = self.link.send(request).await?;
        let latency = self.started.elapsed();
        let refused = response.status() == StatusCode::SERVICE_UNAVAILABLE;
        self.link.latency.observe(if refused { latency.max(REFUSAL) } else { latency });
        self.http1 = http1;
        Ok(response)
    }

    /// The response has been read to its end.
    pub(super) fn complete(mut self) {
        if let Some(http1) = self.http1.take() {
            self.link.check_in(http1);
        }
    }

    /// The response did not come, or did not end, in time.
    pub(super) fn time_out(self) -> Error {
        let after = self.started.elapsed();
        self.link.latency.observe(after);
        Error::Timeout { service: self.link.service.clone(), after }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.link.in_flight.fetch_sub(1, Relaxed);
    }
}

/// Why an attempt got no response.
pub(super) struct Failure {
    pub(super) error: BoxError,
    pub(super) reached: Reached,
    /// The request, if it was not consumed.
    pub(super) request: Option<Box<Request<Payload>>>,
    /// No connection could be made: the address should be taken for down.
    pub(super) doubtful: bool,
}

impl Failure {
    fn unsent(error: impl Into<BoxError>, request: Request<Payload>) -> Self {
        Self { error: error.into(), reached: Reached::No, request: Some(Box::new(request)), doubtful: false }
    }

    /// `left` says whether anything at all was put on the wire since the request was handed over.
    fn from_hyper(mut failed: TrySendError<Request<Payload>>, left: bool) -> Self {
        let request = failed.take_message().map(Box::new);
        let error = failed.into_error();
        let reached = if request.is_some() || !left { Reached::No } else { Reached::from_error(&error) };
        Self { error: error.into(), reached, request, doubtful: false }
    }
}

fn address_http2(request: &mut Request<Payload>, workload: &Workload) {
    *request.version_mut() = Version::HTTP_2;
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    uri.scheme = Some(Scheme::HTTPS);
    uri.authority = Some(workload.authority.clone());
    // With all three parts there is nothing to be refused; without a path, the root is meant.
    *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
}

fn address_http1(request: &mut Request<Payload>, address: SocketAddr) {
    *request.version_mut() = Version::HTTP_11;
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map(Uri::from).unwrap_or_default();
    if !request.headers().contains_key(HOST)
        && let Ok(host) = HeaderValue::try_from(address.to_string())
    {
        request.headers_mut().insert(HOST, host);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
