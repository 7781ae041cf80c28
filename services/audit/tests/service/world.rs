//! An audit of the test's own: its PostgreSQL, its NATS, its router, its callers.

use std::sync::Arc;

use audit::{
    api::{self, App},
    chain,
    checkpoint::Signer,
    domain::Record,
    store,
};
use auth::{
    Principal,
    testing::{Answer, TestIssuer, TestService, spiffe},
};
use database::Database;
use http::Method;
use outbox::{Events, Outbox};
use runtime::clock::Clock;
use serde_json::Value;
use testkit::{Nats, Postgres};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) struct World {
    pub(crate) postgres: Postgres,
    pub(crate) nats: Nats,
    pub(crate) database: Database,
    pub(crate) signer: Arc<Signer>,
    /// A connection past the service.
    pub(crate) intruder: tokio_postgres::Client,
    service: TestService,
}

impl World {
    pub(crate) async fn new() -> Self {
        let (postgres, nats) = tokio::join!(Postgres::start(), Nats::start());
        let at = postgres.database("audit").await;
        let database = Database::at(&at.url, &at.password).unwrap();
        let stop = CancellationToken::new();
        Outbox::migrate(&database, &stop).await.unwrap();
        store::migrate(&database, &stop).await.unwrap();
        let signer = Arc::new(Signer::new(&spiffe("audit"), &[7; 32]).unwrap());
        let issuer = TestIssuer::with_callers("audit", &["gateway", "identity"], Clock::system());
        let app = App {
            database: database.clone(),
            authorizer: Arc::new(api::authorizer().unwrap()),
            signer: Arc::clone(&signer),
            events: Events::at(&nats.url(), "audit").await.unwrap(),
        };
        let router = api::router(app, issuer.verifier());
        let service = TestService::new(router, issuer);
        Self { postgres, nats, database, signer, intruder: at.client().await, service }
    }

    /// The same with a chain of so many entries.
    pub(crate) async fn with_entries(count: usize) -> Self {
        let world = Self::new().await;
        world.record(count).await;
        world
    }

    /// Records so many events, and appends them.
    pub(crate) async fn record(&self, count: usize) {
        let client = self.database.get().await.unwrap();
        for _ in 0..count {
            store::take_in(&*client, &record()).await.unwrap();
        }
        drop(client);
        chain::drain(&self.database).await.unwrap();
    }

    pub(crate) async fn get(&self, who: &Principal, path: &str) -> Answer {
        self.service.call("gateway", Some(who), Method::GET, path, &[], None).await
    }

    /// A request from this workload, in somebody's name or in nobody's.
    pub(crate) async fn call(
        &self,
        from: &str,
        who: Option<&Principal>,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Answer {
        self.service.call(from, who, method, path, &[], body).await
    }

    /// What the auditor is told of the chain.
    pub(crate) async fn verify(&self, query: &str) -> Value {
        self.get(&dave(), &format!("/audit/verify{query}")).await.expect(200).body
    }

    pub(crate) async fn count(&self, table: &str) -> i64 {
        self.intruder.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0)
    }
}

/// Something that happened.
pub(crate) fn record() -> Record {
    let id = Uuid::now_v7();
    Record {
        id,
        kind: "items.item.created".into(),
        source: "spiffe://test.internal/item-management".into(),
        subject: format!("item/{id}"),
        actor: Some("carol".into()),
        occurred_at: jiff::Timestamp::now(),
        content: format!(r#"{{"id":"{id}"}}"#),
    }
}

/// An auditor.
pub(crate) fn dave() -> Principal {
    auth::testing::shopper("dave", &["auditor"])
}
