//! One request from its head to the head of its response.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use auth::{Principal, refusals};
use berth_http::{
    problem::{self, Problem, ProblemType},
    server::Answering,
    upstream::{self, Payload},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version, header,
    uri::{Authority, PathAndQuery},
};
use hyper::body::Incoming;
use mesh::plan::{Plan, RouteAuth};
use prometheus_client::metrics::gauge::Gauge;
use runtime::trace::TraceContext;

use crate::{
    access_log::{AccessLog, Entry},
    body::{self, BodyFault, BodyLimits, Outgoing},
    headers,
    metrics::{GatewayMetrics, RouteMetrics},
    path,
    state::{Means, PlanError, Route, State},
    tokens::{self, Refusal},
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const TXN_TOKEN: HeaderName = HeaderName::from_static(auth::internal::HEADER);

/// The methods that are passed on, of those that are registered. Which of them a resource has, the service behind says.
const PASSED_ON: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

static HEADERS_TOO_LARGE: ProblemType =
    ProblemType::new("request-header-fields-too-large", 431, "The header is too large");

/// What HTTP/2 counts for a field besides its name and its value (RFC 9113, §6.5.2).
const FIELD_OVERHEAD: usize = 32;

/// The most that a body's deadline lies before its request's: long for a busy machine's timers, short for a client.
const LONGEST_LEAD: Duration = Duration::from_millis(250);

/// When a refused request is worth repeating.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The gateway as a function from requests to responses. Clones share everything.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    state: ArcSwap<State>,
    means: Means,
    log: AccessLog,
    unrouted: RouteMetrics,
    in_flight: Arc<InFlight>,
}

/// What is known of a request before it is read.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// The client's address.
    pub(crate) client: IpAddr,
    /// The same as a header value, made once per connection.
    pub(crate) forwarded_for: HeaderValue,
    /// Whether the length of the request's body was given in one way only.
    pub(crate) sound: bool,
    /// Keeps the connection from being idle.
    pub(crate) answering: Answering,
}

/// Where a request comes from.
struct Origin {
    client: IpAddr,
    forwarded_for: HeaderValue,
    sound: bool,
    /// Whether the client began the trace.
    continued: bool,
}

impl Gateway {
    /// Puts a plan into force: starts connecting to every instance in it.
    ///
    /// # Errors
    /// When the plan is not usable as it is.
    pub fn start(plan: Plan, means: Means, log: AccessLog) -> Result<Self, PlanError> {
        let state = State::start(plan, &means)?;
        let unrouted = means.metrics.of_route("");
        let in_flight = InFlight { count: AtomicUsize::new(0), gauge: means.metrics.in_flight.clone() };
        Ok(Self(Arc::new(Inner {
            state: ArcSwap::from_pointee(state),
            means,
            log,
            unrouted,
            in_flight: Arc::new(in_flight),
        })))
    }

    /// Puts another plan into force. Requests that have begun end under the old one.
    ///
    /// # Errors
    /// When it is not usable, or the keys of its changed issuer cannot be fetched. The old one stays in force then.
    pub async fn replace(&self, plan: Plan) -> Result<(), PlanError> {
        let state = self.state().replace(plan, &self.0.means).await?;
        self.0.state.store(Arc::new(state));
        Ok(())
    }

    /// Waits until every route has an instance that is up.
    pub async fn all_up(&self) {
        self.state().all_up().await;
    }

    /// The services with a route and without an instance that is up.
    #[must_use]
    pub fn unavailable(&self) -> Vec<String> {
        self.state().unavailable().into_iter().map(str::to_owned).collect()
    }

    pub(crate) fn state(&self) -> Arc<State> {
        self.0.state.load_full()
    }

    pub(crate) fn metrics(&self) -> &GatewayMetrics {
        &self.0.means.metrics
    }

