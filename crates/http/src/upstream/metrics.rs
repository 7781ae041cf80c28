use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use runtime::telemetry::Metrics;

/// What upstreams count, registered once per process and shared by all of them.
#[derive(Clone, Debug, Default)]
pub struct UpstreamMetrics {
    attempts: Family<Attempt, Counter>,
    retries: Family<Retry, Counter>,
    links: Family<Links, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Attempt {
    service: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Retry {
    service: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Links {
    service: String,
    state: &'static str,
}

/// How one attempt ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    Answered,
    Failed,
    Timeout,
    Refused,
}

/// Why a request was sent again.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reason {
    Unsent,
    Failed,
    Unavailable,
}

impl UpstreamMetrics {
    /// Registers `upstream_attempts_total`, `upstream_retries_total` and `upstream_links`.
    #[must_use]
    pub fn register(metrics: &Metrics) -> Self {
        let this = Self::default();
        metrics.register(|registry| {
            registry.register("upstream_attempts", "Requests sent to instances, by outcome", this.attempts.clone());
            registry.register("upstream_retries", "Requests sent again, by reason", this.retries.clone());
            registry.register("upstream_links", "Ways to instances, by state", this.links.clone());
        });
        this
    }

    pub(super) fn of_service(&self, service: &str) -> ServiceMetrics {
        let service = || service.to_owned();
        let attempt = |outcome| self.attempts.get_or_create(&Attempt { service: service(), outcome }).clone();
        let retry = |reason| self.retries.get_or_create(&Retry { service: service(), reason }).clone();
        let state = |state| self.links.get_or_create(&Links { service: service(), state }).clone();
        ServiceMetrics {
            answered: attempt("answered"),
            failed: attempt("failed"),
            timeout: attempt("timeout"),
            refused: attempt("refused"),
            retried_unsent: retry("unsent"),
            retried_failed: retry("failed"),
            retried_unavailable: retry("unavailable"),
            connecting: state("connecting"),
            up: state("up"),
            down: state("down"),
        }
    }
}

/// The metrics of one service, looked up once.
#[derive(Clone, Debug)]
pub(super) struct ServiceMetrics {
    answered: Counter,
    failed: Counter,
    timeout: Counter,
    refused: Counter,
    retried_unsent: Counter,
    retried_failed: Counter,
    retried_unavailable: Counter,
    pub(super) connecting: Gauge,
    pub(super) up: Gauge,
    pub(super) down: Gauge,
}

impl ServiceMetrics {
    pub(super) fn attempt(&self, outcome: Outcome) {
        match outcome {
            Outcome::Answered => self.answered.inc(),
            Outcome::Failed => self.failed.inc(),
            Outcome::Timeout => self.timeout.inc(),
            Outcome::Refused => self.refused.inc(),
        };
    }

    pub(super) fn retry(&self, reason: Reason) {
        match reason {
            Reason::Unsent => self.retried_unsent.inc(),
            Reason::Failed => self.retried_failed.inc(),
            Reason::Unavailable => self.retried_unavailable.inc(),
        };
    }
}
