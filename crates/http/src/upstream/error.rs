use std::time::Duration;

use super::BoxError;
use crate::problem::{self, Problem};

/// When a failed request is worth repeating. An instance that died is replaced about that fast.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a request got no response.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No instance is up.
    #[error("no instance of {service} is up")]
    Unavailable {
        /// The service.
        service: String,
    },
    /// Every instance that is up has as many requests in flight as it may have.
    #[error("every instance of {service} is at its limit of requests in flight")]
    Overloaded {
        /// The service.
        service: String,
    },
    /// The response did not come, or did not end, in time.
    #[error("no response of {service} within {after:?}")]
    Timeout {
        /// The service.
        service: String,
        /// How long was waited.
        after: Duration,
    },
    /// The connection failed, or what came over it was no HTTP.
    #[error("the request to {service} failed: {source}")]
    Failed {
        /// The service.
        service: String,
        /// What happened.
        source: BoxError,
    },
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let (kind, detail) = match &error {
            Error::Unavailable { service } => {
                (&problem::UNAVAILABLE, format!("No instance of {service} can answer just now."))
            }
            Error::Overloaded { service } => (&problem::UNAVAILABLE, format!("{service} has more to do than it can.")),
            Error::Timeout { service, .. } => {
                (&problem::UPSTREAM_TIMEOUT, format!("{service} did not answer in time."))
            }
            Error::Failed { service, .. } => (&problem::UPSTREAM_FAILED, format!("{service} failed to answer.")),
        };
        kind.detail(detail).retry_after(RETRY_AFTER).caused_by(error)
    }
}

/// Whether an instance may have seen a request that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// It provably has not: sending it again cannot do anything twice.
    No,
    /// Nobody knows.
    Maybe,
}

impl Reached {
    /// What can be told from hyper's error about a request that had been handed to a connection.
    pub(super) fn from_error(error: &(dyn std::error::Error + 'static)) -> Self {
        let h2 = std::iter::successors(Some(error), |error| error.source())
            .find_map(|error| error.downcast_ref::<h2::Error>());
        match h2 {
            // RFC 9113, §8.7: REFUSED_STREAM, and a GOAWAY that names a lower stream, guarantee that nothing was processed.
            // A stream that GOAWAY does cover fails with another error, should the connection end before it is answered.
            Some(h2) if h2.is_remote() && (h2.is_go_away() || h2.reason() == Some(h2::Reason::REFUSED_STREAM)) => {
                Self::No
            }
            _ => Self::Maybe,
        }
    }
}
