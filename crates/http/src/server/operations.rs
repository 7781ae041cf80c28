//! What the mesh asks of every service: `/livez`, `/readyz`, `/metrics`.

use axum::{
    Router,
    extract::State,
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use runtime::telemetry::Metrics;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{layers, metrics::ServerMetrics};
use crate::{
    extract::Json,
    health::{Health, Readiness},
    problem::UNAVAILABLE,
};

#[derive(Clone)]
struct Asked {
    metrics: Metrics,
    health: Health,
    draining: CancellationToken,
}

pub(super) fn router(metrics: Metrics, health: Health, draining: CancellationToken, server: &ServerMetrics) -> Router {
    Router::new()
        .route("/livez", get(async || Json(json!({"alive": true}))))
        .route("/readyz", get(readyz))
        .route(
            "/metrics",
            get(async |State(asked): State<Asked>| {
                ([(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)], asked.metrics.encode())
            }),
        )
        .with_state(Asked { metrics, health, draining })
        .layer(middleware::from_fn(layers::document_rejections))
        .layer(middleware::from_fn_with_state(layers::Observe::quietly(server), layers::observe))
}

/// 200, or a problem that names the checks that failed. A draining instance is not ready: it finishes what it has.
async fn readyz(State(asked): State<Asked>) -> Response {
    let readiness = if asked.draining.is_cancelled() { Readiness::draining() } else { asked.health.readiness().await };
    if readiness.is_ready() {
        return (StatusCode::OK, Json(json!({"ready": true, "checks": readiness.checks}))).into_response();
    }
    let unready = readiness.unready().join(", ");
    UNAVAILABLE
        .detail(format!("Not ready: {unready}."))
        .with("ready", false)
        .with("checks", readiness.checks)
        .into_response()
}
