//! HTTP in, HTTP out: what each operation asks for, who may do it, and what it answers. The bodies stand in [`view`].

mod view;

use std::sync::Arc;

use auth::{
    cedar::{Authorizer, PolicyError, Resource},
    internal::Verifier,
    seal::Sealer,
    web::{self, Caller},
};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use berth_http::{
    etag::{Etag, IfMatch, IfNoneMatch},
    extract::{Json, Path, Query},
    openapi::{AccessToken, add_standard_problems},
    page::{Cursor, Limit, Page},
    problem::{self, Problem, ProblemType},
};
use database::{Database, ScopedFutureExt as _, Transaction};
use http::{StatusCode, header};
use outbox::Outbox;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tls::SpiffeId;
use utoipa::{IntoParams, OpenApi};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use self::view::{
    Created, DeliveryView, NewSubscription, ReplayRequest, Replayed, SubscriptionPatch, SubscriptionView, endpoint,
    event_types,
};
use crate::{
    domain::{DeliveryState, Endpoint, MAX_SUBSCRIPTIONS, Owner, State as SubscriptionState, Subscription},
    messages::{self, Change, user},
    reach::Reach,
    signature::Secret,
    store::{self, Replay, Wanted},
};

/// Most deliveries that one request makes once more.
pub const MAX_REPLAYED: i64 = 10_000;

static TOO_MANY_SUBSCRIPTIONS: ProblemType =
    ProblemType::new("too-many-subscriptions", 409, "You have as many subscriptions as one may have");

/// What handlers need.
#[derive(Clone)]
pub struct App {
    /// Subscriptions and deliveries.
    pub database: Database,
    /// Woken after each write.
    pub outbox: Outbox,
    /// Decides who may do what.
    pub authorizer: Arc<Authorizer>,
    /// Encrypts the subscribers' secrets.
    pub sealer: Arc<Sealer>,
    /// Where messages may go.
    pub reach: Reach,
    /// Who this is: the source of messages that tell of no event.
    pub own: SpiffeId,
}

/// The policies of this service, compiled.
///
/// # Errors
/// When they are wrong, which a test rules out.
pub fn authorizer() -> Result<Authorizer, PolicyError> {
    Authorizer::new(include_str!("../policy.cedar"), include_str!("../policy.cedarschema"))
}

#[derive(OpenApi)]
#[openapi(
    info(title = "notifier", description = "Webhooks: who is told of which events, where, and what became of it."),
    tags(
        (name = "subscriptions", description = "Who is told of what, where."),
        (name = "deliveries", description = "What was told, and what is to be told again."),
    ),
    security(("access-token" = [])),
    modifiers(&AccessToken),
)]
struct Description;

fn operations() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(list_subscriptions, create_subscription))
        .routes(routes!(view_subscription, change_subscription, delete_subscription))
        .routes(routes!(test_subscription))
        .routes(routes!(list_deliveries))
        .routes(routes!(replay_deliveries))
        .routes(routes!(replay_delivery))
}

/// The service's OpenAPI document.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = operations().into_openapi();
    add_standard_problems(&mut document);
    document
}

/// The service's routes, closed to requests without a token that `verifier` accepts.
pub fn router(app: App, verifier: Arc<Verifier>) -> axum::Router {
    let (router, _) = operations().split_for_parts();
    let tokens = web::require(verifier).reporting(app.authorizer.refusals());
    router.route_layer(tokens).with_state(app)
}

fn all() -> Resource {
    Resource::new("Subscriptions", "subscriptions")
}

fn resource(subscription: &Subscription) -> Resource {
    Resource::new("Subscription", subscription.id).with(json!({ "owner": user(&subscription.owner.subject) }))
}

fn no_such_subscription() -> Problem {
    problem::NOT_FOUND.detail("There is no such subscription.")
}

fn no_such_delivery() -> Problem {
    problem::NOT_FOUND.detail("There is no such delivery.")
}

impl App {
    /// The subscription, if the caller may see it. One that a caller may not see does not exist.
    async fn visible(&self, caller: &Caller, id: Uuid) -> Result<Subscription, Problem> {
        let found = store::find(&*self.database.get().await?, id).await?.ok_or_else(no_such_subscription)?;
        let viewed = self.authorizer.authorize(caller, "view-subscription", &resource(&found));
        viewed.map_err(|_| no_such_subscription())?;
        Ok(found)
    }

    /// The same, if the caller may change it as well.
    async fn changeable(&self, caller: &Caller, id: Uuid) -> Result<Subscription, Problem> {
        let found = self.visible(caller, id).await?;
        self.authorizer.authorize(caller, "change-subscription", &resource(&found))?;
        Ok(found)
    }

