//! HTTP in, HTTP out: what each operation asks for, who may do it, and what it answers. The bodies stand in [`view`].

use std::{sync::Arc, time::Duration};

use auth::{
    cedar::{Authorizer, PolicyError, Resource},
    internal::Verifier,
    web::{self, Caller},
};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use berth_http::{
    etag::Etag,
    extract::{IDEMPOTENCY_KEY, IdempotencyKey, IfNoneMatch, Json, Path, Prefer, Query, WaitApplied},
    openapi::{AccessToken, add_standard_problems},
    page::{Cursor, Limit, Page},
    problem::{self, Problem, ProblemType},
};
use http::{HeaderValue, StatusCode, header};
use runtime::trace::TraceContext;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use utoipa::{IntoParams, OpenApi};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub mod view;

use self::view::{DocumentView, HeadView, NewCreditNote, NewDocument, NewKind};
use crate::{
    domain::{
        self, Cancellation, Document, Invalid, Kind, NotAllowed, OrderState, Patience, Refusal, Standing,
        State as DocumentState,
    },
    outcomes::Outcomes,
    quotes::Quotes,
    store::{self, Cause, Earlier, Filter, NewOrder, RequestKey, Store},
};

/// The longest a request waits for the outcome of its order, whatever it would prefer.
pub const LONGEST_WAIT: Duration = Duration::from_secs(20);

static NOT_ALLOWED_IN_STATE: ProblemType =
    ProblemType::new("not-allowed-in-state", 409, "The document's state does not allow this");
static ORDER_REJECTED: ProblemType = ProblemType::new("order-rejected", 409, "The order was rejected");
static ORDER_CANCELLED: ProblemType = ProblemType::new("order-cancelled", 409, "The order was cancelled");
static IDEMPOTENCY_KEY_REUSED: ProblemType =
    ProblemType::new("idempotency-key-reused", 422, "The idempotency key belongs to another request");

/// What handlers need.
#[derive(Clone)]
pub struct App {
    /// The documents.
    pub store: Store,
    /// Asks item management what is ordered.
    pub quotes: Quotes,
    /// Waits for item management to answer.
    pub outcomes: Outcomes,
    /// Decides who may do what.
    pub authorizer: Arc<Authorizer>,
    /// How long item management has to answer an order.
    pub patience: Patience,
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
    info(title = "eshop-documents", description = "The shop's commercial documents: orders, invoices, credit notes."),
    modifiers(&AccessToken),
    security(("access-token" = [])),
    tags(
        (name = "orders", description = "What customers want to buy."),
        (name = "invoices", description = "What they owe, and what they get back."),
        (name = "documents", description = "All of them."),
    )
)]
struct Description;

/// The OpenAPI document of this service.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let (_, mut document) = operations().split_for_parts();
    add_standard_problems(&mut document);
    document
}

fn operations() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(list_documents, create_document))
        .routes(routes!(view_document))
        .routes(routes!(cancel_order))
        .routes(routes!(issue_invoice))
        .routes(routes!(issue_credit_note))
}

/// The service's routes, closed to requests without a token that `verifier` accepts.
pub fn router(app: App, verifier: Arc<Verifier>) -> axum::Router {
    let (router, _) = operations().split_for_parts();
    let tokens = web::require(verifier).reporting(app.authorizer.refusals());
    router.route_layer(tokens).with_state(app)
}

impl App {
    /// Whether the caller may do this to all documents, or to none in particular.
    fn authorize(&self, caller: &Caller, action: &str) -> Result<(), Problem> {
        Ok(self.authorizer.authorize(caller, action, &Resource::new("Documents", "documents"))?)
    }

    /// The document, if the caller may see it. One that a caller may not see does not exist.
    async fn visible(&self, caller: &Caller, id: Uuid) -> Result<Document, Problem> {
        let document = self.store.document(id).await?;
        self.authorizer.authorize(caller, "view-document", &resource(&document)).map_err(|_| store::Error::NotFound)?;
        Ok(document)
    }

    /// Whether the caller may do this to this document.
    async fn authorize_change(&self, caller: &Caller, action: &str, id: Uuid) -> Result<(), Problem> {
        let document = self.visible(caller, id).await?;
        Ok(self.authorizer.authorize(caller, action, &resource(&document))?)
    }

    /// The document that an earlier request under this key made.
    async fn earlier(&self, request: &RequestKey) -> Result<Option<Document>, Problem> {
        match self.store.earlier(request).await? {
            None => Ok(None),
            Some(Earlier::Same(document)) => Ok(Some(*document)),
            Some(Earlier::Different) => Err(IDEMPOTENCY_KEY_REUSED
                .detail("The key came with another request before. Send a new key with each new request.")
                .request_header(&IDEMPOTENCY_KEY, "belongs to another request")),
        }
    }

