//! The way a verified caller reaches a handler: a layer that verifies the transaction token, an extractor that gives what
//! it proved.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::{FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use berth_http::problem::Problem;
use berth_http::server::Peer;
use futures_util::future::{Either, Ready, ready};
use http::request::Parts;
use tower::{Layer, Service};

use crate::internal::{self, Verifier};
use crate::refusals::{Refusal, Refusals};
use crate::{Principal, TokenError};

/// A layer that lets nothing through without a valid transaction token from the workload at the other end of the
/// connection, and answers 401 otherwise.
#[must_use]
pub fn require(verifier: Arc<Verifier>) -> Require {
    Require { verifier, refusals: Refusals::default() }
}

/// See [`require`].
#[derive(Clone)]
pub struct Require {
    verifier: Arc<Verifier>,
    refusals: Refusals,
}

impl Require {
    /// The same, which notes every refused token there.
    #[must_use]
    pub fn reporting(self, refusals: &Refusals) -> Self {
        Self { refusals: refusals.clone(), ..self }
    }
}

impl<S> Layer<S> for Require {
    type Service = Required<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Required { require: self.clone(), inner }
    }
}

/// A service behind [`require`].
#[derive(Clone)]
pub struct Required<S> {
    require: Require,
    inner: S,
}

impl<S> Required<S> {
    fn verify(&self, request: &Request) -> Result<Arc<Principal>, TokenError> {
        let mut tokens = request.headers().get_all(internal::HEADER).into_iter();
        let token = tokens.next().ok_or(TokenError::Absent)?;
        if tokens.next().is_some() {
            return Err(TokenError::Malformed("there must be only one"));
        }
        let token = token.to_str().map_err(|_| TokenError::Malformed("it must be visible ASCII"))?;
        let Peer(peer) = request.extensions().get().ok_or(TokenError::WrongPeer)?;
        self.require.verifier.verify(token, peer)
    }
}

impl<S> Service<Request> for Required<S>
where
    S: Service<Request, Response = Response>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response, S::Error>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        match self.verify(&request) {
            Ok(principal) => {
                request.extensions_mut().insert(Caller(principal));
                Either::Right(self.inner.call(request))
            }
            Err(error) => {
                tracing::warn!(reason = error.reason(), "refused a transaction token");
                self.require.refusals.note(refusal(&request, error));
                Either::Left(ready(Ok(Problem::from(error).into_response())))
            }
        }
    }
}

/// Nobody is known but the workload at the other end.
fn refusal(request: &Request, error: TokenError) -> Refusal {
    Refusal {
        principal: request.extensions().get().map(|Peer(peer)| peer.to_string()),
        roles: BTreeSet::new(),
        action: "present-transaction-token".to_owned(),
        resource: format!("{} {}", request.method(), request.uri().path()),
        reason: error.reason().to_owned(),
        client: None,
    }
}

/// The verified caller of a request, for handlers behind [`require`].
#[derive(Debug, Clone)]
pub struct Caller(pub Arc<Principal>);

impl Deref for Caller {
    type Target = Principal;

    fn deref(&self) -> &Principal {
        &self.0
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get().cloned().ok_or_else(|| TokenError::Absent.into())
    }
}
