//! What the plan amounts to while it is in force. A reload makes a new one and keeps of the old what has not changed.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc, time::Duration};

use auth::{
    Principal,
    access::{self, JwksSource, TokenTypes},
    internal::Minter,
    refusals::Refusals,
};
use berth_http::upstream::{self, Config, HealthCheck, Protocol, Upstream, UpstreamMetrics};
use http::uri::PathAndQuery;
use mesh::plan::{self, Endpoint, JwksFrom, Plan, RouteAuth, TokenType};
use runtime::{clock::Clock, credentials::Credentials, retry::Backoff};
use tls::{Identity, InvalidSpiffeId, SpiffeId};
use tokio::{task::AbortHandle, time::sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    clients::PerClient,
    headers::{Advice, ClientCredentials},
    jwks::{FromDiscovery, FromService},
    metrics::{GatewayMetrics, RouteMetrics},
    tokens::ForService,
};

/// How often an issuer's keys are fetched again.
const KEYS_PERIOD: Duration = Duration::from_secs(5 * 60);
/// HTTP/2 connections to one instance: more than one, so that one busy core does not bound it.
const CONNECTIONS: usize = 2;

/// What is needed to put a plan into force, and does not change with it.
#[derive(Clone)]
pub struct Means {
    /// Who we are in the mesh.
    pub identity: Arc<Identity>,
    /// Our credentials folder.
    pub credentials: Credentials,
    /// What internal tokens are made with.
    pub minter: Arc<Minter>,
    /// Where callers that were refused are noted.
    pub refusals: Refusals,
    /// What time it is.
    pub clock: Clock,
    /// The gateway's metrics.
    pub metrics: GatewayMetrics,
    /// The upstreams' metrics.
    pub upstream_metrics: UpstreamMetrics,
}

