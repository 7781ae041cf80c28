//! The bodies of requests and answers.

use berth_http::problem::{self, Problem};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    domain::{DeliveryState, Endpoint, MAX_EVENT_TYPES, State, Subscription, is_event_type},
    reach::Reach,
    store::Delivery,
};

/// A subscription to be made.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSubscription {
    /// Where messages are posted to: https, at a public address.
    #[schema(format = "uri", max_length = 2048, example = "https://shop.example/hooks")]
    pub(super) url: String,
    /// Of which events: subjects, with `*` for any one part and `>` at the end for all that follow.
    #[schema(min_items = 1, max_items = 32, example = json!(["documents.order.*"]))]
    pub(super) event_types: Vec<String>,
}

/// A change of a subscription.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SubscriptionPatch {
    /// Where messages are posted to.
    #[schema(format = "uri", max_length = 2048)]
    pub(super) url: Option<String>,
    /// Of which events.
    #[schema(min_items = 1, max_items = 32)]
    pub(super) event_types: Option<Vec<String>>,
    /// Whether to be told.
    pub(super) state: Option<WantedState>,
}

/// Whether to be told.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum WantedState {
    /// From now on.
    Active,
    /// Not for a while; what happens meanwhile is not told later.
    Paused,
}

impl From<WantedState> for State {
    fn from(wanted: WantedState) -> Self {
        match wanted {
            WantedState::Active => Self::Active,
            WantedState::Paused => Self::Paused,
        }
    }
}

/// The endpoint a request names.
pub(super) fn endpoint(url: &str, reach: &Reach) -> Result<Endpoint, Problem> {
    Endpoint::parse(url, reach).map_err(|what| {
        problem::INVALID_FIELD.detail("Messages cannot be posted there.").field("/url", format!("the URL {what}"))
    })
}

/// The types of events a request names, each once.
pub(super) fn event_types(mut types: Vec<String>) -> Result<Vec<String>, Problem> {
    let wrong = |pointer: String, what: &str| {
        problem::INVALID_FIELD.detail("There is nothing to be told of.").field(pointer, what)
    };
    if types.is_empty() || types.len() > MAX_EVENT_TYPES {
        return Err(wrong("/event_types".into(), &format!("must have 1 to {MAX_EVENT_TYPES} entries")));
    }
    if let Some(index) = types.iter().position(|kind| !is_event_type(kind)) {
        let what = "must be a type of events like documents.order.placed, documents.order.* or documents.>";
        return Err(wrong(format!("/event_types/{index}"), what));
    }
    types.sort();
    types.dedup();
    Ok(types)
}

/// A subscription.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Subscription)]
pub(super) struct SubscriptionView {
    /// Never changes.
    pub(super) id: Uuid,
    /// The subject of whose it is.
    owner: String,
    /// Where messages are posted to.
    url: String,
    /// Of which events.
    event_types: Vec<String>,
    /// Whether events are about everybody's things; else they are about the owner's alone.
    everybodys: bool,
    /// Whether its owner is told.
    state: State,
    /// Since when nothing could be delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    failing_since: Option<Timestamp>,
    /// Why the service gave up.
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled_for: Option<String>,
    /// Grows by one with every change; the entity tag.
    version: i64,
    /// When it was made.
    created_at: Timestamp,
    /// When it last changed.
    updated_at: Timestamp,
}

impl From<Subscription> for SubscriptionView {
    fn from(subscription: Subscription) -> Self {
        let Subscription {
            id,
            owner,
            everybodys,
            url,
            event_types,
            state,
            failing_since,
            disabled_for,
            version,
            created_at,
            updated_at,
        } = subscription;
        Self {
            id,
            owner: owner.subject,
            url,
            event_types,
            everybodys,
            state,
            failing_since,
            disabled_for,
            version,
            created_at,
            updated_at,
        }
    }
}

/// A subscription that was made.
#[derive(Serialize, ToSchema)]
#[schema(as = CreatedSubscription)]
pub(super) struct Created {
    #[serde(flatten)]
    pub(super) subscription: SubscriptionView,
    /// What its messages are verified with, as Standard Webhooks says. It is not shown again.
    #[schema(pattern = "^whsec_[A-Za-z0-9+/=]+$")]
    pub(super) secret: String,
}

/// A delivery.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Delivery)]
pub(super) struct DeliveryView {
    /// Which one.
    pub(super) id: Uuid,
    /// The event; `webhook-id` is `msg_` and this.
    event_id: Uuid,
    /// The event's type.
    event_type: String,
    /// Where it stands.
    state: DeliveryState,
    /// How often it was tried.
    attempts: i32,
    /// When it is tried next.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_at: Option<Timestamp>,
    /// What the subscriber answered last.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_status: Option<i32>,
    /// Why it failed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    /// When the event came.
    created_at: Timestamp,
    /// When it last changed.
    updated_at: Timestamp,
}

impl From<Delivery> for DeliveryView {
    fn from(delivery: Delivery) -> Self {
        let Delivery {
            id,
            event_id,
            event_type,
            state,
            attempts,
            next_at,
            last_status,
            last_error,
            created_at,
            updated_at,
        } = delivery;
        let next_at = (state == DeliveryState::Pending).then_some(next_at);
        Self { id, event_id, event_type, state, attempts, next_at, last_status, last_error, created_at, updated_at }
    }
}

/// What is to be delivered again.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplayRequest {
    /// Of events that came at this time or later.
    pub(super) from: Timestamp,
    /// Of events that came before this time.
    pub(super) until: Option<Timestamp>,
    /// Only what is in this state.
    pub(super) state: Option<DeliveryState>,
}

/// What is being delivered again.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Replayed {
    /// How many deliveries.
    pub(super) replayed: u64,
}