    /// The same, where the key is known to be taken.
    async fn repeated(&self, request: &RequestKey) -> Result<Document, Problem> {
        let forgotten = || {
            problem::CONFLICT.detail("The key was forgotten just now. Try again.").retry_after(Duration::from_secs(1))
        };
        self.earlier(request).await?.ok_or_else(forgotten)
    }
}

fn resource(document: &Document) -> Resource {
    let customer = json!({ "__entity": { "type": "User", "id": document.head.customer } });
    Resource::new("Document", document.head.id).with(json!({ "customer": customer }))
}

fn cause(caller: &Caller) -> Cause {
    Cause { initiator: Some(caller.subject.clone()), trace: TraceContext::current() }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Database(error) => error.into(),
            store::Error::NotFound => problem::NOT_FOUND.detail("There is no such document."),
            store::Error::NotAllowed(refused) => not_allowed(&refused),
            store::Error::Invalid(invalid) => invalid_fields(invalid),
            store::Error::Forbidden(refused) => problem::CONFLICT.detail(refused.to_string()),
            store::Error::Invoiced(number) => problem::CONFLICT.detail(format!(
                "The order is invoiced. Issue credit notes over all that is left of {number} first, so that nobody owes money for it."
            )),
            store::Error::Unfulfilled => problem::CONFLICT.detail(
                "There is nothing in stock for the order any more. An operator asks for it again or gives it up (`berth sagas`) first.",
            ),
            defect @ (store::Error::Illegal(_) | store::Error::Message(_) | store::Error::Corrupt { .. }) => {
                Self::internal(defect)
            }
        }
    }
}

fn not_allowed(refused: &NotAllowed) -> Problem {
    let NotAllowed { kind, state, allowed } = refused;
    NOT_ALLOWED_IN_STATE
        .detail("See `state` for where the document stands, and `allowed` for what can be done from there.")
        .with("kind", kind)
        .with("state", state)
        .with("allowed", allowed)
}

fn invalid_fields(invalid: Vec<Invalid>) -> Problem {
    let problem = problem::INVALID_FIELD.detail("A field of the body breaks a rule.");
    invalid.into_iter().fold(problem, |problem, Invalid { pointer, message }| problem.field(pointer, message))
}

/// What makes this request the same as another.
fn request_key(caller: &Caller, key: String, operation: &str, body: &impl Serialize) -> Result<RequestKey, Problem> {
    let request = serde_json::to_vec(&(operation, body)).map_err(Problem::internal)?;
    Ok(RequestKey { principal: caller.subject.clone(), key, fingerprint: Sha256::digest(request).into() })
}

fn location(id: Uuid) -> String {
    format!("/documents/{id}")
}

/// A document with its entity tag.
fn tagged(document: Document) -> Response {
    (Etag::from_version(document.head.version), Json(DocumentView::from(document))).into_response()
}

/// A document that a request made.
fn made(status: StatusCode, document: Document) -> Response {
    (status, [(header::LOCATION, location(document.head.id))], tagged(document)).into_response()
}

/// Where a list goes on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct After {
    document: Uuid,
}

/// Which documents are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// `next` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<After>>,
    /// How many documents at most.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 100, default = 20)]
    limit: Limit,
    /// Only documents of this kind.
    kind: Option<Kind>,
    /// Only documents in this state.
    state: Option<DocumentState>,
}

/// List documents
///
/// The newest first, a page at a time: everybody's for clerks and auditors, for customers their own.
#[utoipa::path(get, path = "/documents", tag = "documents", params(ListQuery), responses(
    (status = 200, description = "A page of documents without their lines.", body = Page<HeadView>),
))]
async fn list_documents(
    State(app): State<App>,
    caller: Caller,
    query: Result<Query<ListQuery>, Problem>,
) -> Result<Json<Page<HeadView>>, Problem> {
    app.authorize(&caller, "list-documents")?;
    let Query(ListQuery { cursor, limit, kind, state }) = query?;
    let everybodys = app.authorizer.permits(&caller, "list-all-documents", &Resource::new("Documents", "documents"));
    let customer = (!everybodys).then(|| caller.subject.clone());
    let after = cursor.map(|Cursor(After { document })| document);
    let heads = app.store.list(&Filter { customer, kind, state }, after, limit.rows()).await?;
    let views = heads.into_iter().map(HeadView::from).collect();
    Ok(Json(Page::of(views, limit, |last: &HeadView| After { document: last.id() }).map_err(Problem::internal)?))
}

