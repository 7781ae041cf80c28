//! What the service counts beyond its requests.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use runtime::telemetry::Metrics;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Grant {
    grant: &'static str,
}

/// The service's own counters.
#[derive(Clone, Debug)]
pub(crate) struct Counters {
    logins: Family<Outcome, Counter>,
    tokens: Family<Grant, Counter>,
}

impl Counters {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let own = Self { logins: Family::default(), tokens: Family::default() };
        metrics.register(|registry| {
            registry.register("identity_logins", "Passwords given on the sign-in page, by outcome", own.logins.clone());
            registry.register("identity_tokens_issued", "Access tokens issued, by grant type", own.tokens.clone());
        });
        own
    }

    pub(crate) fn login(&self, outcome: &'static str) {
        self.logins.get_or_create(&Outcome { outcome }).inc();
    }

    pub(crate) fn token(&self, grant: &'static str) {
        self.tokens.get_or_create(&Grant { grant }).inc();
    }
}
