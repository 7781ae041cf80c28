//! What an operator sees of outbox, inbox, dead letters and sagas, and what can be mended there without SQL.
//!
//! A service mounts [`router`] beside its own routes, and [`saga_router`] if it has sagas. Who calls must show a certificate of the
//! mesh in the name [`NAME`], which no service can have; the header [`WHO`] says which person that is. Everything that is
//! changed is written to the log and to the table `interventions`, with that person.
//!
//! The paths are not for clients of the service: the gateway routes none of them. `berth outbox`, `inbox`, `dead-letters` and `sagas`
//! use them.

mod dead_letters;
mod inbox;
mod outbox;
mod sagas;

use std::{future::Future, time::Duration};

use axum::{
    Router,
    extract::{FromRequestParts, Request, State},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use berth_http::{
    extract::{Json, Query},
    problem::{self, Problem},
    server::Peer,
};
use database::{Connection, Database, Statements as _, Transaction};
use http::request::Parts;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

pub use self::sagas::{SagaView, Sagas, saga_router};
use crate::{Events, Outbox};

/// The name in the certificate of an operator. No service of a mesh is called so.
pub const NAME: &str = "operator";

/// The header that says which person the operator is. Believed: whoever holds the certificate can call itself anything.
pub const WHO: &str = "berth-operator";

/// Longest wait for what the event server knows: the rest of the answer does without.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the handlers need.
#[derive(Clone)]
struct App {
    database: Database,
    events: Events,
    outbox: Outbox,
}

impl App {
    /// What the event server answers, unless it is away.
    async fn of_server<T>(&self, answer: impl Future<Output = Option<T>>) -> Option<T> {
        if !self.events.is_connected() {
            return None;
        }
        timeout(PATIENCE, answer).await.ok().flatten()
    }
}

/// The operator's routes of a service with an outbox or an inbox, below `/internal/messaging`.
pub fn router(database: Database, events: Events, outbox: Outbox) -> Router {
    let routes = Router::new()
        .route("/outbox", get(outbox::state))
        .route("/outbox/events", get(outbox::list))
        .route("/outbox/events/{id}", get(outbox::show))
        .route("/outbox/events/{id}/republish", post(outbox::republish))
        .route("/inbox", get(inbox::state))
        .route("/inbox/waiting", get(inbox::waiting))
        .route("/inbox/events/{id}", get(inbox::show))
        .route("/inbox/skip", post(inbox::skip))
        .route("/inbox/adopt", post(inbox::adopt))
        .route("/dead-letters", get(dead_letters::list))
        .route("/dead-letters/{id}", get(dead_letters::show))
        .route("/dead-letters/{id}/replay", post(dead_letters::replay))
        .route("/dead-letters/{id}/discard", post(dead_letters::discard))
        .route("/interventions", get(interventions))
        .with_state(App { database, events, outbox });
    for_operators(routes)
}

fn for_operators(routes: Router) -> Router {
    Router::new().nest("/internal/messaging", routes.route_layer(middleware::from_fn(only_operators)))
}

async fn only_operators(mut request: Request, next: Next) -> Result<Response, Problem> {
    let peer = request.extensions().get::<Peer>().map(|Peer(id)| id.name().to_owned());
    if peer.as_deref() != Some(NAME) {
        tracing::warn!(peer, path = request.uri().path(), "refused somebody who is no operator");
        return Err(problem::FORBIDDEN.detail("This is for operators of the mesh."));
    }
    let who = request.headers().get(WHO).and_then(|who| who.to_str().ok()).unwrap_or("unnamed");
    let operator = Operator::named(who);
    request.extensions_mut().insert(operator);
    Ok(next.run(request).await)
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Operator(String);

impl<S: Sync> FromRequestParts<S> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get().cloned().ok_or_else(|| problem::FORBIDDEN.detail("This is for operators of the mesh."))
    }
}

impl Operator {
    /// The operator of this name, of which 128 characters are kept.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self(name.chars().take(128).collect())
    }

    /// What the operator is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Writes down what was changed, in the transaction of the change: the action in one word, on what, and the reason where one
    /// had to be given.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn changed(
        &self,
        tx: &Transaction<'_>,
        action: &str,
        subject: &str,
        reason: Option<&str>,
    ) -> Result<(), database::Error> {
        tracing::warn!(operator = self.0, action, subject, reason, "an operator changed something");
        let sql = "INSERT INTO interventions (operator, action, subject, reason) VALUES ($1, $2, $3, $4)";
        tx.run(sql, &[&self.0, &action, &subject, &reason]).await?;
        Ok(())
    }
}

/// How much of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Portion {
    /// At most so many, up to 1000.
    #[serde(default = "some")]
    limit: u16,
}

fn some() -> u16 {
    100
}

/// What an operator changed.
#[derive(Debug, Serialize)]
struct Intervention {
    at: Timestamp,
    operator: String,
    action: String,
    subject: String,
    reason: Option<String>,
}

/// What operators changed, the latest first.
async fn interventions(
    State(app): State<App>,
    Query(portion): Query<Portion>,
) -> Result<Json<Vec<Intervention>>, Problem> {
    let sql = "SELECT at, operator, action, subject, reason FROM interventions ORDER BY id DESC LIMIT $1";
    let rows = app.database.get().await?.all(sql, &[&i64::from(portion.limit.min(1000))]).await?;
    let intervention = |row: &database::Row| Intervention {
        at: row.get("at"),
        operator: row.get("operator"),
        action: row.get("action"),
        subject: row.get("subject"),
        reason: row.get("reason"),
    };
    Ok(Json(rows.iter().map(intervention).collect()))
}

/// The names of the consumers that this database knows of.
async fn consumers(connection: &Connection) -> Result<Vec<String>, database::Error> {
    let sql = "SELECT consumer FROM inbox_progress UNION SELECT consumer FROM inbox_parked
        UNION SELECT consumer FROM dead_letters WHERE consumer <> 'outbox' ORDER BY 1";
    Ok(connection.all(sql, &[]).await?.iter().map(|row| row.get(0)).collect())
}
