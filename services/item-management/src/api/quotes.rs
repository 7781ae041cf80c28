//! What other services of the mesh ask before they act.

use auth::{cedar::Resource, web::Caller};
use axum::{Extension, extract::State};
use berth_http::{
    extract::Json,
    problem::{self, Problem},
    server::Peer,
};
use serde_json::json;

use super::{App, Failure};
use crate::{
    domain::{MAX_LINES, Quote, QuoteRequest},
    store,
};

/// Quote prices and availability
///
/// For `eshop-documents`, before it takes an order. All lines are read at one moment; nothing is promised.
#[utoipa::path(post, path = "/internal/quotes", tag = "internal", request_body = QuoteRequest, responses(
    (status = 200, description = "The quote.", body = Quote),
    (status = 404, description = "The caller is not `eshop-documents`.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn quote(
    State(app): State<App>,
    caller: Caller,
    Extension(Peer(peer)): Extension<Peer>,
    request: Result<Json<QuoteRequest>, Problem>,
) -> Result<Json<Quote>, Failure> {
    let quote = Resource::new("Quote", "quotes").with(json!({ "caller": peer.name() }));
    app.authorizer.authorize(&caller, "quote", &quote).map_err(|denied| denied.hidden())?;
    let Json(QuoteRequest { lines: asked }) = request?;
    if asked.is_empty() || asked.len() > MAX_LINES {
        let message = format!("must be 1 to {MAX_LINES} lines, not {}", asked.len());
        return Err(problem::INVALID_FIELD.detail("A quote needs lines.").field("/lines", message).into());
    }
    let quoted_at = app.clock.now();
    let lines = store::quote(&*app.database.get().await?, &asked).await?;
    let known = |id| lines.iter().any(|line| line.item_id == id);
    let unknown = asked.iter().map(|line| line.item_id).filter(|&id| !known(id)).collect();
    Ok(Json(Quote { quoted_at, lines, unknown }))
}
