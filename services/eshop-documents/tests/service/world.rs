//! What tests live in: a PostgreSQL of their own, an item management that quotes, and callers.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

pub(crate) use auth::testing::Answer;
use auth::{
    Principal,
    internal::{Issuers, Minter, Verifier},
    jws::{KeySet, SigningKey},
    testing::{DOMAIN, TestIssuer, TestService, shopper, spiffe},
    web::{self, Caller},
};
use axum::{Router, extract::State, routing::post};
use berth_http::{
    client::{Limits, PeerClient},
    health::Health,
    problem::Problem,
    server::Server,
    upstream::UpstreamMetrics,
};
use database::{Database, Statements as _};
use eshop_documents::{
    api::{self, App},
    domain::{self, Contents, Currency, Document, Money, Patience, Quote, SelectedLine, Selection},
    outcomes::Outcomes,
    quotes::{self, Quotes},
    saga,
    store::{self, Cause, NewOrder, RequestKey, Store},
};
use http::{Request, header};
use outbox::Outbox;
use runtime::{clock::Clock, credentials::Credentials, lifecycle::Lifecycle, settings::Settings, telemetry::Metrics};
use serde_json::{Value, json};
use testkit::Postgres;
use tls::{Identity, authority::Authority};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The documents in a database of the test's own.
pub(crate) struct World {
    pub(crate) postgres: Postgres,
    pub(crate) database: Database,
    pub(crate) outbox: Outbox,
    pub(crate) store: Store,
}

impl World {
    pub(crate) async fn start() -> Self {
        let postgres = Postgres::start().await;
        let at = postgres.database("documents").await;
        let database = Database::at(&at.url, &at.password).unwrap();
        let outbox = Outbox::default();
        let store = Store::new(database.clone(), outbox.clone());
        store.migrate(&CancellationToken::new()).await.unwrap();
        Self { postgres, database, outbox, store }
    }

    /// An order of alice's for so many of each item, at one euro each.
    pub(crate) async fn order(&self, lines: &[(Uuid, i64)]) -> Document {
        self.store.place(&new_order("alice", lines), &new_key("alice"), &Cause::default()).await.unwrap().unwrap()
    }

    /// What item management answers about a saga.
    pub(crate) async fn answer(&self, id: Uuid, event: saga::Event) -> Result<(), store::Error> {
        answer(&self.database, id, event).await
    }

    /// An order that is confirmed.
    pub(crate) async fn confirmed(&self, lines: &[(Uuid, i64)]) -> Uuid {
        let id = self.order(lines).await.head.id;
        self.answer(id, saga::Event::Reserved).await.unwrap();
        id
    }

    /// The invoice of an order that is confirmed.
    pub(crate) async fn invoice(&self, lines: &[(Uuid, i64)]) -> Document {
        self.store.invoice(self.confirmed(lines).await, &Cause::default()).await.unwrap()
    }