/// Place an order
///
/// The order is pending until item management has reserved its stock, or has not answered by its deadline; with
/// `Prefer: wait=10` the answer waits for that. Repeated with the same key within 24 hours, the request has no second
/// effect and is answered for the same order.
#[utoipa::path(post, path = "/documents", tag = "orders", request_body = NewDocument,
    params(
        ("idempotency-key" = String, Header, description = "Chosen by the caller for this order, best a UUID.", max_length = 128),
        ("prefer" = Option<String>, Header, description = "`wait=N`: wait for the outcome, at most N seconds and at most 20.", example = "wait=10"),
    ),
    responses(
        (status = 202, description = "The order is placed. Its location tells its outcome.", body = DocumentView, headers(("location" = String), ("etag" = String))),
        (status = 201, description = "The order is confirmed. Only when asked to wait.", body = DocumentView, headers(("location" = String), ("etag" = String))),
        (status = 409, description = "The order was rejected or cancelled: `reason` and `errors` say why. Only when asked to wait.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is wrong, such as an item that does not exist; or the key came with another request before.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Item management cannot be asked for prices now. Nothing was placed.", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn create_document(
    State(app): State<App>,
    caller: Caller,
    prefer: Prefer,
    key: Result<IdempotencyKey, Problem>,
    body: Result<Json<NewDocument>, Problem>,
) -> Result<Response, Problem> {
    app.authorize(&caller, "place-order")?;
    let (key, Json(new)) = (key?, body?);
    let request = request_key(&caller, key.as_str().to_owned(), "POST /documents", &new)?;
    let order = match app.earlier(&request).await? {
        Some(order) => order,
        None => place(&app, &caller, &new, &request).await?,
    };
    match prefer.wait_at_most(LONGEST_WAIT) {
        None => Ok(made(StatusCode::ACCEPTED, order.as_made())),
        Some(wait) => {
            app.outcomes.wait(order.head.id, wait).await;
            let order = app.store.document(order.head.id).await?;
            Ok((WaitApplied(wait), outcome(order)).into_response())
        }
    }
}

async fn place(app: &App, caller: &Caller, new: &NewDocument, request: &RequestKey) -> Result<Document, Problem> {
    let NewDocument { kind: NewKind::Order, lines } = new;
    let selection = view::selection(lines).map_err(invalid_fields)?;
    let quotes = app.quotes.of(caller, &selection).await?;
    let contents = domain::price(&selection, &quotes).map_err(invalid_fields)?;
    let order = NewOrder { customer: caller.subject.clone(), contents, patience: app.patience };
    match app.store.place(&order, request, &cause(caller)).await? {
        Some(placed) => Ok(placed),
        None => app.repeated(request).await,
    }
}

/// The answer to a request that waited for its order.
fn outcome(order: Document) -> Response {
    let (problem, reason) = match &order.head.standing {
        Standing::Order { state: OrderState::Rejected(refusal), .. } => {
            (rejected(&order, refusal), json!(refusal.reason))
        }
        Standing::Order { state: OrderState::Cancelled(reason), .. } => {
            (ORDER_CANCELLED.detail(cancelled(*reason)), json!(reason))
        }
        Standing::Order { state: OrderState::Pending, .. } => return made(StatusCode::ACCEPTED, order),
        _ => return made(StatusCode::CREATED, order),
    };
    let problem =
        problem.with("document", order.head.id).with("state", order.head.standing.state()).with("reason", reason);
    match HeaderValue::try_from(location(order.head.id)) {
        Ok(location) => problem.header(header::LOCATION, location).into_response(),
        Err(_) => problem.into_response(),
    }
}

fn rejected(order: &Document, refusal: &Refusal) -> Problem {
    let short = |index: usize, item: Uuid| {
        let shortage = refusal.shortages.iter().find(|shortage| shortage.item_id == item)?;
        Some((
            format!("/lines/{index}/quantity"),
            format!("{} ordered, {} available", shortage.requested, shortage.available),
        ))
    };
    let problem = ORDER_REJECTED.detail("Item management cannot supply the order. Nothing is reserved.");
    let shortages = order.lines.iter().enumerate().filter_map(|(index, line)| short(index, line.item_id));
    shortages.fold(problem, |problem, (pointer, message)| problem.field(pointer, message))
}

fn cancelled(reason: Cancellation) -> &'static str {
    match reason {
        Cancellation::Deadline => {
            "Item management did not answer in time, so the order was called off. Place it again."
        }
        Cancellation::Customer => "The order was called off.",
        Cancellation::Unfulfilled => "The order was confirmed, and there is nothing left for it: it was given up.",
    }
}

/// View a document
#[utoipa::path(get, path = "/documents/{id}", tag = "documents",
    params(("id" = Uuid, Path), ("if-none-match" = Option<String>, Header, description = "The entity tag of what the caller holds already.")),
    responses(
        (status = 200, description = "The document.", body = DocumentView, headers(("etag" = String))),
        (status = 304, description = "It is what the caller holds already."),
    ),
)]
async fn view_document(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    held: IfNoneMatch,
) -> Result<Response, Problem> {
    let document = app.visible(&caller, id).await?;
    let etag = Etag::from_version(document.head.version);
    if held.holds(&etag) {
        return Ok((StatusCode::NOT_MODIFIED, etag, ()).into_response());
    }
    Ok(tagged(document))
}

