//! Callers for in-process tests of a service's router: real keys, real tokens, the real verifier, no gateway.
//!
//! ```
//! # use auth::{Principal, testing::TestIssuer};
//! let issuer = TestIssuer::new("item-management");
//! let request = http::Request::get("/items").body(()).unwrap();
//! let request = issuer.sign(request, &Principal::user("alice", ["customer"]));
//! assert!(request.headers().contains_key("txn-token"));
//! // Router::new().route(…).layer(auth::web::require(issuer.verifier()))
//! ```
// Only test code can reach this module, and a test that cannot be set up should stop at once.
#![allow(clippy::expect_used, clippy::missing_panics_doc)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use berth_http::server::Peer;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use runtime::clock::Clock;
use serde_json::{Value, json};
use tls::SpiffeId;
use tower::ServiceExt as _;
use uuid::Uuid;

use crate::Principal;
use crate::internal::{self, Issuers, Minter, Verifier};
use crate::jws::{KeySet, SigningKey};

/// The trust domain of everything this module makes.
pub const DOMAIN: &str = "test.internal";

/// Mints tokens for one service in the name of those that call it.
pub struct TestIssuer {
    own: SpiffeId,
    minters: BTreeMap<String, Minter>,
    verifier: Arc<Verifier>,
}

impl TestIssuer {
    /// For a service that only the gateway calls.
    #[must_use]
    pub fn new(service: &str) -> Self {
        Self::with_callers(service, &["gateway"], Clock::system())
    }

    /// For a service that these workloads call, with this clock.
    #[must_use]
    pub fn with_callers(service: &str, callers: &[&str], clock: Clock) -> Self {
        let mut issuers = Issuers::new();
        let mut minters = BTreeMap::new();
        for caller in callers {
            let id = spiffe(caller);
            let (key, _) = SigningKey::generate().expect("a key");
            let keys = KeySet::from_value(json!({ "keys": [key.jwk()] })).expect("a key set");
            minters.insert((*caller).to_owned(), Minter::new(&id, key, clock.clone()));
            issuers.insert(id, keys);
        }
        let own = spiffe(service);
        let verifier = Arc::new(Verifier::new(&own, issuers, clock));
        Self { own, minters, verifier }
    }

    /// The verifier of the service, for [`crate::web::require`].
    #[must_use]
    pub fn verifier(&self) -> Arc<Verifier> {
        self.verifier.clone()
    }

    /// A token as `caller` would mint it.
    #[must_use]
    pub fn token_from(&self, caller: &str, principal: &Principal) -> String {
        let minter = self.minters.get(caller).expect("a caller that was declared");
        minter.mint(principal, &self.own).expect("a token")
    }

    /// The request as it arrives from the gateway: with a token for `principal`, over the gateway's connection.
    #[must_use]
    pub fn sign<B>(&self, request: Request<B>, principal: &Principal) -> Request<B> {
        self.sign_as("gateway", request, principal)
    }

    /// The request as it arrives from `caller`.
    #[must_use]
    pub fn sign_as<B>(&self, caller: &str, request: Request<B>, principal: &Principal) -> Request<B> {
        let token = self.token_from(caller, principal);
        let mut request = unsigned_from(caller, request);
        let token = HeaderValue::try_from(token).expect("visible ASCII");
        request.headers_mut().insert(internal::HEADER, token);
        request
    }
}

/// The request as it arrives from `caller`, without a token.
#[must_use]
pub fn unsigned_from<B>(caller: &str, mut request: Request<B>) -> Request<B> {
    request.extensions_mut().insert(Peer(spiffe(caller)));
    request
}

/// The SPIFFE ID of a workload in tests.
#[must_use]
pub fn spiffe(name: &str) -> SpiffeId {
    SpiffeId::new(DOMAIN, name).expect("a valid name")
}

/// A user whose token is good for the shop.
#[must_use]
pub fn shopper(name: &str, roles: &[&str]) -> Principal {
    Principal { scopes: ["openid", "shop"].map(str::to_owned).into(), ..Principal::user(name, roles.iter().copied()) }
}

/// The same user, through a client that only signs people in.
#[must_use]
pub fn signed_in_only(user: Principal) -> Principal {
    Principal { scopes: ["openid", "profile"].map(str::to_owned).into(), ..user }
}

/// A service's router, called as the workloads of a mesh call it.
pub struct TestService {
    router: axum::Router,
    issuer: TestIssuer,
}

impl TestService {
    /// The service with this router, which trusts this issuer.
    #[must_use]
    pub fn new(router: axum::Router, issuer: TestIssuer) -> Self {
        Self { router, issuer }
    }

    /// A request over the connection of `from`, in the name of `who`, or without a token.
    pub async fn call(
        &self,
        from: &str,
        who: Option<&Principal>,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let request = Request::builder().method(method).uri(path);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = match body {
            Some(body) => request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body.to_string())),
            None => request.body(Body::empty()),
        };
        self.send(from, who, request.expect("a request")).await
    }

    /// A request as it is.
    pub async fn send(&self, from: &str, who: Option<&Principal>, request: Request<Body>) -> Answer {
        let request = match who {
            Some(who) => self.issuer.sign_as(from, request, who),
            None => unsigned_from(from, request),
        };
        let answering = self.router.clone().oneshot(request);
        let answer = tokio::time::timeout(Duration::from_secs(30), answering).await.expect("an answer in time");
        let (parts, body) = answer.expect("an answer").into_parts();
        let bytes = body.collect().await.expect("a whole answer").to_bytes();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).expect("JSON") };
        Answer { status: parts.status, headers: parts.headers, body }
    }
}

/// What a service answered.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body as JSON; null if it has none.
    pub body: Value,
}

impl Answer {
    /// The same, if it has this status; a problem document if that is an error.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{:#} {:?}", self.body, self.headers);
        if status >= 400 {
            assert_eq!(self.header("content-type"), "application/problem+json");
            assert_eq!(self.body.get("status"), Some(&status.into()));
        }
        self
    }

    /// The same, if it is a problem of this kind.
    #[track_caller]
    pub fn problem(self, status: u16, slug: &str) -> Self {
        let answer = self.expect(status);
        let kind = answer.body.get("type").and_then(Value::as_str);
        assert_eq!(kind, Some(&*format!("urn:berth:problem:{slug}")), "{:#}", answer.body);
        answer
    }

    /// The same, if its first error names this member of the body, parameter or header.
    #[track_caller]
    pub fn names(self, what: &str, name: &str) -> Self {
        let named = self.body.pointer(&format!("/errors/0/{what}")).and_then(Value::as_str);
        assert_eq!(named, Some(name), "{:#}", self.body);
        self
    }

    /// A header that must be there.
    #[track_caller]
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).and_then(|value| value.to_str().ok());
        value.expect("the header is there")
    }

    /// The entity tag.
    #[track_caller]
    #[must_use]
    pub fn etag(&self) -> String {
        self.header("etag").to_owned()
    }

    /// The id in the body.
    #[track_caller]
    #[must_use]
    pub fn id(&self) -> Uuid {
        let id = self.body.get("id").and_then(|id| serde_json::from_value(id.clone()).ok());
        id.expect("the body has an id")
    }
}