    /// Answers one request.
    pub(crate) async fn answer(&self, request: Request<Incoming>, arrival: Arrival) -> Response<Outgoing> {
        let state = self.state();
        let (trace, continued) = trace(request.headers());
        let Arrival { client, forwarded_for, sound, answering } = arrival;
        let mut entry = Entry::begin(&self.0.log, &self.0.unrouted, &request, client, answering, trace);
        let Some(place) = Place::take(&self.0.in_flight, state.limits.requests) else {
            let problem =
                problem::UNAVAILABLE.detail("The gateway has more to do than it can.").retry_after(RETRY_AFTER);
            return refuse(&state, problem, entry).await;
        };
        entry.hold(place);
        let (head, body) = request.into_parts();
        let mut body = Some(body);
        let origin = Origin { client, forwarded_for, sound, continued };
        match self.forward(&state, head, &mut body, origin, &mut entry).await {
            Ok(mut response) => {
                headers::clean_response(response.headers_mut());
                state.advice.add(response.headers_mut());
                entry.answered(response.status());
                if http_body::Body::is_end_stream(response.body()) {
                    entry.complete();
                }
                response.map(|body| Outgoing::upstream(body, entry))
            }
            Err(problem) => {
                if let Some(unread) = body.filter(|_| sound) {
                    body::discard(unread).await;
                }
                let mut response = refuse(&state, *problem, entry).await;
                if !sound {
                    // Nobody knows where the next request on this connection begins.
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                response
            }
        }
    }

    async fn forward(
        &self,
        state: &State,
        mut head: http::request::Parts,
        body: &mut Option<Incoming>,
        origin: Origin,
        entry: &mut Entry,
    ) -> Result<Response<upstream::ResponseBody>, Box<Problem>> {
        check_size(&head.headers, &head.uri, state.limits.header_bytes)?;
        if !origin.sound {
            return Err(malformed("Content-Length and Transfer-Encoding must be one, once, and well-formed."));
        }
        let host = host(&head)?;
        if matches!(head.method, Method::CONNECT | Method::TRACE) {
            // CONNECT has no path at all.
            entry.asked(&host, head.uri.path());
            let detail = format!("{} is not possible here; `Allow` lists what is.", head.method);
            return Err(Box::new(problem::METHOD_NOT_ALLOWED.detail(detail).header(header::ALLOW, PASSED_ON)));
        }
        let path = path::normalise(head.uri.path()).map_err(|error| malformed(&error.to_string()))?;
        entry.asked(&host, &path);
        if let Some(requests) = &state.requests {
            requests.check(origin.client).map_err(|wait| self.too_many(wait))?;
        }
        let route =
            state.route(&path).ok_or_else(|| problem::NOT_FOUND.detail("Nothing is served under this path."))?;
        entry.routed(&route.prefix, &route.service, &route.metrics);
        let principal = match self.authenticate(state, route, &head.headers).await {
            Ok(principal) => principal,
            Err(refusal) => {
                self.note(refusal, &head.method, route, origin.client);
                return Err(self.challenge(state, refusal, origin.client));
            }
        };
        entry.known(&principal);

        let target = target(&path, &head.uri)?;
        let trace_state = origin.continued.then(|| head.headers.remove(TRACESTATE)).flatten();
        headers::clean_request(&mut head.headers, route.credentials);
        let ours = &mut head.headers;
        ours.insert(X_FORWARDED_FOR, origin.forwarded_for);
        ours.insert(X_FORWARDED_PROTO, HeaderValue::from_static("https"));
        ours.insert(X_FORWARDED_HOST, host.value.clone());
        ours.insert(TRACEPARENT, visible(entry.trace().to_string()));
        if let Some(trace_state) = trace_state {
            ours.insert(TRACESTATE, trace_state);
        }
        match &route.tokens {
            Some(tokens) => {
                let token = tokens.token(&principal).map_err(Problem::internal)?;
                ours.insert(TXN_TOKEN, token);
            }
            // A foreign server finds its own name where it expects it.
            None => {
                ours.insert(header::HOST, host.value);
            }
        }

        let deadline = entry.started() + state.limits.total_timeout;
        let limits = BodyLimits {
            bytes: state.limits.body_bytes,
            pause: state.limits.header_timeout,
            deadline: deadline - lead(state.limits.total_timeout),
        };
        let (payload, fault) = body::take(body, limits).await.map_err(|fault| body_problem(fault, limits))?;
        let mut outgoing: Request<Payload> = Request::new(payload);
        *outgoing.method_mut() = head.method;
        *outgoing.uri_mut() = target;
        *outgoing.headers_mut() = head.headers;
        route.upstream.send(outgoing, deadline).await.map_err(|error| {
            // What looks like the instance's failure may be the client's.
            fault.get().map_or_else(|| Box::new(error.into()), |fault| body_problem(fault, limits))
        })
    }

    async fn authenticate(&self, state: &State, route: &Route, headers: &HeaderMap) -> Result<Arc<Principal>, Refusal> {
        if route.auth == RouteAuth::None {
            return Ok(Arc::clone(&state.anonymous));
        }
        match tokens::bearer(headers)? {
            Some(token) => state.issuer.verifier.verify(token).await.map_err(Refusal::Token),
            None if route.auth == RouteAuth::Optional => Ok(Arc::clone(&state.anonymous)),
            None => Err(Refusal::Absent),
        }
    }

    /// Notes a refusal for the audit, by the route and not by the path, of which there are as many as a caller likes.
    fn note(&self, refusal: Refusal, method: &Method, route: &Route, client: IpAddr) {
        self.0.means.refusals.note(refusals::Refusal {
            principal: None,
            roles: BTreeSet::new(),
            action: "authenticate".to_owned(),
            resource: format!("{method} {}", route.prefix),
            reason: refusal.reason().to_owned(),
            client: Some(client),
        });
    }

    /// The answer to a refusal; to whoever is refused too often, another.
    fn challenge(&self, state: &State, refusal: Refusal, client: IpAddr) -> Box<Problem> {
        self.metrics().rejected_token(refusal.reason());
        let problem = refusal.problem(&state.plan.name);
        if problem.status() == http::StatusCode::UNAUTHORIZED
            && let Err(wait) = state.failures.check(client)
        {
            return self.too_many(wait);
        }
        Box::new(problem)
    }

    fn too_many(&self, wait: Duration) -> Box<Problem> {
        self.metrics().rate_limited.inc();
        Box::new(problem::TOO_MANY_REQUESTS.detail("Too many requests of this client; slow down.").retry_after(wait))
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("unavailable", &self.unavailable()).finish_non_exhaustive()
    }
}

/// The requests in flight.
#[derive(Debug)]
struct InFlight {
    count: AtomicUsize,
    gauge: Gauge,
}

/// A request's place among them, until its response is sent.
#[derive(Debug)]
pub(crate) struct Place(Arc<InFlight>);

impl Place {
    fn take(in_flight: &Arc<InFlight>, most: usize) -> Option<Self> {
        let before = in_flight.count.fetch_add(1, Relaxed);
        in_flight.gauge.inc();
        let place = Self(Arc::clone(in_flight));
        (before < most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Relaxed);
        self.0.gauge.dec();
    }
}

/// The answer to a request that goes no further.
async fn refuse(state: &State, problem: Problem, mut entry: Entry) -> Response<Outgoing> {
    let mut response = entry.trace().scope(async { problem.to_response() }).await;
    state.advice.add(response.headers_mut());
    entry.answered(response.status());
    entry.refused(problem.kind().slug());
    response.map(|bytes| Outgoing::own(bytes, entry))
}

fn malformed(detail: &str) -> Box<Problem> {
    Box::new(problem::MALFORMED_REQUEST.detail(detail))
}

/// How long before the whole request its body must have come. With one deadline for both it would be chance whether the
/// client hears that it was too slow, or that the instance was.
fn lead(total_timeout: Duration) -> Duration {
    LONGEST_LEAD.min(total_timeout / 4)
}

/// The trace the request belongs to, and whether its sender began it.
fn trace(headers: &HeaderMap) -> (TraceContext, bool) {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let only = values.next().filter(|_| values.next().is_none());
    match only.and_then(|value| value.to_str().ok()).and_then(TraceContext::parse) {
        Some(theirs) => (theirs.child(), true),
        None => (TraceContext::new(), false),
    }
}

/// Bounds the head; the protocol's own bound, which has no problem document, is higher. Counted as the instance behind
/// will count it, so that what passes here is not too large there.
fn check_size(headers: &HeaderMap, uri: &Uri, most: usize) -> Result<(), Box<Problem>> {
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    let target = authority + uri.path().len() + uri.query().map_or(0, str::len);
    let fields: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD).sum();
    if target + fields > most {
        return Err(Box::new(HEADERS_TOO_LARGE.detail(format!("The header must not be larger than {most} bytes."))));
    }
    Ok(())
}

