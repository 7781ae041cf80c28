//! HTTP in, HTTP out: what each operation asks for, who may do it, and what it answers.

use std::{sync::Arc, time::Duration};

use auth::{
    cedar::{Authorizer, PolicyError, Resource},
    internal::Verifier,
    refusals::{self, Report},
    web::{self, Caller},
};
use axum::extract::State;
use berth_http::{
    extract::{Json, Path, Query},
    openapi::{AccessToken, add_standard_problems},
    page::{Cursor, Limit, Page},
    problem::{self, Problem},
};
use database::Database;
use http::StatusCode;
use jiff::Timestamp;
use outbox::Events;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::Value;
use tls::SpiffeId;
use tokio::time::Instant;
use utoipa::{IntoParams, OpenApi, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    checkpoint::{Checkpoint, Signer},
    domain::{Entry, Fault, Hash, Head, Record, Walk},
    messages,
    store::{self, Filter},
};

/// How long one request walks along the chain, well within what a client waits for an answer.
const LONGEST_WALK: Duration = Duration::from_secs(15);

/// What handlers need.
#[derive(Clone)]
pub struct App {
    /// The chain.
    pub database: Database,
    /// Decides who may do what.
    pub authorizer: Arc<Authorizer>,
    /// Signs heads of the chain.
    pub signer: Arc<Signer>,
    /// Asked for the last signed head it was told of.
    pub events: Events,
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
    info(title = "audit", description = "Every event of the mesh and every refusal, in a chain of hashes."),
    tags(
        (name = "audit", description = "What happened, and whether anybody has changed it since."),
        (name = "internal", description = "For other services of the mesh; the gateway does not route it."),
    ),
    security(("access-token" = [])),
    modifiers(&AccessToken),
)]
struct Description;

fn operations() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(list_entries))
        .routes(routes!(verify_chain))
        .routes(routes!(view_checkpoint))
        .routes(routes!(view_entry))
        .routes(routes!(report_refusals))
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

impl App {
    fn authorize(&self, caller: &Caller, action: &str) -> Result<(), Problem> {
        Ok(self.authorizer.authorize(caller, action, &Resource::new("Audit", "audit"))?)
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Database(error) => error.into(),
            defect @ store::Error::Corrupt => Self::internal(defect),
        }
    }
}

/// Where a list goes on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Before {
    seq: i64,
}

/// Which entries are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// `next` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<Before>>,
    /// How many entries at most.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 100, default = 20)]
    limit: Limit,
    /// Only entries recorded at this time or later.
    from: Option<Timestamp>,
    /// Only entries recorded before this time.
    until: Option<Timestamp>,
    /// Only entries about this: `order/0192f5a0-…`, `Item/…`.
    subject: Option<String>,
    /// Only entries caused by this principal.
    actor: Option<String>,
    /// Only entries of this type: `documents.order.placed`, or `documents.order.*` for all that begin so.
    #[serde(rename = "type")]
    #[param(value_type = Option<String>, example = "documents.order.*")]
    kind: Option<TypeFilter>,
}

/// A type of events, or all that begin so.
#[derive(Debug)]
struct TypeFilter(String);

impl<'de> Deserialize<'de> for TypeFilter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wanted = text.strip_suffix(['*', '>']).filter(|prefix| prefix.ends_with('.')).unwrap_or(&text);
        let known = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
        if wanted.is_empty()
            || wanted.len() > 200
            || !wanted.bytes().all(known)
            || (wanted == text && wanted.ends_with('.'))
        {
            return Err(D::Error::custom(
                "must be a type like documents.order.placed, or documents.order.* for all that begin so",
            ));
        }
        Ok(Self(wanted.to_owned()))
    }
}

/// An entry of the chain.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Entry)]
struct EntryView {
    /// Its number, from 1, without gaps.
    seq: i64,
    /// When it was appended.
    recorded_at: Timestamp,
    /// The id of the event, or of the report.
    id: Uuid,
    /// What happened.
    #[schema(example = "documents.order.placed")]
    r#type: String,
    /// The service that told of it.
    source: String,
    /// What it happened to.
    #[schema(example = "order/0192f5a0-7b1c-7000-8000-000000000001")]
    subject: String,
    /// The subject of the principal who caused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<String>,
    /// When it happened, as its source says.
    occurred_at: Timestamp,
    /// All that was told of it: the text whose bytes the hash covers. JSON.
    content: String,
    /// The hash of the entry before.
    #[schema(value_type = String, pattern = "^[0-9a-f]{64}$")]
    previous: Hash,
    /// The hash of this entry.
    #[schema(value_type = String, pattern = "^[0-9a-f]{64}$")]
    hash: Hash,
}

