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

/// The sagas of a service, as its store knows them.
pub trait Sagas: Clone + Send + Sync + 'static {
    /// At most `limit` sagas, those first that are due first; only those that have not ended, when `open`.
    fn list(&self, open: bool, limit: u16) -> impl Future<Output = Result<Vec<SagaView>, Problem>> + Send;

    /// One of them.
    fn find(&self, id: Uuid) -> impl Future<Output = Result<Option<SagaView>, Problem>> + Send;

    /// Asks at once for what is awaited, as would be done in the end anyway. A problem where nothing is awaited, or where that would
    /// not ask but give up.
    fn retry(&self, id: Uuid) -> impl Future<Output = Result<(), Problem>> + Send;

    /// Calls it off. A problem where that cannot be any more.
    fn cancel(&self, id: Uuid, operator: &str) -> impl Future<Output = Result<(), Problem>> + Send;
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
    app.sagas.retry(id).await?;
    operator.changed(&*app.database.get().await?, "retry", &format!("saga {id}")).await?;
    Ok(Json(json!({ "retried": id })))
}

async fn cancel<S: Sagas>(
    State(app): State<App<S>>,
    operator: Operator,
    Path(id): Path<Uuid>,
) -> Result<Json<Value>, Problem> {
    app.sagas.cancel(id, &operator.0).await?;
    operator.changed(&*app.database.get().await?, "cancel", &format!("saga {id}")).await?;
    Ok(Json(json!({ "cancelled": id })))
}