/// Why a plan cannot be put into force.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A name in it is no SPIFFE name.
    #[error(transparent)]
    Name(#[from] InvalidSpiffeId),
    /// A path in it is no path of a URI.
    #[error("{path:?} is no path: {reason}")]
    Path {
        /// The text.
        path: String,
        /// What the parser says.
        reason: http::uri::InvalidUri,
    },
    /// It is of another mesh than our certificate.
    #[error("the plan is of the mesh {plan}, but this gateway belongs to {own}")]
    OtherMesh {
        /// The plan's domain.
        plan: String,
        /// Ours.
        own: String,
    },
    /// Its issuer is a service that it does not have.
    #[error("the plan's issuer is the service {0}, which it does not have")]
    NoIssuer(String),
    /// A signature algorithm that is not known here.
    #[error(transparent)]
    Algorithm(#[from] auth::jws::UnknownAlgorithm),
    /// The keys of a changed issuer cannot be fetched: the old issuer stays.
    #[error(transparent)]
    Keys(#[from] access::RefreshError),
}

/// A plan in force.
pub(crate) struct State {
    pub(crate) plan: Arc<Plan>,
    /// Longest prefix first.
    routes: Vec<Route>,
    upstreams: Services,
    pub(crate) issuer: Arc<Issuer>,
    pub(crate) anonymous: Arc<Principal>,
    pub(crate) advice: Advice,
    pub(crate) failures: Arc<PerClient>,
    pub(crate) requests: Option<Arc<PerClient>>,
    pub(crate) limits: Limits,
    forgetting: AbortHandle,
}

/// The plan's limits in the types they are used in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) body_bytes: u64,
    pub(crate) header_bytes: usize,
    pub(crate) connections: usize,
    pub(crate) requests: usize,
    pub(crate) header_timeout: Duration,
    pub(crate) total_timeout: Duration,
    pub(crate) idle_timeout: Duration,
}

/// A route in force.
pub(crate) struct Route {
    pub(crate) prefix: Arc<str>,
    pub(crate) service: Arc<str>,
    pub(crate) auth: RouteAuth,
    pub(crate) credentials: ClientCredentials,
    pub(crate) upstream: Upstream,
    /// Nothing for a foreign service, which could not read it.
    pub(crate) tokens: Option<ForService>,
    pub(crate) metrics: RouteMetrics,
}

/// An upstream and what it was made from, to know it again.
struct Service {
    upstream: Upstream,
    wanted: Wanted,
}

/// What the plan says of a service, as far as its upstream is concerned.
#[derive(Clone, PartialEq)]
struct Wanted {
    name: String,
    protocol: plan::Protocol,
    health: plan::Health,
    endpoints: Vec<Endpoint>,
    connect_timeout: Duration,
    total_timeout: Duration,
    retry_percent: u8,
}

/// The issuer of access tokens and the task that keeps its keys fresh.
pub(crate) struct Issuer {
    pub(crate) verifier: Arc<access::Verifier>,
    auth: plan::Auth,
    _stop: DropGuard,
}

impl State {
    /// Puts a plan into force at the start.
    pub(crate) fn start(plan: Plan, means: &Means) -> Result<Self, PlanError> {
        check(&plan, means)?;
        let upstreams = upstreams(&plan, means, None)?;
        let issuer = Idle::new(&plan, means, &upstreams)?;
        Self::assemble(plan, means, upstreams, Arc::new(issuer.run()))
    }

    /// Puts another plan into force, keeping the upstreams and the issuer that are the same in both. The keys of a changed
    /// issuer are fetched first: until they are here, its tokens could not be verified.
    pub(crate) async fn replace(&self, plan: Plan, means: &Means) -> Result<Self, PlanError> {
        check(&plan, means)?;
        let upstreams = upstreams(&plan, means, Some(&self.upstreams))?;
        let moved = match &plan.auth.jwks {
            JwksFrom::Discovery => false,
            JwksFrom::Service { service, .. } => {
                let place = |services: &Services| services.get(service.as_str()).map(|service| service.wanted.clone());
                place(&upstreams) != place(&self.upstreams)
            }
        };
        let issuer = if plan.auth == self.issuer.auth && !moved {
            if let Err(error) = self.issuer.verifier.refresh().await {
                tracing::warn!(%error, "the issuer's keys stay as they are");
            }
            Arc::clone(&self.issuer)
        } else {
            let issuer = Idle::new(&plan, means, &upstreams)?;
            issuer.verifier.refresh().await?;
            Arc::new(issuer.run())
        };
        Self::assemble(plan, means, upstreams, issuer)
    }

    fn assemble(plan: Plan, means: &Means, upstreams: Services, issuer: Arc<Issuer>) -> Result<Self, PlanError> {
        let domain = means.identity.id().domain();
        let mut routes = Vec::with_capacity(plan.gateway.routes.len());
        for route in &plan.gateway.routes {
            let Some(service) = upstreams.get(route.service.as_str()) else { continue };
            let is_issuer = matches!(&plan.auth.jwks, JwksFrom::Service { service, .. } if *service == route.service);
            let tokens = match route.protocol {
                plan::Protocol::Mesh => {
                    let audience = SpiffeId::new(domain, &route.service)?;
                    Some(ForService::new(audience, Arc::clone(&means.minter)))
                }
                plan::Protocol::Plain => None,
            };
            routes.push(Route {
                prefix: Arc::from(&*route.prefix),
                service: Arc::from(route.service.as_str()),
                auth: route.auth,
                credentials: if is_issuer { ClientCredentials::Pass } else { ClientCredentials::Strip },
                upstream: service.upstream.clone(),
                tokens,
                metrics: means.metrics.of_route(&route.prefix),
            });
        }
        routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));

        let failures = Arc::new(PerClient::for_failures());
        let limits = &plan.gateway.limits;
        let requests = limits.rate_per_second.and_then(NonZeroU32::new).map(|rate| {
            let burst = limits.rate_burst.and_then(NonZeroU32::new).unwrap_or(rate);
            Arc::new(PerClient::new(rate, burst))
        });
        let forgetting = forget(Arc::clone(&failures), requests.clone());
        Ok(Self {
            routes,
            upstreams,
            issuer,
            anonymous: Arc::new(Principal::anonymous()),
            advice: Advice::for_host(&plan.gateway.public_host),
            failures,
            requests,
            limits: Limits::of(limits),
            plan: Arc::new(plan),
            forgetting,
        })
    }

    /// The route of a normalised path: the longest prefix of whole segments. What is internal to the mesh has none.
    pub(crate) fn route(&self, path: &str) -> Option<&Route> {
        if covers("/internal", path) {
            return None;
        }
        self.routes.iter().find(|route| covers(&route.prefix, path))
    }

    /// The services with a route that have no instance that is up.
    pub(crate) fn unavailable(&self) -> Vec<&str> {
        let down = self.routes.iter().filter(|route| !route.upstream.is_up());
        down.map(|route| &*route.service).collect()
    }

    /// Waits until every route has an instance that is up, and the issuer's keys are here: without them every caller
    /// would be sent away.
    pub(crate) async fn all_up(&self) {
        for route in &self.routes {
            // The sender lives as long as the route, so that waiting cannot fail.
            let _ = route.upstream.status().wait_for(|status| status.up > 0).await;
        }
        let mut pauses = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        while !self.issuer.verifier.is_ready() && self.issuer.verifier.refresh().await.is_err() {
            sleep(pauses.delay()).await;
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.forgetting.abort();
    }
}

