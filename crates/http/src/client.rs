//! Calling another service of the mesh: a request known as a whole, an answer read as a whole, both bounded.
//!
//! Instances come from the settings (`BERTH_PEER_<SERVICE>`); choosing among them, trying again and giving up is the
//! [upstream](crate::upstream)'s. The caller adds the token that says on whose behalf it calls.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use runtime::{settings::Settings, trace::TraceContext};
use tls::{Identity, InvalidSpiffeId, SpiffeId};
use tokio::time::Instant;

use crate::{
    problem::Problem,
    upstream::{self, BoxError, Config, HealthCheck, Payload, Protocol, Upstream, UpstreamMetrics},
};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What one peer may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time-outs, attempts, connections.
    pub upstream: upstream::Limits,
    /// The largest answer that is read.
    pub max_response_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { upstream: upstream::Limits::default(), max_response_bytes: 1024 * 1024 }
    }
}

/// A service that this one calls. Clones share its connections.
#[derive(Clone, Debug)]
pub struct PeerClient {
    service: String,
    upstream: Upstream,
    max_response_bytes: usize,
}

impl PeerClient {
    /// Starts connecting to every instance of `service`.
    ///
    /// # Errors
    /// When the settings do not say where it is: it is missing from the service's `calls`.
    pub fn new(
        settings: &Settings,
        identity: &Arc<Identity>,
        service: &str,
        limits: Limits,
        metrics: &UpstreamMetrics,
    ) -> Result<Self, PeerError> {
        let undeclared = || PeerError::Undeclared { service: service.to_owned() };
        let endpoints = settings.peers.get(service).cloned().ok_or_else(undeclared)?;
        let config = Config {
            service: service.to_owned(),
            endpoints,
            protocol: Protocol::Mesh {
                identity: Arc::clone(identity),
                peer: SpiffeId::new(&settings.domain, service)?,
            },
            health: HealthCheck::default(),
            limits: limits.upstream,
        };
        let upstream = Upstream::start(config, metrics);
        Ok(Self { service: service.to_owned(), upstream, max_response_bytes: limits.max_response_bytes })
    }

    /// Sends a request, of which the path counts and not the host, and reads the answer, whatever its status. The trace
    /// context of the current request goes along.
    ///
    /// # Errors
    /// When no instance answers `within` this time, or the answer is too large.
    pub async fn request(&self, request: Request<Full<Bytes>>, within: Duration) -> Result<Response<Bytes>, PeerError> {
        let (mut head, body) = request.into_parts();
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(never) => match never {},
        };
        if let Some(trace) = TraceContext::current()
            && let Ok(trace) = HeaderValue::try_from(trace.child().to_string())
        {
            head.headers.insert(TRACEPARENT, trace);
        }
        let request = Request::from_parts(head, Payload::from(body));
        let response = self.upstream.send(request, Instant::now() + within).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, self.max_response_bytes).collect().await.map_err(|error| self.unread(error))?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }

    /// Whether some instance is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.upstream.is_up()
    }

    fn unread(&self, error: BoxError) -> PeerError {
        if error.is::<LengthLimitError>() {
            return PeerError::TooLarge { service: self.service.clone(), limit: self.max_response_bytes };
        }
        let failed = |source| upstream::Error::Failed { service: self.service.clone(), source };
        PeerError::Upstream(error.downcast::<upstream::Error>().map_or_else(failed, |error| *error))
    }
}

/// Why a call got no answer.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The plan does not say that this service calls that one.
    #[error("nothing is known of {service}: add it to `calls` of this service in mesh.toml")]
    Undeclared {
        /// The service.
        service: String,
    },
    /// The service's name cannot stand in a SPIFFE ID.
    #[error(transparent)]
    Name(#[from] InvalidSpiffeId),
    /// No instance answered.
    #[error(transparent)]
    Upstream(#[from] upstream::Error),
    /// The answer is larger than anything that was expected.
    #[error("the answer of {service} is larger than {limit} bytes")]
    TooLarge {
        /// The service.
        service: String,
        /// The most that is read.
        limit: usize,
    },
}

impl From<PeerError> for Problem {
    fn from(error: PeerError) -> Self {
        match error {
            PeerError::Upstream(error) => error.into(),
            error @ PeerError::TooLarge { .. } => crate::problem::UPSTREAM_FAILED.detail(error.to_string()),
            error => Self::internal(error),
        }
    }
}
