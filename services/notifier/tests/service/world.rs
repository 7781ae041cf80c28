//! A notifier of the test's own: its PostgreSQL, its router, its callers; who is impatient.

use std::{sync::Arc, time::Duration};

use auth::{
    Principal,
    cedar::Authorizer,
    seal::Sealer,
    testing::{Answer, TestIssuer, TestService, shopper, spiffe},
};
use database::{Database, ScopedFutureExt as _, Statements as _};
use http::Method;
use jiff::Timestamp;
use notifier::{
    api::{self, App},
    deliveries::Deliverer,
    domain::Patience,
    messages::Fanout,
    reach::Reach,
    sender::Sender,
    store,
};
use outbox::{Aggregate, Event, Handler as _, HandlerError, Outbox};
use serde_json::{Value, json};
use testkit::{Postgres, Receiver, eventually};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) struct World {
    pub(crate) postgres: Postgres,
    pub(crate) database: Database,
    pub(crate) outbox: Outbox,
    pub(crate) sealer: Arc<Sealer>,
    authorizer: Arc<Authorizer>,
    service: TestService,
}

/// A deliverer that runs.
pub(crate) struct Delivering {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Delivering {
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// Where subscribers of tests listen.
pub(crate) fn loopback() -> Reach {
    "127.0.0.0/8".parse().unwrap()
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::reaching(loopback()).await
    }

    pub(crate) async fn reaching(reach: Reach) -> Self {
        tls::install_provider();
        let postgres = Postgres::start().await;
        let at = postgres.database("notifier").await;
        let database = Database::at(&at.url, &at.password).unwrap();
        let stop = CancellationToken::new();
        Outbox::migrate(&database, &stop).await.unwrap();
        store::migrate(&database, &stop).await.unwrap();
        let (outbox, sealer) = (Outbox::default(), Arc::new(Sealer::new(&[7; 32]).unwrap()));
        let authorizer = Arc::new(api::authorizer().unwrap());
        let issuer = TestIssuer::new("notifier");
        let app = App {
            database: database.clone(),
            outbox: outbox.clone(),
            authorizer: Arc::clone(&authorizer),
            sealer: Arc::clone(&sealer),
            reach,
            own: spiffe("notifier"),
        };
        let service = TestService::new(api::router(app, issuer.verifier()), issuer);
        Self { postgres, database, outbox, sealer, authorizer, service }
    }

    pub(crate) fn deliverer(&self) -> Deliverer {
        Deliverer {
            database: self.database.clone(),
            outbox: self.outbox.clone(),
            sealer: Arc::clone(&self.sealer),
            sender: Sender::new(loopback(), Duration::from_secs(2)),
            patience: Patience {
                first_delay: Duration::from_millis(20),
                longest_delay: Duration::from_millis(100),
                attempts: 6,
                failing: Duration::ZERO,
                failures: 4,
            },
            poll: Duration::from_millis(20),
            lease: Duration::from_secs(10),
        }
    }

    pub(crate) fn deliver(&self) -> Delivering {
        Self::run(self.deliverer())
    }

    pub(crate) fn run(deliverer: Deliverer) -> Delivering {
        let stop = CancellationToken::new();
        Delivering { task: tokio::spawn(deliverer.run(stop.clone())), stop }
    }

    pub(crate) async fn call(
        &self,
        who: Option<&Principal>,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        self.service.call("gateway", who, method, path, headers, body).await
    }

    pub(crate) async fn get(&self, who: &Principal, path: &str) -> Answer {
        self.call(Some(who), Method::GET, path, &[], None).await
    }

    pub(crate) async fn post(&self, who: &Principal, path: &str, body: &Value) -> Answer {
        self.call(Some(who), Method::POST, path, &[], Some(body)).await
    }

    pub(crate) async fn patch(&self, who: &Principal, path: &str, etag: &str, body: &Value) -> Answer {
        self.call(Some(who), Method::PATCH, path, &[("if-match", etag)], Some(body)).await
    }

    /// A subscription, and its secret.
    pub(crate) async fn subscribe(&self, who: &Principal, url: &str, types: &[&str]) -> (Uuid, String) {
        let body = json!({ "url": url, "event_types": types });
        let answer = self.post(who, "/subscriptions", &body).await.expect(201);
        (answer.id(), answer.body["secret"].as_str().unwrap().to_owned())
    }

    /// The same for everything, at a receiver.
    pub(crate) async fn subscribe_at(&self, who: &Principal, receiver: &Receiver) -> (Uuid, String) {
        self.subscribe(who, &receiver.url("/hooks?a=b"), &[">"]).await
    }

    /// An event comes, as from the event bus.
    pub(crate) async fn happens(&self, event: &Event) {
        let fanout = &Fanout { authorizer: Arc::clone(&self.authorizer) };
        let handled: Result<(), HandlerError> =
            self.database.transaction(|tx| fanout.handle(tx, event).scope_boxed()).await;
        handled.unwrap();
        self.outbox.wake();
    }

    /// What is known of the deliveries of a subscription, the oldest first.
    pub(crate) async fn deliveries(&self, who: &Principal, subscription: Uuid) -> Vec<Value> {
        let page = self.get(who, &format!("/subscriptions/{subscription}/deliveries?limit=100")).await.expect(200).body;
        let mut deliveries = page["items"].as_array().unwrap().clone();
        deliveries.reverse();
        deliveries
    }

    /// Waits until the only delivery of a subscription is in this state.
    pub(crate) async fn becomes(&self, who: &Principal, subscription: Uuid, state: &str) -> Value {
        eventually(&format!("a delivery to be {state}"), async || {
            let delivery = self.deliveries(who, subscription).await.pop()?;
            (delivery["state"] == state).then_some(delivery)
        })
        .await
    }

    /// Subjects of everything the service emitted, in order.
    pub(crate) async fn emitted(&self) -> Vec<String> {
        let rows = self.database.get().await.unwrap().all("SELECT subject FROM outbox ORDER BY position", &[]).await;
        rows.unwrap().iter().map(|row| row.get(0)).collect()
    }

    pub(crate) async fn count(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        self.database.get().await.unwrap().one(&sql, &[]).await.unwrap().get(0)
    }
}

/// Something that happened to an order of this customer's.
pub(crate) fn order_event(subject: &str, customer: Option<&str>) -> Event {
    let id = Uuid::now_v7();
    Event {
        id: Uuid::now_v7(),
        subject: subject.to_owned(),
        source: "spiffe://test.internal/eshop-documents".into(),
        aggregate: Aggregate { kind: subject.split('.').nth(1).unwrap().to_owned(), id },
        version: 1,
        data_version: 1,
        saga: Some(id),
        initiator: Some("carol".into()),
        trace: None,
        time: Timestamp::now(),
        data: json!({ "order_id": id, "customer": customer }),
    }
}

pub(crate) fn alice() -> Principal {
    shopper("alice", &["customer"])
}

pub(crate) fn bob() -> Principal {
    shopper("bob", &["customer"])
}

pub(crate) fn carol() -> Principal {
    shopper("carol", &["clerk"])
}

pub(crate) fn admin() -> Principal {
    shopper("root", &["admin"])
}
