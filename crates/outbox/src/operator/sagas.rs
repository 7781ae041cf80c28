//! Sagas of the service that owns them.

use std::future::Future;

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use berth_http::{
    extract::{Json, Path, Query},
    problem::{self, Problem},
};
use database::Database;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Operator, for_operators,
    outbox::{EventView, of_saga},
};

/// Most characters of the reason for which a saga is given up.
const LONGEST_REASON: usize = 500;

/// The sagas of a service, as its store knows them.
pub trait Sagas: Clone + Send + Sync + 'static {
    /// At most `limit` sagas, those first that are due first; only those that have not ended, when `open`.
    fn list(&self, open: bool, limit: u16) -> impl Future<Output = Result<Vec<SagaView>, Problem>> + Send;

    /// One of them.
    fn find(&self, id: Uuid) -> impl Future<Output = Result<Option<SagaView>, Problem>> + Send;

    /// Asks at once for what is awaited, as would be done in the end anyway; where no answer led on, asks once more. A problem where
    /// nothing is asked for, or where that would not ask but give up.
    ///
    /// This and what follows is written down in its own transaction by [`Operator::changed`].
    fn retry(&self, id: Uuid, operator: &Operator) -> impl Future<Output = Result<(), Problem>> + Send;

    /// Calls it off before its pivot. A problem where that cannot be any more.
    fn cancel(&self, id: Uuid, operator: &Operator) -> impl Future<Output = Result<(), Problem>> + Send;

    /// Gives up what has no way forward; nothing, where that has been done. A problem where there is a way.
    fn abandon(&self, id: Uuid, operator: &Operator, reason: &str) -> impl Future<Output = Result<(), Problem>> + Send;
}

/// Where a saga stands.
#[derive(Debug, Clone, Serialize)]
pub struct SagaView {
    /// Its id.
    pub id: Uuid,
    /// What it is about, in words.
    pub about: String,
    /// Its state.
    pub state: String,
    /// Whether it has come to an end.
    pub ended: bool,
    /// When the answer it waits for is overdue, by the clock of the database.
    pub due_at: Option<Timestamp>,
    /// How often it asked again for what it waits for.
    pub repeats: i32,
    /// Who began it.
    pub initiator: Option<String>,
    /// When it began.
    pub created_at: Timestamp,
    /// When it last moved.
    pub updated_at: Timestamp,
}

#[derive(Clone)]
struct App<S> {
    database: Database,
    sagas: S,
}

/// The operator's routes for the sagas of a service.
pub fn saga_router<S: Sagas>(database: Database, sagas: S) -> Router {
    let routes = Router::new()
        .route("/sagas", get(list::<S>))
        .route("/sagas/{id}", get(show::<S>))
        .route("/sagas/{id}/retry", post(retry::<S>))
        .route("/sagas/{id}/cancel", post(cancel::<S>))
        .route("/sagas/{id}/abandon", post(abandon::<S>))
        .with_state(App { database, sagas });
    for_operators(routes)
}

/// Which sagas.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    /// Also those that have come to an end.
    #[serde(default)]
    ended: bool,
    #[serde(default = "super::some")]
    limit: u16,
}

/// A saga with its history.
#[derive(Debug, Serialize)]
struct FullSaga {
    #[serde(flatten)]
    saga: SagaView,
    /// What it asked for and told, as far as the outbox still has it.
    events: Vec<EventView>,
}

async fn list<S: Sagas>(State(app): State<App<S>>, Query(which): Query<Which>) -> Result<Json<Vec<SagaView>>, Problem> {
    Ok(Json(app.sagas.list(!which.ended, which.limit.min(1000)).await?))
}

async fn show<S: Sagas>(State(app): State<App<S>>, Path(id): Path<Uuid>) -> Result<Json<FullSaga>, Problem> {
    let saga = app.sagas.find(id).await?.ok_or_else(|| problem::NOT_FOUND.detail(format!("There is no saga {id}.")))?;
    let events = of_saga(&*app.database.get().await?, id).await?;
    Ok(Json(FullSaga { saga, events }))
}

async fn retry<S: Sagas>(
    State(app): State<App<S>>,
    operator: Operator,
    Path(id): Path<Uuid>,
) -> Result<Json<Value>, Problem> {
    app.sagas.retry(id, &operator).await?;
    Ok(Json(json!({ "retried": id })))
}

async fn cancel<S: Sagas>(
    State(app): State<App<S>>,
    operator: Operator,
    Path(id): Path<Uuid>,
) -> Result<Json<Value>, Problem> {
    app.sagas.cancel(id, &operator).await?;
    Ok(Json(json!({ "cancelled": id })))
}

/// Why a saga is given up.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Because {
    reason: String,
}

async fn abandon<S: Sagas>(
    State(app): State<App<S>>,
    operator: Operator,
    Path(id): Path<Uuid>,
    Json(Because { reason }): Json<Because>,
) -> Result<Json<Value>, Problem> {
    let reason = reason.trim();
    if !(1..=LONGEST_REASON).contains(&reason.chars().count()) {
        let message = format!("must be 1 to {LONGEST_REASON} characters: whoever reads it later was not there");
        return Err(problem::INVALID_FIELD.detail("The request has an invalid field.").field("/reason", message));
    }
    app.sagas.abandon(id, &operator, reason).await?;
    Ok(Json(json!({ "abandoned": id })))
}