    /// Whether this owner may be told of what is not theirs.
    fn everybodys(&self, owner: &Owner) -> bool {
        self.authorizer.permits(&owner.into(), "receive-everybodys-events", &all())
    }
}

/// Why a transaction was not committed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Problem(#[from] Problem),
    #[error(transparent)]
    Database(#[from] database::Error),
    #[error(transparent)]
    Outbox(#[from] outbox::Error),
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Problem(problem) => problem,
            Failure::Database(error) => error.into(),
            Failure::Outbox(error) => error.into(),
        }
    }
}

/// The subscription, which nobody else changes now, if it is the one that the request is based on.
async fn lock(tx: &Transaction<'_>, id: Uuid, condition: &IfMatch) -> Result<Subscription, Failure> {
    let found = store::lock(tx, id).await?.ok_or_else(no_such_subscription)?;
    condition.require(found.version)?;
    Ok(found)
}

fn location(id: Uuid) -> String {
    format!("/subscriptions/{id}")
}

fn tagged(subscription: Subscription) -> Response {
    (Etag::from_version(subscription.version), Json(SubscriptionView::from(subscription))).into_response()
}

/// Where a list goes on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct After {
    id: Uuid,
}

/// Which subscriptions are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// `next` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<After>>,
    /// How many subscriptions at most.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 100, default = 20)]
    limit: Limit,
}

/// List subscriptions
///
/// The caller's own, an admin's list has everybody's; in the order in which they were made, a page at a time.
#[utoipa::path(get, path = "/subscriptions", tag = "subscriptions", params(ListQuery), responses(
    (status = 200, description = "A page of subscriptions.", body = Page<SubscriptionView>),
))]
async fn list_subscriptions(
    State(app): State<App>,
    caller: Caller,
    query: Result<Query<ListQuery>, Problem>,
) -> Result<Json<Page<SubscriptionView>>, Problem> {
    app.authorizer.authorize(&caller, "list-subscriptions", &all())?;
    let Query(ListQuery { cursor, limit }) = query?;
    let everybodys = app.authorizer.permits(&caller, "list-everybodys-subscriptions", &all());
    let owner = (!everybodys).then_some(caller.subject.as_str());
    let after = cursor.map(|Cursor(After { id })| id);
    let found = store::list(&*app.database.get().await?, owner, after, limit.rows()).await?;
    let views = found.into_iter().map(SubscriptionView::from).collect();
    Ok(Json(Page::of(views, limit, |last: &SubscriptionView| After { id: last.id }).map_err(Problem::internal)?))
}

/// Subscribe
///
/// The secret stands in this answer and never again.
#[utoipa::path(post, path = "/subscriptions", tag = "subscriptions", request_body = NewSubscription, responses(
    (status = 201, description = "The subscription, with the secret to verify its messages with.", body = Created, headers(("location" = String), ("etag" = String))),
    (status = 409, description = "The caller has as many subscriptions as one may have.", body = Problem, content_type = "application/problem+json"),
))]
async fn create_subscription(
    State(app): State<App>,
    caller: Caller,
    body: Result<Json<NewSubscription>, Problem>,
) -> Result<Response, Problem> {
    app.authorizer.authorize(&caller, "create-subscription", &all())?;
    let Json(NewSubscription { url, event_types: kinds }) = body?;
    let (endpoint, kinds) = (&endpoint(&url, &app.reach)?, &event_types(kinds)?);
    let owner = &Owner::from(&*caller);
    let (id, secret) = (Uuid::now_v7(), Secret::generate().map_err(Problem::internal)?);
    let sealed = &app.sealer.seal(&store::secret_name(id), secret.expose()).map_err(Problem::internal)?;
    let wanted = &Wanted { owner, everybodys: app.everybodys(owner), endpoint, event_types: kinds };
    let made = app.database.transaction(|tx| {
        async move {
            let made = store::insert(tx, id, wanted, sealed, MAX_SUBSCRIPTIONS).await?;
            let made = made.ok_or_else(|| {
                TOO_MANY_SUBSCRIPTIONS
                    .detail(format!("You have {MAX_SUBSCRIPTIONS} already. Remove one, or add event types to one."))
            })?;
            messages::tell(tx, Change::Created, &made, Some(&owner.subject)).await?;
            Ok::<_, Failure>(made)
        }
        .scope_boxed()
    });
    let made = made.await?;
    app.outbox.wake();
    let etag = Etag::from_version(made.version);
    let created = Created { subscription: made.into(), secret: secret.text().to_string() };
    Ok((StatusCode::CREATED, [(header::LOCATION, location(id))], etag, Json(created)).into_response())
}

