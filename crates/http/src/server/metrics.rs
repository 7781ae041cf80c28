//! What the listener counts.

use http::{Method, StatusCode};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
};
use runtime::telemetry::Metrics;

/// The listener's metrics. Labels are bounded: a route is a template out of the router, a method one of the nine that are registered.
#[derive(Clone, Debug)]
pub(super) struct ServerMetrics {
    pub(super) requests: Family<RequestLabels, Counter>,
    pub(super) duration: Family<RouteLabels, Histogram>,
    pub(super) in_flight: Gauge,
    pub(super) connections: Gauge,
    pub(super) refused: Family<RefusedLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RequestLabels {
    pub(super) method: &'static str,
    pub(super) route: String,
    pub(super) status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RouteLabels {
    pub(super) method: &'static str,
    pub(super) route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RefusedLabels {
    pub(super) reason: &'static str,
}

impl ServerMetrics {
    pub(super) fn register(metrics: &Metrics) -> Self {
        let own = Self {
            requests: Family::default(),
            duration: Family::new_with_constructor(durations),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            refused: Family::default(),
        };
        metrics.register(|registry| {
            registry.register(
                "http_requests",
                "Requests answered; status 499 is a client that left first",
                own.requests.clone(),
            );
            registry.register(
                "http_request_duration_seconds",
                "From the end of a request's head to the beginning of its answer",
                own.duration.clone(),
            );
            registry.register("http_requests_in_flight", "Requests being answered", own.in_flight.clone());
            registry.register("http_connections", "Connections open", own.connections.clone());
            registry.register(
                "http_connections_refused",
                "Connections closed before their first request",
                own.refused.clone(),
            );
        });
        own
    }

    pub(super) fn refuse(&self, reason: &'static str) {
        self.refused.get_or_create(&RefusedLabels { reason }).inc();
    }
}

/// 1 ms to 16 s: a mesh call takes a few, a patient one is cut at 30.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// A method as label: clients may invent methods, labels must not grow with them.
pub(super) fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::CONNECT => "CONNECT",
        _ => "OTHER",
    }
}

/// What proxies log for a client that left before its answer. It is never sent.
pub(super) const CLIENT_LEFT: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => StatusCode::BAD_REQUEST,
};
