//! What the gateway counts, besides what upstreams count.

use std::{fmt, sync::Arc, time::Duration};

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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// The gateway's metrics.
#[derive(Clone)]
pub struct GatewayMetrics {
    requests: Family<Request, Counter>,
    durations: Family<Route, Histogram, fn() -> Histogram>,
    rejected_tokens: Family<Reason, Counter>,
    reloads: Family<Reason, Counter>,
    pub(crate) connections: Gauge,
    pub(crate) refused_handshakes: Counter,
    pub(crate) in_flight: Gauge,
    pub(crate) rate_limited: Counter,
    pub(crate) dropped_lines: Counter,
}

impl GatewayMetrics {
    /// Registers them all.
    #[must_use]
    pub fn register(metrics: &Metrics) -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(exponential_buckets(0.000_5, 2.0, 16));
        let this = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(histogram),
            rejected_tokens: Family::default(),
            reloads: Family::default(),
            connections: Gauge::default(),
            refused_handshakes: Counter::default(),
            in_flight: Gauge::default(),
            rate_limited: Counter::default(),
            dropped_lines: Counter::default(),
        };
        metrics.register(|registry| {
            let registry = registry.sub_registry_with_prefix("gateway");
            registry.register("requests", "Requests by route and status", this.requests.clone());
            registry.register(
                "request_duration_seconds",
                "From the head of a request to the end of its response",
                this.durations.clone(),
            );
            registry.register(
                "rejected_tokens",
                "Access tokens that were not accepted, by reason",
                this.rejected_tokens.clone(),
            );
            registry.register("reloads", "Reloads of configuration and credentials, by outcome", this.reloads.clone());
            registry.register("connections", "Open public connections", this.connections.clone());
            registry.register(
                "refused_handshakes",
                "TLS handshakes that failed or took too long",
                this.refused_handshakes.clone(),
            );
            registry.register("in_flight_requests", "Requests being answered", this.in_flight.clone());
            registry.register(
                "rate_limited",
                "Requests refused because of their client's rate",
                this.rate_limited.clone(),
            );
            registry.register(
                "dropped_log_lines",
                "Access log lines dropped because stdout was too slow",
                this.dropped_lines.clone(),
            );
        });
        this
    }

    /// The metrics of one route, looked up once.
    pub(crate) fn of_route(&self, route: &str) -> RouteMetrics {
        let duration = self.durations.get_or_create(&Route { route: route.to_owned() }).clone();
        let usual = [200, 201, 202, 204, 304, 400, 401, 403, 404, 409, 412, 422, 429, 500, 502, 503, 504];
        let requests = usual.map(|status| (status, self.count(route, status))).to_vec();
        RouteMetrics(Arc::new(Resolved { route: route.to_owned(), duration, requests, all: self.clone() }))
    }

    fn count(&self, route: &str, status: u16) -> Counter {
        self.requests.get_or_create(&Request { route: route.to_owned(), status }).clone()
    }

    pub(crate) fn rejected_token(&self, reason: &'static str) {
        self.rejected_tokens.get_or_create(&Reason { reason }).inc();
    }

    pub(crate) fn reloaded(&self, outcome: &'static str) {
        self.reloads.get_or_create(&Reason { reason: outcome }).inc();
    }
}

impl fmt::Debug for GatewayMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayMetrics").finish_non_exhaustive()
    }
}

/// The metrics of one route.
#[derive(Clone)]
pub(crate) struct RouteMetrics(Arc<Resolved>);

struct Resolved {
    route: String,
    duration: Histogram,
    /// The counters of the statuses that are to be expected, so that they need not be looked up by name.
    requests: Vec<(u16, Counter)>,
    all: GatewayMetrics,
}

impl RouteMetrics {
    pub(crate) fn observe(&self, status: u16, took: Duration) {
        let Resolved { route, duration, requests, all } = &*self.0;
        duration.observe(took.as_secs_f64());
        match requests.iter().find(|(usual, _)| *usual == status) {
            Some((_, counter)) => counter.inc(),
            None => all.count(route, status).inc(),
        };
    }
}
