//! HTTP in, HTTP out: what each operation asks for, who may do it, and what it answers. Its transactions stand here, their SQL in
//! [`store`](crate::store).

mod items;
mod quotes;
mod stock;

use std::{sync::Arc, time::Duration};

use auth::{
    cedar::{Authorizer, PolicyError, Resource},
    internal::Verifier,
    web::{self, Caller},
};
use axum::response::{IntoResponse, Response};
use berth_http::{
    extract::Json,
    openapi::{self, AccessToken},
    page::Page,
    problem::{self, Problem},
};
use database::Database;
use outbox::Outbox;
use runtime::clock::Clock;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// When to try again what the database could not do.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What handlers need.
#[derive(Clone)]
pub struct App {
    /// The service's own.
    pub database: Database,
    /// Woken after each write.
    pub outbox: Outbox,
    /// Decides who may do what.
    pub authorizer: Arc<Authorizer>,
    /// For the times in the books.
    pub clock: Clock,
}

/// The policies of this service, compiled.
pub fn authorizer() -> Result<Authorizer, PolicyError> {
    Authorizer::new(include_str!("../policy.cedar"), include_str!("../policy.cedarschema"))
}

#[derive(OpenApi)]
#[openapi(
    info(title = "item-management", description = "The shop's items and their stock."),
    tags(
        (name = "items", description = "What the shop sells."),
        (name = "stock", description = "How much of it there is, and who holds it."),
        (name = "internal", description = "For other services of the mesh; the gateway does not route it."),
    ),
    security(("access-token" = [])),
    modifiers(&AccessToken),
)]
struct Description;

fn operations() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(items::list_items, items::create_item))
        .routes(routes!(items::view_item, items::update_item, items::delete_item))
        .routes(routes!(stock::list_stock_adjustments, stock::adjust_stock))
        .routes(routes!(stock::list_reservations))
        .routes(routes!(quotes::quote))
}

/// The service's OpenAPI document.
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = operations().into_openapi();
    openapi::add_standard_problems(&mut document);
    document
}

/// The service's routes, closed to requests without a token that `verifier` accepts.
pub fn router(app: App, verifier: Arc<Verifier>) -> axum::Router {
    let (router, _) = operations().split_for_parts();
    let tokens = web::require(verifier).reporting(app.authorizer.refusals());
    router.route_layer(tokens).with_state(app)
}

impl App {
    /// Whether the caller may do this to all items, or to none in particular.
    fn authorize(&self, caller: &Caller, action: &str) -> Result<(), Problem> {
        Ok(self.authorizer.authorize(caller, action, &Resource::new("Catalogue", "items"))?)
    }

    /// Whether the caller may see this of an item. What one may not see does not exist.
    fn authorize_view(&self, caller: &Caller, action: &str, item: Uuid) -> Result<(), Problem> {
        let item = Resource::new("Item", item.to_string());
        self.authorizer.authorize(caller, action, &item).map_err(|denied| denied.hidden())
    }

    /// Whether the caller may change this item. For one who may not even see it, it does not exist.
    fn authorize_change(&self, caller: &Caller, action: &str, item: Uuid) -> Result<(), Problem> {
        self.authorize_view(caller, "view-item", item)?;
        let item = Resource::new("Item", item.to_string());
        Ok(self.authorizer.authorize(caller, action, &item)?)
    }
}

/// Why an operation failed: with an answer for the caller, or because of what is behind the service.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Problem(#[from] Problem),
    #[error(transparent)]
    Database(#[from] database::Error),
    #[error(transparent)]
    Outbox(#[from] outbox::Error),
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let problem = match self {
            Self::Problem(problem) => problem,
            Self::Database(error) | Self::Outbox(outbox::Error::Database(error)) if error.is_transient() => {
                problem::UNAVAILABLE
                    .detail("The database cannot be used now.")
                    .retry_after(RETRY_AFTER)
                    .caused_by(error)
            }
            Self::Database(error) => Problem::internal(error),
            Self::Outbox(error) => Problem::internal(error),
        };
        problem.into_response()
    }
}

fn no_such_item() -> Problem {
    problem::NOT_FOUND.detail("There is no such item.")
}

fn page<T>(page: Result<Page<T>, serde_json::Error>) -> Result<Json<Page<T>>, Failure> {
    Ok(Json(page.map_err(Problem::internal)?))
}