impl From<Entry> for EntryView {
    fn from(entry: Entry) -> Self {
        let Entry { seq, recorded_at, record, previous, hash } = entry;
        let Record { id, kind, source, subject, actor, occurred_at, content } = record;
        Self { seq, recorded_at, id, r#type: kind, source, subject, actor, occurred_at, content, previous, hash }
    }
}

/// List entries
///
/// The newest first, a page at a time.
#[utoipa::path(get, path = "/audit", tag = "audit", params(ListQuery), responses(
    (status = 200, description = "A page of entries.", body = Page<EntryView>),
))]
async fn list_entries(
    State(app): State<App>,
    caller: Caller,
    query: Result<Query<ListQuery>, Problem>,
) -> Result<Json<Page<EntryView>>, Problem> {
    app.authorize(&caller, "list-entries")?;
    let Query(ListQuery { cursor, limit, from, until, subject, actor, kind }) = query?;
    let filter = Filter { from, until, subject, actor, kind: kind.map(|TypeFilter(kind)| kind) };
    let before = cursor.map(|Cursor(Before { seq })| seq);
    let entries = store::list(&*app.database.get().await?, &filter, before, limit.rows()).await?;
    let views = entries.into_iter().map(EntryView::from).collect();
    Ok(Json(Page::of(views, limit, |last: &EntryView| Before { seq: last.seq }).map_err(Problem::internal)?))
}

/// View an entry
#[utoipa::path(get, path = "/audit/{seq}", tag = "audit", params(("seq" = i64, Path, minimum = 1)), responses(
    (status = 200, description = "The entry.", body = EntryView),
    (status = 404, description = "There is none with this number.", body = Problem, content_type = "application/problem+json"),
))]
async fn view_entry(
    State(app): State<App>,
    caller: Caller,
    seq: Result<Path<i64>, Problem>,
) -> Result<Json<EntryView>, Problem> {
    app.authorize(&caller, "view-entry")?;
    let Path(seq) = seq?;
    let entry = store::find_entry(&*app.database.get().await?, seq).await?;
    entry
        .map(|entry| Json(entry.into()))
        .ok_or_else(|| problem::NOT_FOUND.detail("There is no entry with this number."))
}

/// What part of the chain is to be verified, and against what.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct VerifyQuery {
    /// The first entry; 1 if not given.
    #[param(minimum = 1)]
    from: Option<i64>,
    /// The last entry; the end of the chain if not given.
    #[param(minimum = 1)]
    to: Option<i64>,
    /// A checkpoint that was kept (`signed` of `GET /audit/checkpoint`): the chain must still have what it remembers.
    checkpoint: Option<String>,
}

/// Whether the chain is whole.
#[derive(Debug, Serialize, ToSchema)]
struct Verification {
    /// Whether nothing is wrong with what was verified.
    verified: bool,
    /// The first entry that was to be verified.
    from: i64,
    /// The last one.
    to: i64,
    /// How many entries were verified.
    entries: u64,
    /// Where to go on, as `from`: the range was too long for one request, or has too many faults.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<i64>,
    /// What is wrong, and where. At most 100.
    faults: Vec<Fault>,
    /// The signed heads the chain was compared with.
    checkpoints: Vec<Compared>,
}

/// A signed head the chain was compared with.
#[derive(Debug, Serialize, ToSchema)]
struct Compared {
    /// Who remembers it.
    remembered_by: Witness,
    /// The number of its last entry; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<i64>,
    /// Why it could not be had.
    #[serde(skip_serializing_if = "Option::is_none")]
    unavailable: Option<String>,
}

/// Who remembers a signed head.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum Witness {
    /// The event bus, which is another server than the chain's.
    EventBus,
    /// The caller.
    Caller,
}

