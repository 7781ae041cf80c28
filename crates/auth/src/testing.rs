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

use berth_http::server::Peer;
use http::{HeaderValue, Request};
use runtime::clock::Clock;
use serde_json::json;
use tls::SpiffeId;

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