/// Before anything is started: whether the plan is of our mesh.
fn check(plan: &Plan, means: &Means) -> Result<(), PlanError> {
    let own = means.identity.id().domain();
    if *plan.domain == *own {
        return Ok(());
    }
    Err(PlanError::OtherMesh { plan: plan.domain.to_string(), own: own.to_owned() })
}

/// Whether a path lies at or below a prefix, by whole segments.
fn covers(prefix: &str, path: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn forget(failures: Arc<PerClient>, requests: Option<Arc<PerClient>>) -> AbortHandle {
    let forgetting = async move {
        let mut every_second = tokio::time::interval(Duration::from_secs(1));
        loop {
            every_second.tick().await;
            failures.forget();
            if let Some(requests) = &requests {
                requests.forget();
            }
        }
    };
    tokio::spawn(forgetting).abort_handle()
}

impl Limits {
    fn of(limits: &plan::Limits) -> Self {
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Self {
            body_bytes: limits.max_body_bytes.get(),
            header_bytes: size(limits.max_header_bytes.get()),
            connections: size(limits.max_connections.into()),
            requests: size(limits.max_requests.into()),
            header_timeout: limits.header_timeout_ms.duration(),
            total_timeout: limits.total_timeout_ms.duration(),
            idle_timeout: limits.idle_timeout_ms.duration(),
        }
    }
}

type Services = BTreeMap<String, Service>;

/// One upstream for each service with a route, and one for the issuer; those of the old plan that are the same stay.
fn upstreams(plan: &Plan, means: &Means, old: Option<&Services>) -> Result<Services, PlanError> {
    let limits = &plan.gateway.limits;
    let wanted = |name: &str, protocol, health: &plan::Health, endpoints: Vec<Endpoint>| Wanted {
        name: name.to_owned(),
        protocol,
        health: health.clone(),
        endpoints,
        connect_timeout: limits.connect_timeout_ms.duration(),
        total_timeout: limits.total_timeout_ms.duration(),
        retry_percent: limits.retry_budget_percent,
    };
    let mut all = BTreeMap::new();
    for route in &plan.gateway.routes {
        all.insert(
            route.service.to_string(),
            wanted(&route.service, route.protocol, &route.health, route.upstreams.clone()),
        );
    }
    if let JwksFrom::Service { service: name, .. } = &plan.auth.jwks
        && !all.contains_key(name.as_str())
    {
        let issuer = plan.service(name).ok_or_else(|| PlanError::NoIssuer(name.to_string()))?;
        let place = |at: &plan::Instance| Endpoint { instance: at.name.clone(), host: at.host.clone(), port: at.port };
        let endpoints = issuer.instances.iter().map(place).collect();
        all.insert(name.to_string(), wanted(name, issuer.protocol, &issuer.health, endpoints));
    }
    let start = |(name, wanted): (String, Wanted)| {
        let same = old.and_then(|old| old.get(&name)).filter(|old| old.wanted == wanted);
        let upstream = match same {
            Some(same) => same.upstream.clone(),
            None => Upstream::start(wanted.config(means)?, &means.upstream_metrics),
        };
        Ok((name, Service { upstream, wanted }))
    };
    all.into_iter().map(start).collect()
}

impl Wanted {
    fn config(&self, means: &Means) -> Result<Config, PlanError> {
        Ok(Config {
            service: self.name.clone(),
            endpoints: self.endpoints.iter().map(host_and_port).collect(),
            protocol: match self.protocol {
                plan::Protocol::Mesh => Protocol::Mesh {
                    identity: Arc::clone(&means.identity),
                    peer: SpiffeId::new(means.identity.id().domain(), &self.name)?,
                },
                plan::Protocol::Plain => Protocol::Plain,
            },
            health: HealthCheck {
                path: self.health.path.as_ref().map(|path| parse_path(path)).transpose()?,
                interval: self.health.interval_ms.duration(),
                timeout: self.health.timeout_ms.duration(),
                rise: self.health.healthy_after.into(),
                fall: self.health.unhealthy_after.into(),
            },
            limits: upstream::Limits {
                connect_timeout: self.connect_timeout,
                head_timeout: self.total_timeout,
                connections: CONNECTIONS,
                retry_percent: self.retry_percent,
                ..upstream::Limits::default()
            },
        })
    }
}

fn host_and_port(endpoint: &Endpoint) -> String {
    let Endpoint { host, port, .. } = endpoint;
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn parse_path(path: &str) -> Result<PathAndQuery, PlanError> {
    path.parse().map_err(|reason| PlanError::Path { path: path.to_owned(), reason })
}

/// An issuer whose keys nobody keeps fresh yet.
struct Idle {
    verifier: Arc<access::Verifier>,
    auth: plan::Auth,
}

impl Idle {
    fn new(plan: &Plan, means: &Means, upstreams: &Services) -> Result<Self, PlanError> {
        let auth = plan.auth.clone();
        let source: Box<dyn JwksSource> = match &auth.jwks {
            JwksFrom::Discovery => {
                Box::new(FromDiscovery { issuer: auth.issuer.clone(), credentials: means.credentials.clone() })
            }
            JwksFrom::Service { service, path } => {
                let service =
                    upstreams.get(service.as_str()).ok_or_else(|| PlanError::NoIssuer(service.to_string()))?;
                Box::new(FromService { upstream: service.upstream.clone(), path: parse_path(path)? })
            }
        };
        let algorithms: Result<Vec<_>, _> = auth.algorithms.iter().map(|name| name.as_str().parse()).collect();
        let issuer = access::Issuer {
            issuer: auth.issuer.clone(),
            audience: auth.audience.clone(),
            algorithms: algorithms?,
            types: match auth.typ {
                TokenType::AtJwt => TokenTypes::AtJwt,
                TokenType::Jwt => TokenTypes::AlsoJwt,
            },
            roles_claim: auth.roles_claim.clone(),
        };
        let verifier = Arc::new(access::Verifier::new([(issuer, source)], means.clock.clone()));
        Ok(Self { verifier, auth })
    }

    fn run(self) -> Issuer {
        let stop = CancellationToken::new();
        let (verifier, stopped) = (Arc::clone(&self.verifier), stop.clone());
        tokio::spawn(async move { verifier.run(KEYS_PERIOD, stopped).await });
        Issuer { verifier: self.verifier, auth: self.auth, _stop: stop.drop_guard() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_covers_whole_segments() {
        for (prefix, path, covered) in [
            ("/items", "/items", true),
            ("/items", "/items/", true),
            ("/items", "/items/42", true),
            ("/items", "/items-old", false),
            ("/items", "/item", false),
            ("/items", "/", false),
            ("/items/", "/items/42", true),
            ("/", "/anything", true),
            ("/", "/", true),
            ("/internal", "/internal", true),
            ("/internal", "/internal/quotes", true),
            ("/internal", "/internals", false),
        ] {
            assert_eq!(covers(prefix, path), covered, "{prefix} {path}");
        }
    }
}