/// Verify the chain
///
/// Walks along it and computes every hash anew. What was changed, removed, put in between or exchanged in the database is found
/// and located. Signed heads of the chain, one from the event bus and one from the caller, tell whether it was cut off or written anew as
/// a whole. A chain too long for one request is verified in several: `next` says where to go on.
#[utoipa::path(get, path = "/audit/verify", tag = "audit", params(VerifyQuery), responses(
    (status = 200, description = "Whether it is whole, and what is wrong with it.", body = Verification),
))]
async fn verify_chain(
    State(app): State<App>,
    caller: Caller,
    query: Result<Query<VerifyQuery>, Problem>,
) -> Result<Json<Verification>, Problem> {
    app.authorize(&caller, "verify-chain")?;
    let Query(VerifyQuery { from, to, checkpoint }) = query?;
    let wrong = |name: &str, what: &str| {
        problem::INVALID_PARAMETER.detail("The chain cannot be verified so.").parameter(name, what)
    };
    let from = from.unwrap_or(1);
    if from < 1 {
        return Err(wrong("from", "must be 1 or more"));
    }
    if to.is_some_and(|to| to < from) {
        return Err(wrong("to", "must not be below from"));
    }
    let kept = checkpoint.map(|signed| app.signer.verify(&signed)).transpose();
    let kept = kept.map_err(|error| wrong("checkpoint", &format!("was not signed here: {error}")))?;

    let client = app.database.get().await?;
    let (head, last) = store::end(&*client).await?;
    let end = to.unwrap_or(head.seq);
    let mut walk = Walk::new(before(&client, from).await?, end);
    let deadline = Instant::now() + LONGEST_WALK;
    while walk.position() <= end && !walk.is_hopeless() && Instant::now() < deadline {
        let entries = store::walk(&*client, walk.position(), end).await?;
        if entries.is_empty() {
            walk.end();
        }
        walk.along(&entries);
    }
    let next = Some(walk.position()).filter(|next| *next <= end);

    let mut checkpoints = Vec::new();
    let mut compare = async |remembered_by, remembered: Result<Option<Head>, String>| {
        if let Ok(Some(remembered)) = remembered {
            agree(&client, &mut walk, remembered, last).await?;
        }
        let (seq, unavailable) = match remembered {
            Ok(head) => (head.map(|head| head.seq), None),
            Err(reason) => (None, Some(reason)),
        };
        checkpoints.push(Compared { remembered_by, seq, unavailable });
        Ok::<_, Problem>(())
    };
    compare(Witness::EventBus, app.signer.remembered_by(&app.events).await).await?;
    if let Some(kept) = kept {
        compare(Witness::Caller, Ok(Some(kept))).await?;
    }
    if to.is_none() {
        if last > head.seq {
            walk.fault(Fault::Surplus { first: head.seq + 1, last });
        }
        agree(&client, &mut walk, head, last).await?;
    }
    let (entries, faults) = walk.result();
    Ok(Json(Verification { verified: faults.is_empty(), from, to: end, entries, next, faults, checkpoints }))
}

/// What the entry `from` must follow.
async fn before(client: &database::Connection, from: i64) -> Result<Head, Problem> {
    let none = Head { seq: from - 1, hash: Hash::GENESIS };
    if from == 1 {
        return Ok(none);
    }
    Ok(store::find_entry(client, from - 1).await?.map_or(none, |entry| entry.as_head()))
}

/// The chain must have what was remembered of it.
async fn agree(client: &database::Connection, walk: &mut Walk, remembered: Head, last: i64) -> Result<(), Problem> {
    if remembered.seq > last {
        walk.fault(Fault::Missing { first: last + 1, last: remembered.seq });
    } else if remembered.seq > 0 {
        match store::find_entry(client, remembered.seq).await? {
            Some(entry) if entry.hash == remembered.hash => {}
            Some(_) => walk.fault(Fault::Rewritten { seq: remembered.seq }),
            None => walk.fault(Fault::Missing { first: remembered.seq, last: remembered.seq }),
        }
    }
    Ok(())
}

/// The signed end of the chain, and the key to verify it with.
#[derive(Debug, Serialize, ToSchema)]
struct SignedHead {
    #[serde(flatten)]
    checkpoint: Checkpoint,
    /// The public key, as a JWK. Compare it with the one you kept.
    #[schema(value_type = Object)]
    key: Value,
}

/// View the signed end of the chain
///
/// Keep it somewhere else: `GET /audit/verify?checkpoint=…` tells later whether the chain still has what it remembers.
#[utoipa::path(get, path = "/audit/checkpoint", tag = "audit", responses(
    (status = 200, description = "The end of the chain as it is now, signed.", body = SignedHead),
))]
async fn view_checkpoint(State(app): State<App>, caller: Caller) -> Result<Json<SignedHead>, Problem> {
    app.authorize(&caller, "view-checkpoint")?;
    let (head, _) = store::end(&*app.database.get().await?).await?;
    let checkpoint = app.signer.sign(head, Timestamp::now()).map_err(Problem::internal)?;
    Ok(Json(SignedHead { checkpoint, key: app.signer.public_key() }))
}

/// Report refusals
///
/// Of a service that has no outbox to put them into. All of them are on disk when this succeeds; reported again, they are recorded once.
#[utoipa::path(post, path = "/internal/refusals", tag = "internal", request_body = Vec<Report>, responses(
    (status = 204, description = "They are recorded."),
))]
async fn report_refusals(
    State(app): State<App>,
    caller: Caller,
    reports: Result<Json<Vec<Report>>, Problem>,
) -> Result<StatusCode, Problem> {
    app.authorize(&caller, "report-refusals")?;
    let Json(reports) = reports?;
    let service: SpiffeId = caller.subject.parse().map_err(Problem::internal)?;
    let taken = messages::take_in_reports(&app.database, service.as_str(), service.name(), &reports).await;
    taken.map_err(|error| match error {
        messages::TakeInError::Database(error) => error.into(),
        messages::TakeInError::Json(error) => Problem::internal(error),
    })?;
    Ok(StatusCode::NO_CONTENT)
}

const _: () = assert!(matches!(refusals::PATH.as_bytes(), b"/internal/refusals"), "the path above is written out");
