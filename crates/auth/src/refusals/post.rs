//! Recording refusals with the audit service itself, for services that have no outbox.

use std::{sync::Arc, time::Duration};

use berth_http::client::{Limits, PeerClient, PeerError};
use berth_http::upstream::UpstreamMetrics;
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::Full;
use runtime::settings::Settings;
use tls::{Identity, SpiffeId};

use super::Report;
use crate::{
    Principal,
    internal::{self, MintError, Minter},
};

/// The audit service's name in a mesh.
pub const AUDIT: &str = "audit";
/// Where it takes reports: a JSON array of [`Report`].
pub const PATH: &str = "/internal/refusals";
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Posts reports to the audit service, in the name of this workload.
#[derive(Clone)]
pub struct Post {
    client: PeerClient,
    minter: Arc<Minter>,
    audit: SpiffeId,
    own: Principal,
}

/// Why reports were not taken.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// The service cannot be reached.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// A token could not be made.
    #[error(transparent)]
    Mint(#[from] MintError),
    /// A request could not be made.
    #[error("the reports make no request: {0}")]
    Request(Box<dyn std::error::Error + Send + Sync>),
    /// It answered something else than that it has them.
    #[error("the audit service answered {0}")]
    Refused(StatusCode),
}

impl Post {
    /// To the audit service of the mesh; none where this service has no such peer.
    ///
    /// # Errors
    /// When the mesh's domain makes no SPIFFE ID.
    pub fn to_audit(
        settings: &Settings,
        identity: &Arc<Identity>,
        minter: Arc<Minter>,
        metrics: &UpstreamMetrics,
    ) -> Result<Option<Self>, PeerError> {
        if !settings.peers.contains_key(AUDIT) {
            return Ok(None);
        }
        let client = PeerClient::new(settings, identity, AUDIT, Limits::default(), metrics)?;
        let audit = SpiffeId::new(&settings.domain, AUDIT)?;
        Ok(Some(Self { client, minter, audit, own: Principal::service(identity.id()) }))
    }

    /// Hands over these reports. Once this succeeds they are on the audit service's disk; handed over twice, they are recorded once.
    ///
    /// # Errors
    /// [`PostError`] says why they were not taken.
    pub async fn record(&self, reports: Arc<[Report]>) -> Result<(), PostError> {
        let body = serde_json::to_vec(&*reports).map_err(|error| PostError::Request(error.into()))?;
        let token = self.minter.mint(&self.own, &self.audit)?;
        let mut token = HeaderValue::try_from(token).map_err(|error| PostError::Request(error.into()))?;
        token.set_sensitive(true);
        let request = Request::post(PATH)
            .header(header::CONTENT_TYPE, "application/json")
            .header(internal::HEADER, token)
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| PostError::Request(error.into()))?;
        match self.client.request(request, PATIENCE).await?.status() {
            status if status.is_success() => Ok(()),
            status => Err(PostError::Refused(status)),
        }
    }
}

impl std::fmt::Debug for Post {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Post").field("audit", &self.audit).finish_non_exhaustive()
    }
}
