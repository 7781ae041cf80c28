//! A service of the test's own: its PostgreSQL, its router, its callers, a clock that only the test moves.

use std::sync::Arc;

pub(crate) use auth::testing::Answer;
use auth::{
    Principal,
    testing::{TestIssuer, TestService, shopper, signed_in_only},
};
use axum::body::Body;
use database::Database;
use http::{HeaderName, Method, Request, header};
use item_management::{
    api::{self, App},
    domain::{Item, NewItem},
    store,
};
use jiff::Timestamp;
use outbox::Outbox;
use runtime::clock::Clock;
use serde_json::{Value, json};
use testkit::Postgres;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Where the test's clock stands at first.
pub(crate) const START: &str = "2026-11-23T12:00:00Z";

/// Runs a future of the store in a transaction that is committed if it gives `Ok`.
macro_rules! in_transaction {
    ($world:expr, |$tx:ident| $work:expr) => {{
        let mut client = $world.database.get().await.unwrap();
        let transaction = client.transaction().await.unwrap();
        let $tx = &transaction;
        let outcome = $work.await;
        if outcome.is_ok() {
            transaction.commit().await.unwrap();
        }
        outcome
    }};
}
pub(crate) use in_transaction;

pub(crate) struct World {
    pub(crate) postgres: Postgres,
    pub(crate) database: Database,
    pub(crate) clock: Clock,
    /// A connection past the service.
    pub(crate) reader: tokio_postgres::Client,
    service: TestService,
}

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// Without a token.
    Nobody,
    /// A user with this role alone.
    Role(&'static str),
    /// A user without any role.
    Mallory,
    /// A clerk, through a client that only signs people in.
    SignedInOnly,
    /// eshop-documents on behalf of a user with this role.
    DocumentsFor(&'static str),
    /// eshop-documents on its own behalf.
    Documents,
}

pub(crate) const CUSTOMER: Who = Who::Role("customer");
pub(crate) const CLERK: Who = Who::Role("clerk");
pub(crate) const AUDITOR: Who = Who::Role("auditor");
pub(crate) const ADMIN: Who = Who::Role("admin");

impl World {
    pub(crate) async fn new() -> Self {
        let postgres = Postgres::start().await;
        let server = postgres.database("item-management").await;
        let database = Database::at(&server.url, &server.password).unwrap();
        let stop = CancellationToken::new();
        Outbox::migrate(&database, &stop).await.unwrap();
        store::migrate(&database, &stop).await.unwrap();
        let clock = Clock::manual(START.parse().unwrap());
        let issuer = TestIssuer::with_callers("item-management", &["gateway", "eshop-documents"], Clock::system());
        let app = App {
            database: database.clone(),
            outbox: Outbox::default(),
            authorizer: Arc::new(api::authorizer().unwrap()),
            clock: clock.clone(),
        };
        let service = TestService::new(api::router(app, issuer.verifier()), issuer);
        Self { postgres, database, clock, reader: server.client().await, service }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn call(&self, who: Who, method: Method, path: impl AsRef<str>) -> Call<'_> {
        let request = Request::builder().method(method).uri(path.as_ref());
        Call { world: self, who, request, body: Body::empty() }
    }

    pub(crate) fn get(&self, who: Who, path: impl AsRef<str>) -> Call<'_> {
        self.call(who, Method::GET, path)
    }

    pub(crate) fn post(&self, who: Who, path: impl AsRef<str>, body: &Value) -> Call<'_> {
        self.call(who, Method::POST, path).json(body)
    }

    /// Makes an item past the API.
    pub(crate) async fn item(&self, sku: &str, on_hand: i64) -> Item {
        let new: NewItem = serde_json::from_value(an_item(sku, on_hand)).unwrap();
        let now = self.now();
        in_transaction!(self, |tx| store::insert_item(tx, &new, now)).unwrap()
    }

    /// Stock on hand and reserved of an item, deleted or not.
    pub(crate) async fn stock(&self, id: Uuid) -> (i64, i64) {
        let row = self
            .reader
            .query_one("SELECT stock_on_hand, stock_reserved FROM items WHERE id = $1", &[&id])
            .await
            .unwrap();
        (row.get(0), row.get(1))
    }

    /// Subjects and data of everything the service emitted, in order.
    pub(crate) async fn emitted(&self) -> Vec<(String, Value)> {
        let rows = self.reader.query("SELECT subject, data FROM outbox ORDER BY position", &[]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// How many rows the service's own tables and its outbox have: to show that nothing was written.
    pub(crate) async fn rows(&self) -> i64 {
        let tables = ["items", "stock_entries", "reservations", "reservation_lines", "stock_returns", "outbox"];
        let counts = tables.map(|table| format!("(SELECT count(*) FROM {table})")).join(" + ");
        self.reader.query_one(&format!("SELECT {counts}"), &[]).await.unwrap().get(0)
    }
}

/// The body of a `POST /items`.
pub(crate) fn an_item(sku: &str, on_hand: i64) -> Value {
    json!({"sku": sku, "name": format!("Item {sku}"), "price": {"amount": 500, "currency": "EUR"}, "stock_on_hand": on_hand})
}

/// A request on its way to the service.
pub(crate) struct Call<'a> {
    world: &'a World,
    who: Who,
    request: http::request::Builder,
    body: Body,
}

impl Call<'_> {
    pub(crate) fn header(mut self, name: impl TryInto<HeaderName, Error: Into<http::Error>>, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    pub(crate) fn if_match(self, etag: &str) -> Self {
        self.header(header::IF_MATCH, etag)
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.header(header::CONTENT_TYPE, "application/json").body(body.to_string())
    }

    pub(crate) fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) async fn send(self) -> Answer {
        let request = self.request.body(self.body).unwrap();
        let user = |role: &str| shopper(&format!("the-{role}"), &[role]);
        let documents = Principal::service(&auth::testing::spiffe("eshop-documents"));
        let (from, who) = match self.who {
            Who::Nobody => ("gateway", None),
            Who::Mallory => ("gateway", Some(shopper("mallory", &[]))),
            Who::SignedInOnly => ("gateway", Some(signed_in_only(user("clerk")))),
            Who::Role(role) => ("gateway", Some(user(role))),
            Who::DocumentsFor(role) => ("eshop-documents", Some(user(role))),
            Who::Documents => ("eshop-documents", Some(documents)),
        };
        self.world.service.send(from, who.as_ref(), request).await
    }
}
