//! What every request passes before and after its handler.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, Method, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt as _, Limited};
use runtime::{telemetry::panic_message, trace::TraceContext};
use tokio::{sync::Semaphore, time::Instant};
use tracing::Instrument as _;

use super::{
    Limits, Peer,
    holding::{Counted, Holding},
    metrics::{CLIENT_LEFT, RequestLabels, RouteLabels, ServerMetrics, method_label},
};
use crate::{
    health::Health,
    problem::{PAYLOAD_TOO_LARGE, Problem, ProblemType, REQUEST_TIMEOUT, UNAVAILABLE},
};

/// The header that carries the trace.
const TRACEPARENT: &str = "traceparent";

/// What a request without a matching route is counted as.
const NO_ROUTE: &str = "none";

/// Puts the layers around a service's router. The last one added is the first to see a request.
pub(super) fn wrap(router: Router, limits: Limits, health: Health, metrics: &ServerMetrics) -> Router {
    let admission = Admission { permits: Arc::new(Semaphore::new(limits.requests)) };
    router
        .layer(middleware::from_fn(catch_panics))
        .layer(middleware::from_fn_with_state(limits, bound))
        .layer(middleware::from_fn_with_state(health, prepare))
        .layer(middleware::from_fn_with_state(admission, admit))
        .layer(middleware::from_fn(document_rejections))
        .layer(middleware::from_fn_with_state(Observe::aloud(metrics), observe))
}

/// Whether a request deserves a log line beside its metrics.
#[derive(Clone)]
pub(super) struct Observe {
    metrics: ServerMetrics,
    level: tracing::Level,
}

impl Observe {
    fn aloud(metrics: &ServerMetrics) -> Self {
        Self { metrics: metrics.clone(), level: tracing::Level::INFO }
    }

    /// For what is asked every second.
    pub(super) fn quietly(metrics: &ServerMetrics) -> Self {
        Self { metrics: metrics.clone(), level: tracing::Level::DEBUG }
    }
}

/// Continues or starts the trace, counts, and logs. The path is logged without its query, which may hold what is private.
pub(super) async fn observe(State(observe): State<Observe>, mut request: Request, next: Next) -> Response {
    let trace = received_trace(request.headers()).map_or_else(TraceContext::new, TraceContext::child);
    request.extensions_mut().insert(trace);
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or(NO_ROUTE, MatchedPath::as_str).to_owned();
    let span = tracing::info_span!(
        "request",
        trace_id = trace.trace_id(),
        span_id = trace.span_id(),
        method = method.as_str(),
        path = request.uri().path(),
        route,
        peer = request.extensions().get::<Peer>().map(|peer| tracing::field::display(&peer.0)),
    );
    let mut observation = Observation::begin(observe, &method, route, span.clone());
    let response = trace.scope(next.run(request)).instrument(span).await;
    observation.status = response.status();
    response
}

/// `None` when there is no trace context, or more than one.
fn received_trace(headers: &HeaderMap) -> Option<TraceContext> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    TraceContext::parse(value.to_str().ok()?)
}

/// A request under way. It is told when dropped, so that one whose client left, and whose future was dropped with it, counts as well.
struct Observation {
    observe: Observe,
    labels: RouteLabels,
    status: StatusCode,
    start: Instant,
    span: tracing::Span,
    _in_flight: Counted,
}

impl Observation {
    fn begin(observe: Observe, method: &Method, route: String, span: tracing::Span) -> Self {
        let _in_flight = Counted::new(&observe.metrics.in_flight);
        let labels = RouteLabels { method: method_label(method), route };
        Self { observe, labels, status: CLIENT_LEFT, start: Instant::now(), span, _in_flight }
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        let Self { observe: Observe { metrics, level }, labels, status, start, .. } = self;
        let (elapsed, status) = (start.elapsed(), status.as_u16());
        metrics.duration.get_or_create(labels).observe(elapsed.as_secs_f64());
        metrics
            .requests
            .get_or_create(&RequestLabels { method: labels.method, route: labels.route.clone(), status })
            .inc();
        let _span = self.span.enter();
        let duration_ms = elapsed.as_secs_f64() * 1e3;
        if *level == tracing::Level::INFO {
            tracing::info!(status, duration_ms, "answered");
        } else {
            tracing::debug!(status, duration_ms, "answered");
        }
    }
}

