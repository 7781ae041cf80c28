//! What item management says the items of an order are and cost: the one synchronous call this service makes.

use std::{collections::HashMap, sync::Arc, time::Duration};

use auth::{
    Principal,
    internal::{self, Minter},
};
use berth_http::{
    client::{PeerClient, PeerError},
    problem::{self, Problem},
};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use serde::{Deserialize, Serialize};
use tls::SpiffeId;
use uuid::Uuid;

use crate::domain::{Money, Quote, Selection};

/// The service that is asked.
pub const PEER: &str = "item-management";

/// How long it may take.
const WITHIN: Duration = Duration::from_secs(5);

/// When a caller may try again after it could not be asked.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Asks for quotes, in the name of whoever orders. Clones share the connections.
#[derive(Clone)]
pub struct Quotes {
    client: PeerClient,
    minter: Arc<Minter>,
    peer: SpiffeId,
}

#[derive(Serialize)]
struct Asked {
    lines: Vec<AskedLine>,
}

#[derive(Serialize)]
struct AskedLine {
    item_id: Uuid,
    quantity: i64,
}

/// Of the answer only what is needed here.
#[derive(Deserialize)]
struct Answer {
    lines: Vec<AnswerLine>,
}

#[derive(Deserialize)]
struct AnswerLine {
    item_id: Uuid,
    sku: String,
    name: String,
    price: Money,
}

impl Quotes {
    /// Asks `peer` through `client`, with tokens of `minter`.
    pub fn new(client: PeerClient, minter: Arc<Minter>, peer: SpiffeId) -> Self {
        Self { client, minter, peer }
    }

    /// The quotes for those of the items that exist.
    ///
    /// # Errors
    /// 503 with Retry-After when item management cannot be asked now; 502 when its answer is not one.
    pub async fn of(&self, caller: &Principal, selection: &Selection) -> Result<HashMap<Uuid, Quote>, Problem> {
        let request = self.request(caller, selection)?;
        let response = self.client.request(request, WITHIN).await.map_err(|error| match error {
            error @ PeerError::Upstream(_) => unavailable().caused_by(error),
            error => error.into(),
        })?;
        match response.status() {
            StatusCode::OK => read(response.body()),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS | StatusCode::GATEWAY_TIMEOUT => {
                Err(unavailable())
            }
            status => Err(failed(format!("{PEER} answered {status} when asked for quotes"))),
        }
    }

    fn request(&self, caller: &Principal, selection: &Selection) -> Result<Request<Full<Bytes>>, Problem> {
        let lines =
            selection.lines().iter().map(|line| AskedLine { item_id: line.item_id, quantity: line.quantity }).collect();
        let body = serde_json::to_vec(&Asked { lines }).map_err(Problem::internal)?;
        let token = self.minter.mint(caller, &self.peer).map_err(Problem::internal)?;
        Request::post("/internal/quotes")
            .header(header::CONTENT_TYPE, "application/json")
            .header(internal::HEADER, token)
            .body(Full::from(body))
            .map_err(Problem::internal)
    }
}

fn read(body: &[u8]) -> Result<HashMap<Uuid, Quote>, Problem> {
    let Answer { lines } = serde_json::from_slice(body).map_err(failed)?;
    let quote = |line: AnswerLine| (line.item_id, Quote { sku: line.sku, name: line.name, price: line.price });
    Ok(lines.into_iter().map(quote).collect())
}

fn unavailable() -> Problem {
    problem::UNAVAILABLE
        .detail("Item management cannot be asked for prices now. Nothing was placed: try again.")
        .retry_after(RETRY_AFTER)
}

fn failed(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Problem {
    problem::UPSTREAM_FAILED.detail("Item management's answer made no sense. Nothing was placed.").caused_by(cause)
}