/// Cancel an order
///
/// As long as it is pending.
#[utoipa::path(post, path = "/documents/{id}/cancel", tag = "orders", params(("id" = Uuid, Path)), responses(
    (status = 200, description = "The cancelled order.", body = DocumentView, headers(("etag" = String))),
    (status = 409, description = "It is no pending order: `state` and `allowed` say what can be done.", body = Problem, content_type = "application/problem+json"),
))]
async fn cancel_order(State(app): State<App>, caller: Caller, Path(id): Path<Uuid>) -> Result<Response, Problem> {
    app.authorize_change(&caller, "cancel-order", id).await?;
    Ok(tagged(app.store.cancel(id, &cause(&caller)).await?))
}

/// Issue the invoice of an order
///
/// Of a confirmed order, once.
#[utoipa::path(post, path = "/documents/{id}/invoice", tag = "invoices", params(("id" = Uuid, Path)), responses(
    (status = 201, description = "The invoice.", body = DocumentView, headers(("location" = String), ("etag" = String))),
    (status = 409, description = "It is no confirmed order, or has its invoice: `state` and `allowed` say what can be done. Or it has nothing in stock any more, and waits for an operator.", body = Problem, content_type = "application/problem+json"),
))]
async fn issue_invoice(State(app): State<App>, caller: Caller, Path(id): Path<Uuid>) -> Result<Response, Problem> {
    app.authorize_change(&caller, "issue-invoice", id).await?;
    Ok(made(StatusCode::CREATED, app.store.invoice(id, &cause(&caller)).await?))
}

/// Issue a credit note on an invoice
///
/// Over some or all of what the invoice says and no credit note has taken back yet; its goods go back in stock. With an
/// `Idempotency-Key`, repeated within 24 hours, the request has no second effect and gets the first answer again.
#[utoipa::path(post, path = "/documents/{id}/credit-notes", tag = "invoices", request_body = NewCreditNote,
    params(
        ("id" = Uuid, Path),
        ("idempotency-key" = Option<String>, Header, description = "Chosen by the caller for this credit note, best a UUID.", max_length = 128),
    ),
    responses(
        (status = 201, description = "The credit note.", body = DocumentView, headers(("location" = String), ("etag" = String))),
        (status = 409, description = "It is no invoice: `state` and `allowed` say what can be done.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is wrong, such as a quantity above what is left to credit; or the key came with another request before.", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn issue_credit_note(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    key: Result<Option<IdempotencyKey>, Problem>,
    body: Result<Json<NewCreditNote>, Problem>,
) -> Result<Response, Problem> {
    app.authorize_change(&caller, "issue-credit-note", id).await?;
    let (key, Json(new)) = (key?, body?);
    let operation = format!("POST {}/credit-notes", location(id));
    // Without a key every request is one of its own.
    let key = key.map_or_else(|| Uuid::new_v4().to_string(), |key| key.as_str().to_owned());
    let request = request_key(&caller, key, &operation, &new)?;
    let note = match app.earlier(&request).await? {
        Some(note) => note,
        None => credit(&app, &caller, id, &new, &request).await?,
    };
    Ok(made(StatusCode::CREATED, note.as_made()))
}

async fn credit(
    app: &App,
    caller: &Caller,
    invoice: Uuid,
    new: &NewCreditNote,
    request: &RequestKey,
) -> Result<Document, Problem> {
    let selection = view::selection(&new.lines).map_err(invalid_fields)?;
    match app.store.credit(invoice, &selection, request, &cause(caller)).await? {
        Some(issued) => Ok(issued),
        None => app.repeated(request).await,
    }
}
