//! One request from the choice of an instance to the head of the response, with as many attempts as are allowed.

use std::net::SocketAddr;

use http::{Method, Request, Response, StatusCode};
use tokio::time::{Instant, timeout_at};
use tower::retry::budget::Budget as _;

use super::{
    Error, Inner, Payload, ResponseBody,
    balance::choose,
    error::Reached,
    link::{Failure, Lease, Link},
    metrics::{Outcome, Reason},
    roster::Phase,
};

/// How an attempt ended without a response.
enum Ended {
    Failure(Failure),
    /// Waiting any longer, or again, is of no use.
    TimeOut(Error),
}

impl Inner {
    pub(super) async fn send(
        &self,
        mut request: Request<Payload>,
        deadline: Instant,
    ) -> Result<Response<ResponseBody>, Error> {
        self.budget.deposit();
        let mut tried = Vec::new();
        loop {
            let last = tried.len() + 1 >= self.limits.attempts as usize;
            let lease = self.lease(&tried, deadline).await.inspect_err(|_| self.metrics.attempt(Outcome::Refused))?;
            let address = lease.link().address;
            let spare = if last { None } else { replay(&request) };
            let (next, reason) = match self.attempt(lease, request, deadline).await {
                Ok(response) => match spare.filter(|spare| self.deserves_another(&response, spare, address)) {
                    Some(spare) => (spare, Reason::Unavailable),
                    None => return Ok(response),
                },
                Err(Ended::TimeOut(error)) => return Err(error),
                Err(Ended::Failure(failure)) => {
                    let Failure { error, reached, request, .. } = failure;
                    let next = request.map(|request| *request).or(spare).filter(|_| !last);
                    match (next, reached) {
                        (Some(next), Reached::No) => (next, Reason::Unsent),
                        (Some(next), Reached::Maybe) if is_idempotent(next.method()) && self.budget.withdraw() => {
                            (next, Reason::Failed)
                        }
                        _ => return Err(Error::Failed { service: self.roster.config.service.clone(), source: error }),
                    }
                }
            };
            tracing::debug!(upstream = self.roster.config.service, %address, ?reason, "a request is sent again");
            self.metrics.retry(reason);
            tried.push(address);
            request = next;
        }
    }

    async fn attempt(
        &self,
        mut lease: Lease,
        request: Request<Payload>,
        deadline: Instant,
    ) -> Result<Response<ResponseBody>, Ended> {
        let until = match request.body() {
            Payload::Bytes(_) => deadline.min(Instant::now() + self.limits.head_timeout),
            Payload::Stream(_) => deadline,
        };
        match timeout_at(until, lease.send(request)).await {
            Ok(Ok(response)) => {
                self.metrics.attempt(Outcome::Answered);
                Ok(response.map(|incoming| ResponseBody::new(incoming, lease, deadline)))
            }
            Ok(Err(failure)) => {
                self.metrics.attempt(Outcome::Failed);
                if failure.doubtful {
                    self.roster.set_phase(lease.link(), Phase::Connecting);
                    lease.link().doubted.notify_one();
                }
                Err(Ended::Failure(failure))
            }
            Err(_) => {
                self.metrics.attempt(Outcome::Timeout);
                Err(Ended::TimeOut(lease.time_out()))
            }
        }
    }

    /// A place for the request at an instance that is up, rather at none that was tried before. While none is up but one
    /// is just being connected to, that is waited for, as long as a connection may take.
    async fn lease(&self, tried: &[SocketAddr], deadline: Instant) -> Result<Lease, Error> {
        if let Some(lease) = self.choose(tried)? {
            return Ok(lease);
        }
        let patience = deadline.min(Instant::now() + self.limits.connect_timeout);
        let mut changes = self.roster.changes();
        loop {
            let status = *changes.borrow_and_update();
            if let Some(lease) = self.choose(tried)? {
                return Ok(lease);
            }
            let hopeless = status.resolved && status.connecting == 0;
            if hopeless || !matches!(timeout_at(patience, changes.changed()).await, Ok(Ok(()))) {
                return Err(self.unavailable());
            }
        }
    }

    /// Nothing when no instance is up.
    fn choose(&self, tried: &[SocketAddr]) -> Result<Option<Lease>, Error> {
        let live = self.roster.live();
        if live.is_empty() {
            return Ok(None);
        }
        let mut random = rand::rng();
        let untried = |link: &std::sync::Arc<Link>| if tried.contains(&link.address) { None } else { link.cost() };
        let chosen = choose(&live, &mut random, untried).or_else(|| choose(&live, &mut random, |link| link.cost()));
        // Between asking for the cost and taking the place another request may have taken the last one.
        match chosen.and_then(Link::lease) {
            Some(lease) => Ok(Some(lease)),
            None => Err(Error::Overloaded { service: self.roster.config.service.clone() }),
        }
    }

    /// Whether a response that says "not now" is worth asking another instance.
    fn deserves_another(
        &self,
        response: &Response<ResponseBody>,
        spare: &Request<Payload>,
        address: SocketAddr,
    ) -> bool {
        response.status() == StatusCode::SERVICE_UNAVAILABLE
            && is_idempotent(spare.method())
            && self.roster.live().iter().any(|link| link.address != address)
            && self.budget.withdraw()
    }

    fn unavailable(&self) -> Error {
        Error::Unavailable { service: self.roster.config.service.clone() }
    }
}

/// RFC 9110, §9.2.2.
fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE].contains(method)
}

/// The same request once more, if its body is known as a whole.
fn replay(request: &Request<Payload>) -> Option<Request<Payload>> {
    let body = request.body().replay()?;
    let mut again = Request::new(body);
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}