    /// The subjects of everything owed under this saga, in order.
    pub(crate) async fn owed(&self, saga: Uuid) -> Vec<String> {
        let sql = "SELECT subject FROM outbox WHERE saga = $1 ORDER BY id";
        self.database.get().await.unwrap().all(sql, &[&saga]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    /// The data of the last message under this saga and subject.
    pub(crate) async fn told(&self, saga: Uuid, subject: &str) -> Value {
        let sql = "SELECT data FROM outbox WHERE saga = $1 AND subject = $2 ORDER BY id DESC LIMIT 1";
        self.database.get().await.unwrap().one(sql, &[&saga, &subject]).await.unwrap().get(0)
    }

    pub(crate) async fn count(&self, table: &str) -> i64 {
        self.database.get().await.unwrap().one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0)
    }

    /// Makes whatever this saga waits for overdue now.
    pub(crate) async fn let_time_pass(&self, saga: Uuid) {
        let sql = "UPDATE sagas SET due_at = now() - interval '1 second' WHERE id = $1 AND due_at IS NOT NULL";
        assert_eq!(self.database.get().await.unwrap().run(sql, &[&saga]).await.unwrap(), 1, "{saga} waits for nothing");
    }
}

/// What item management answers about a saga, in a transaction as the consumer makes it.
pub(crate) async fn answer(database: &Database, id: Uuid, event: saga::Event) -> Result<(), store::Error> {
    let mut client = database.get().await?;
    let tx = client.transaction().await.map_err(database::Error::from)?;
    store::answer(&tx, id, &event, &Cause::default()).await?;
    tx.commit().await.map_err(database::Error::from)?;
    Ok(())
}

pub(crate) fn euros(amount: i64) -> Money {
    Money { amount, currency: "EUR".parse::<Currency>().unwrap() }
}

pub(crate) fn selection(lines: &[(Uuid, i64)]) -> Selection {
    Selection::new(lines.iter().map(|&(item_id, quantity)| SelectedLine { item_id, quantity }).collect()).unwrap()
}

fn contents(lines: &[(Uuid, i64)]) -> Contents {
    let quote =
        |&(item, _): &(Uuid, i64)| (item, Quote { sku: "CHAIR".into(), name: "A chair".into(), price: euros(100) });
    domain::price(&selection(lines), &lines.iter().map(quote).collect()).unwrap()
}

pub(crate) fn new_order(customer: &str, lines: &[(Uuid, i64)]) -> NewOrder {
    NewOrder { customer: customer.into(), contents: contents(lines), patience: Patience::default() }
}

pub(crate) fn new_key(principal: &str) -> RequestKey {
    RequestKey { principal: principal.into(), key: Uuid::new_v4().to_string(), fingerprint: [7; 32] }
}

/// An item management that quotes what it is told to, over mutual TLS, to those who bring a token.
pub(crate) struct Items {
    prices: Prices,
    lifecycle: Lifecycle,
    address: SocketAddr,
    client_identity: Arc<Identity>,
    minter: Arc<Minter>,
}

type Prices = Arc<Mutex<HashMap<Uuid, Value>>>;

impl Items {
    pub(crate) async fn start() -> Self {
        tls::install_provider();
        let authority = Authority::create(DOMAIN).unwrap();
        let (key, _) = SigningKey::generate().unwrap();
        let keys = KeySet::from_value(json!({ "keys": [key.jwk()] })).unwrap();
        let issuers = Issuers::from([(spiffe("eshop-documents"), keys)]);
        let verifier = Arc::new(Verifier::new(&spiffe(quotes::PEER), issuers, Clock::system()));
        let minter = Arc::new(Minter::new(&spiffe("eshop-documents"), key, Clock::system()));

        let prices = Prices::default();
        let router = Router::new()
            .route("/internal/quotes", post(quote))
            .route_layer(web::require(verifier))
            .with_state(Arc::clone(&prices));
        let settings = settings(quotes::PEER, HashMap::new());
        let server = Server::new(&settings, identity(&authority, quotes::PEER), router, Metrics::new(), Health::new());
        let server = server.bind().unwrap();
        let address = server.local_addr().unwrap();
        let lifecycle = Lifecycle::detached();
        let until = lifecycle.clone();
        tokio::spawn(async move { server.serve(&until).await });
        Self { prices, lifecycle, address, client_identity: identity(&authority, "eshop-documents"), minter }
    }

    /// A new item at this price.
    pub(crate) fn item(&self, price: Money) -> Uuid {
        let id = Uuid::now_v7();
        let line = json!({ "item_id": id, "sku": "CHAIR", "name": "A chair", "price": price, "quantity": 1, "stock_available": 5 });
        self.prices.lock().unwrap().insert(id, line);
        id
    }

    /// An item about which nonsense is quoted.
    pub(crate) fn nonsense(&self) -> Uuid {
        let id = Uuid::now_v7();
        self.prices.lock().unwrap().insert(id, json!({ "item_id": id, "price": "cheap" }));
        id
    }

    /// It goes away.
    pub(crate) async fn stop(&self) {
        self.lifecycle.drain();
        self.lifecycle.drained(std::time::Duration::from_secs(5)).await;
    }