/// Gives every rejection that is not ours, such as the router's and axum's own, the form of a problem. Answers in a media type
/// of their own choice (a page, an OAuth error) pass.
pub(super) async fn document_rejections(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let untyped =
        response.headers().get(header::CONTENT_TYPE).is_none_or(|value| value.as_bytes().starts_with(b"text/plain"));
    if !(is_error && untyped) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let detail = match status {
        StatusCode::NOT_FOUND => format!("There is nothing at {path}."),
        StatusCode::METHOD_NOT_ALLOWED => format!("{method} is not possible at {path}; `Allow` lists what is."),
        _ if status.is_client_error() => text(body).await.unwrap_or_else(|| status.to_string()),
        _ => "The service failed.".to_owned(),
    };
    let kind = ProblemType::of_status(status);
    let (document, body) = kind.detail(detail).into_response().into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.extend(document.headers);
    parts.status = document.status;
    Response::from_parts(parts, body)
}

async fn text(body: Body) -> Option<String> {
    const MAX: usize = 1024;
    let bytes = Limited::new(body, MAX).collect().await.ok()?.to_bytes();
    let text = String::from_utf8(bytes.to_vec()).ok()?;
    (!text.is_empty()).then_some(text)
}

/// How many requests may be answered at the same time.
#[derive(Clone)]
struct Admission {
    permits: Arc<Semaphore>,
}

/// Refuses what is too much at once: a refusal is cheap, a queue makes everybody late.
async fn admit(State(admission): State<Admission>, request: Request, next: Next) -> Response {
    match admission.permits.try_acquire_owned() {
        Ok(permit) => next.run(request).await.map(|body| Body::new(Holding::new(body, permit))),
        Err(_) => UNAVAILABLE
            .detail("Too many requests are being answered at the moment.")
            .retry_after(Duration::from_secs(1))
            .into_response(),
    }
}

/// Answers in place of the handlers until what they need is there. Whoever heeds `/readyz` sends nothing before.
async fn prepare(State(health): State<Health>, request: Request, next: Next) -> Response {
    match health.awaited() {
        None => next.run(request).await,
        Some(waiting) => UNAVAILABLE
            .detail(format!("The service is starting: {waiting}."))
            .retry_after(Duration::from_secs(1))
            .into_response(),
    }
}

/// Bounds the body's size, declared or not, and the time until the answer begins.
async fn bound(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    if request.body().size_hint().lower() > limits.body_bytes as u64 {
        return too_large(&limits);
    }
    let arrived = Arc::new(AtomicBool::new(request.body().is_end_stream()));
    let request = request
        .map(|body| Body::new(Arriving { body: Limited::new(body, limits.body_bytes), arrived: Arc::clone(&arrived) }));
    match tokio::time::timeout(limits.request_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) if arrived.load(Ordering::Relaxed) => UNAVAILABLE
            .detail(format!("The service found no answer within {} s.", limits.request_timeout.as_secs_f64()))
            .retry_after(Duration::from_secs(1))
            .into_response(),
        Err(_) => REQUEST_TIMEOUT
            .detail(format!("The body did not arrive within {} s.", limits.request_timeout.as_secs_f64()))
            .into_response(),
    }
}

fn too_large(limits: &Limits) -> Response {
    PAYLOAD_TOO_LARGE.detail(format!("The body may have {} bytes.", limits.body_bytes)).into_response()
}

/// A request's body that tells when it is complete.
struct Arriving {
    body: Limited<Body>,
    arrived: Arc<AtomicBool>,
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = <Limited<Body> as http_body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if matches!(frame, Poll::Ready(None)) || self.body.is_end_stream() {
            self.arrived.store(true, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Turns a panic into a 500; the process and its other requests go on.
async fn catch_panics(request: Request, next: Next) -> Response {
    AssertUnwindSafe(next.run(request)).catch_unwind().await.unwrap_or_else(|panic| {
        let message = panic_message(&*panic).to_owned();
        Problem::internal(format!("a handler panicked: {message}")).into_response()
    })
}
