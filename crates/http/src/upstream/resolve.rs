//! From `host:port` to addresses, again and again: what a name stands for changes while instances come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{net::lookup_host, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{health::jittered, roster::Roster};

/// The system's resolver has time-outs of its own, which are longer than anybody wants to wait.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Keeps the roster at what the endpoints resolve to, until `stop`.
pub(super) async fn keep(roster: Arc<Roster>, stop: CancellationToken) {
    let endpoints = &roster.config.endpoints;
    let literal = endpoints.iter().all(|endpoint| endpoint.parse::<SocketAddr>().is_ok());
    // A name that cannot be resolved at the moment keeps its last addresses: health checks know better than the resolver.
    let mut known: BTreeMap<&str, BTreeSet<SocketAddr>> = BTreeMap::new();
    loop {
        let found = tokio::select! {
            () = stop.cancelled() => break,
            found = join_all(endpoints.iter().map(|endpoint| resolve(endpoint))) => found,
        };
        for (endpoint, found) in endpoints.iter().zip(found) {
            match found {
                Ok(addresses) => {
                    known.insert(endpoint, addresses);
                }
                Err(error) => {
                    tracing::debug!(upstream = roster.config.service, endpoint, %error, "an endpoint cannot be resolved");
                }
            }
        }
        roster.keep(&known.values().flatten().copied().collect(), &stop);
        let pause = async {
            if literal {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(jittered(roster.config.limits.resolve_interval)).await;
        };
        tokio::select! {
            () = stop.cancelled() => break,
            () = pause => {}
        }
    }
    roster.clear();
}

async fn resolve(endpoint: &str) -> std::io::Result<BTreeSet<SocketAddr>> {
    if let Ok(address) = endpoint.parse() {
        return Ok(BTreeSet::from([address]));
    }
    Ok(timeout(LOOKUP_TIMEOUT, lookup_host(endpoint)).await??.collect())
}