    fn quotes(&self) -> Quotes {
        let settings = settings("eshop-documents", HashMap::from([(quotes::PEER, self.address)]));
        let metrics = UpstreamMetrics::register(&Metrics::new());
        let client =
            PeerClient::new(&settings, &self.client_identity, quotes::PEER, Limits::default(), &metrics).unwrap();
        Quotes::new(client, Arc::clone(&self.minter), spiffe(quotes::PEER))
    }
}

async fn quote(
    State(prices): State<Prices>,
    caller: Caller,
    berth_http::extract::Json(asked): berth_http::extract::Json<Value>,
) -> Result<axum::Json<Value>, Problem> {
    assert!(!caller.roles.is_empty(), "the token does not say who orders");
    assert_eq!(caller.actors, [spiffe("eshop-documents").to_string(), spiffe("gateway").to_string()]);
    let prices = prices.lock().unwrap();
    let id = |line: &Value| serde_json::from_value::<Uuid>(line["item_id"].clone()).unwrap();
    let (known, unknown): (Vec<_>, Vec<_>) =
        asked["lines"].as_array().unwrap().iter().map(id).partition(|id| prices.contains_key(id));
    let lines: Vec<_> = known.iter().map(|id| prices[id].clone()).collect();
    Ok(axum::Json(json!({ "quoted_at": "2026-11-23T10:00:00Z", "lines": lines, "unknown": unknown })))
}

fn settings(service: &str, peers: HashMap<&str, SocketAddr>) -> Settings {
    Settings {
        service: service.into(),
        instance: format!("{service}-1"),
        domain: DOMAIN.into(),
        listen: "127.0.0.1:0".parse().unwrap(),
        public_url: None,
        database_url: None,
        database_server: None,
        events_url: None,
        consumes: std::collections::BTreeMap::new(),
        audience: None,
        peers: peers.into_iter().map(|(name, address)| (name.to_owned(), vec![address.to_string()])).collect(),
    }
}

fn identity(authority: &Authority, name: &str) -> Arc<Identity> {
    let folder = tempfile::tempdir().unwrap();
    let leaf = authority.issue(name).unwrap();
    let files = [
        ("tls-cert.pem", leaf.cert_pem.as_str()),
        ("tls-key.pem", leaf.key_pem.as_str()),
        ("mesh-ca.pem", authority.ca_pem()),
    ];
    for (file, text) in files {
        std::fs::write(folder.path().join(file), text).unwrap();
    }
    Identity::load(&Credentials::at(folder.path()), DOMAIN).unwrap()
}

/// The whole service behind its router.
pub(crate) struct Service {
    pub(crate) world: World,
    pub(crate) items: Items,
    router: TestService,
    running: CancellationToken,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.running.cancel();
    }
}

impl Service {
    pub(crate) async fn start() -> Self {
        let (world, items) = (World::start().await, Items::start().await);
        let outcomes = Outcomes::default();
        let running = CancellationToken::new();
        tokio::spawn(outcomes.clone().run(world.store.clone(), running.clone()));
        let app = App {
            store: world.store.clone(),
            quotes: items.quotes(),
            outcomes,
            authorizer: Arc::new(api::authorizer().unwrap()),
            patience: Patience::default(),
        };
        let issuer = TestIssuer::new("eshop-documents");
        let router = TestService::new(api::router(app, issuer.verifier()), issuer);
        Self { world, items, router, running }
    }

    /// A request through the gateway, in somebody's name or in nobody's.
    pub(crate) async fn send(&self, caller: Option<&Principal>, request: Request<String>) -> Answer {
        self.router.send("gateway", caller, request.map(axum::body::Body::from)).await
    }

    pub(crate) async fn get(&self, caller: &Principal, path: &str) -> Answer {
        self.send(Some(caller), Request::get(path).body(String::new()).unwrap()).await
    }

    pub(crate) async fn post(&self, caller: &Principal, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.send(Some(caller), request.body(body.to_string()).unwrap()).await
    }

    /// Alice orders so many of an item.
    pub(crate) async fn order(&self, key: &str, prefer: Option<&str>, item: Uuid, quantity: i64) -> Answer {
        let headers: Vec<_> =
            std::iter::once(("idempotency-key", key)).chain(prefer.map(|prefer| ("prefer", prefer))).collect();
        self.post(&alice(), "/documents", &headers, &order_of(item, quantity)).await
    }

    /// The service is told to stop.
    pub(crate) fn drain(&self) {
        self.running.cancel();
    }

    /// What item management answers about a saga.
    pub(crate) async fn answer(&self, id: Uuid, event: saga::Event) {
        self.world.answer(id, event).await.unwrap();
    }
}

pub(crate) fn order_of(item: Uuid, quantity: i64) -> Value {
    json!({ "kind": "order", "lines": [{ "item_id": item, "quantity": quantity }] })
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

/// May nothing.
pub(crate) fn mallory() -> Principal {
    shopper("mallory", &[])
}