/// The host a request is for.
struct Host {
    value: HeaderValue,
}

impl std::ops::Deref for Host {
    type Target = str;

    fn deref(&self) -> &str {
        self.value.to_str().unwrap_or_default()
    }
}

/// Every request names its host exactly once (RFC 9112, §3.2; RFC 9113, §8.3.1).
fn host(head: &http::request::Parts) -> Result<Host, Box<Problem>> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let (field, more) = (hosts.next(), hosts.next().is_some());
    if more {
        return Err(malformed("There must be one Host, not several."));
    }
    let authority = head.uri.authority().map(Authority::as_str);
    let field = match (field, authority) {
        // HTTP/2 has `:authority` for it, and may have both.
        (None, Some(authority)) if head.version == Version::HTTP_2 => visible(authority),
        (None, _) => return Err(malformed("There must be a Host.")),
        (Some(field), _) => field.clone(),
    };
    let text = field.to_str().ok().filter(|text| !text.contains('@'));
    let valid = text.and_then(|text| text.parse::<Authority>().ok());
    let Some(valid) = valid else { return Err(malformed("The Host is malformed.")) };
    if authority.is_some_and(|authority| !authority.eq_ignore_ascii_case(valid.as_str())) {
        return Err(malformed("The Host and the authority of the request's target differ."));
    }
    Ok(Host { value: field })
}

/// What is forwarded is what was matched, with the query as it came.
fn target(path: &str, uri: &Uri) -> Result<Uri, Box<Problem>> {
    if path == uri.path()
        && let Some(same) = uri.path_and_query()
    {
        return Ok(same.clone().into());
    }
    let target = uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let target: PathAndQuery = target.parse().map_err(|_| malformed("The target of the request is malformed."))?;
    Ok(target.into())
}

fn body_problem(fault: BodyFault, limits: BodyLimits) -> Box<Problem> {
    Box::new(match fault {
        BodyFault::TooLarge => {
            problem::PAYLOAD_TOO_LARGE.detail(format!("The body must not be larger than {} bytes.", limits.bytes))
        }
        BodyFault::TooSlow => problem::REQUEST_TIMEOUT.detail("The body did not arrive in time."),
        BodyFault::Broken => problem::MALFORMED_REQUEST.detail("The body is incomplete or malformed."),
    })
}

/// A text that is known to be visible ASCII.
fn visible(text: impl TryInto<HeaderValue>) -> HeaderValue {
    text.try_into().unwrap_or(HeaderValue::from_static(""))
}