/// View a subscription
#[utoipa::path(get, path = "/subscriptions/{id}", tag = "subscriptions",
    params(("id" = Uuid, Path), ("if-none-match" = Option<String>, Header, description = "The entity tag of what the caller holds already.")),
    responses(
        (status = 200, description = "The subscription.", body = SubscriptionView, headers(("etag" = String))),
        (status = 304, description = "It is what the caller holds already."),
        (status = 404, description = "There is none, or it is somebody else's.", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn view_subscription(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    held: IfNoneMatch,
) -> Result<Response, Problem> {
    let found = app.visible(&caller, id).await?;
    let etag = Etag::from_version(found.version);
    if held.holds(&etag) {
        return Ok((StatusCode::NOT_MODIFIED, etag, ()).into_response());
    }
    Ok(tagged(found))
}

/// Change a subscription
///
/// What is not given stays as it is. A subscription that was disabled is made active again so; the caller's roles as they are now decide
/// what its owner is told of.
#[utoipa::path(patch, path = "/subscriptions/{id}", tag = "subscriptions", request_body = SubscriptionPatch,
    params(("id" = Uuid, Path), ("if-match" = String, Header, description = "The entity tag of what is changed.")),
    responses(
        (status = 200, description = "The subscription as it is now.", body = SubscriptionView, headers(("etag" = String))),
        (status = 404, description = "There is none, or it is somebody else's.", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It was changed meanwhile.", body = Problem, content_type = "application/problem+json"),
        (status = 428, description = "If-Match is missing.", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn change_subscription(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    condition: Result<IfMatch, Problem>,
    body: Result<Json<SubscriptionPatch>, Problem>,
) -> Result<Response, Problem> {
    app.changeable(&caller, id).await?;
    let (condition, Json(SubscriptionPatch { url, event_types: kinds, state })) = (&condition?, body?);
    let endpoint = &url.map(|url| endpoint(&url, &app.reach)).transpose()?;
    let kinds = &kinds.map(event_types).transpose()?;
    let (app, caller) = (&app, &caller);
    let changed = app.database.transaction(|tx| {
        async move {
            let found = lock(tx, id, condition).await?;
            // An admin who mends somebody's subscription does not give away what an admin may see.
            let owner =
                if found.owner.subject == caller.subject { Owner::from(&**caller) } else { found.owner.clone() };
            let stored = || Endpoint::stored(&found.url).ok_or_else(|| Problem::internal("a stored URL is none"));
            let endpoint = endpoint.clone().map_or_else(stored, Ok)?;
            let wanted = Wanted {
                owner: &owner,
                everybodys: app.everybodys(&owner),
                endpoint: &endpoint,
                event_types: kinds.as_ref().unwrap_or(&found.event_types),
            };
            let state = state.map_or(found.state, SubscriptionState::from);
            let state = if state == SubscriptionState::Disabled { SubscriptionState::Active } else { state };
            let changed = store::update(tx, id, &wanted, state).await?;
            messages::tell(tx, Change::Updated, &changed, Some(&caller.subject)).await?;
            Ok::<_, Failure>(changed)
        }
        .scope_boxed()
    });
    let changed = changed.await?;
    app.outbox.wake();
    Ok(tagged(changed))
}

/// Unsubscribe
///
/// With all that was to be delivered.
#[utoipa::path(delete, path = "/subscriptions/{id}", tag = "subscriptions",
    params(("id" = Uuid, Path), ("if-match" = String, Header, description = "The entity tag of what is removed.")),
    responses(
        (status = 204, description = "It is gone."),
        (status = 404, description = "There is none, or it is somebody else's.", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It was changed meanwhile.", body = Problem, content_type = "application/problem+json"),
        (status = 428, description = "If-Match is missing.", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn delete_subscription(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    condition: Result<IfMatch, Problem>,
) -> Result<StatusCode, Problem> {
    app.changeable(&caller, id).await?;
    let (condition, caller) = (&condition?, &caller);
    let deleted = app.database.transaction(|tx| {
        async move {
            let found = lock(tx, id, condition).await?;
            store::delete(tx, id).await?;
            messages::tell(tx, Change::Deleted, &found, Some(&caller.subject)).await?;
            Ok::<_, Failure>(())
        }
        .scope_boxed()
    });
    deleted.await?;
    app.outbox.wake();
    Ok(StatusCode::NO_CONTENT)
}

/// Try a subscription
///
/// Sends a message of the type `notifications.subscription.tested`, signed like every other.
#[utoipa::path(post, path = "/subscriptions/{id}/test", tag = "deliveries", params(("id" = Uuid, Path)), responses(
    (status = 202, description = "The delivery that is being made.", body = DeliveryView),
    (status = 404, description = "There is no such subscription, or it is somebody else's.", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "It is not active.", body = Problem, content_type = "application/problem+json"),
))]
async fn test_subscription(State(app): State<App>, caller: Caller, Path(id): Path<Uuid>) -> Result<Response, Problem> {
    let found = app.changeable(&caller, id).await?;
    if found.state != SubscriptionState::Active {
        return Err(problem::CONFLICT.detail("The subscription is not active.").with("state", found.state));
    }
    let (event, body) = messages::test_message(app.own.as_str(), &found).map_err(Problem::internal)?;
    let (body, to) = (&body, &[id]);
    let told = app.database.transaction(|tx| store::tell(tx, event, messages::TEST, body, to).scope_boxed()).await?;
    app.outbox.wake();
    let client = app.database.get().await?;
    let delivery = match told.first() {
        Some(delivery) => store::find_delivery(&*client, id, *delivery).await?,
        None => None,
    };
    let delivery = delivery.ok_or_else(no_such_delivery)?;
    Ok((StatusCode::ACCEPTED, Json(DeliveryView::from(delivery))).into_response())
}

/// Which deliveries are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DeliveryQuery {
    /// `next` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<After>>,
    /// How many deliveries at most.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 100, default = 20)]
    limit: Limit,
    /// Only deliveries in this state.
    state: Option<DeliveryState>,
}

/// List deliveries
///
/// The newest first, a page at a time. They are kept for 30 days.
#[utoipa::path(get, path = "/subscriptions/{id}/deliveries", tag = "deliveries",
    params(("id" = Uuid, Path), DeliveryQuery),
    responses(
        (status = 200, description = "A page of deliveries.", body = Page<DeliveryView>),
        (status = 404, description = "There is no such subscription, or it is somebody else's.", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn list_deliveries(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    query: Result<Query<DeliveryQuery>, Problem>,
) -> Result<Json<Page<DeliveryView>>, Problem> {
    app.visible(&caller, id).await?;
    let Query(DeliveryQuery { cursor, limit, state }) = query?;
    let before = cursor.map(|Cursor(After { id })| id);
    let found = store::list_deliveries(&*app.database.get().await?, id, state, before, limit.rows()).await?;
    let views = found.into_iter().map(DeliveryView::from).collect();
    Ok(Json(Page::of(views, limit, |last: &DeliveryView| After { id: last.id }).map_err(Problem::internal)?))
}

/// Deliver again
///
/// All deliveries of events that came within a time, at most 10,000: as if they had never been tried. With `state` only those in
/// that state, such as those that failed.
#[utoipa::path(post, path = "/subscriptions/{id}/deliveries/replay", tag = "deliveries", request_body = ReplayRequest,
    params(("id" = Uuid, Path)),
    responses(
        (status = 202, description = "How many are being made again.", body = Replayed),
        (status = 404, description = "There is no such subscription, or it is somebody else's.", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn replay_deliveries(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    body: Result<Json<ReplayRequest>, Problem>,
) -> Result<Response, Problem> {
    app.changeable(&caller, id).await?;
    let Json(ReplayRequest { from, until, state }) = body?;
    if until.is_some_and(|until| until <= from) {
        return Err(problem::INVALID_FIELD.detail("The time is empty.").field("/until", "must be after from"));
    }
    let which = Replay { only: None, from: Some(from), until, state };
    let replayed = store::replay(&*app.database.get().await?, id, which, MAX_REPLAYED).await?;
    app.outbox.wake();
    Ok((StatusCode::ACCEPTED, Json(Replayed { replayed })).into_response())
}

/// Deliver one again
///
/// As if it had never been tried.
#[utoipa::path(post, path = "/subscriptions/{id}/deliveries/{delivery}/replay", tag = "deliveries",
    params(("id" = Uuid, Path), ("delivery" = Uuid, Path)),
    responses(
        (status = 202, description = "The delivery that is being made again.", body = DeliveryView),
        (status = 404, description = "There is no such delivery, or it is somebody else's.", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn replay_delivery(
    State(app): State<App>,
    caller: Caller,
    Path((id, delivery)): Path<(Uuid, Uuid)>,
) -> Result<Response, Problem> {
    app.changeable(&caller, id).await?;
    let client = app.database.get().await?;
    store::replay(&*client, id, Replay { only: Some(delivery), ..Replay::default() }, 1).await?;
    let found = store::find_delivery(&*client, id, delivery).await?.ok_or_else(no_such_delivery)?;
    app.outbox.wake();
    Ok((StatusCode::ACCEPTED, Json(DeliveryView::from(found))).into_response())
}
