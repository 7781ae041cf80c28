//! What is consumed: events of others, for whoever subscribed to them; and what is emitted: what became of subscriptions.

use std::sync::Arc;

use auth::{
    Principal,
    cedar::{Authorizer, Resource},
};
use database::Transaction;
use outbox::{Event, Handler, HandlerError, NewEvent, Outbox, asyncapi::Description};
use runtime::trace::TraceContext;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    domain::{Endpoint, State, Subscription},
    store,
};

/// The domain of its events.
pub const DOMAIN: &str = "notifications";

/// The subjects of everything this service emits.
pub const EMITTED: [&str; 1] = ["notifications.>"];

/// What this service emits, for others to read.
#[must_use]
pub fn described() -> Description {
    let description = Description::new("notifier", "What becomes of subscriptions to webhooks.").refusals(DOMAIN);
    Change::ALL
        .iter()
        .fold(description, |description, change| description.event::<SubscriptionChanged>(change.subject()))
}

/// The type of the message by which a subscriber tries their endpoint.
pub const TEST: &str = "notifications.subscription.tested";

/// Finds who is to be told of an event.
#[derive(Clone)]
pub struct Fanout {
    /// Decides who may be told of what.
    pub authorizer: Arc<Authorizer>,
}

impl Handler for Fanout {
    async fn handle(&self, tx: &Transaction<'_>, event: &Event) -> Result<(), HandlerError> {
        let customer = event.data.get("customer").and_then(Value::as_str);
        let told: Vec<Uuid> = store::candidates(tx, customer)
            .await?
            .iter()
            .filter(|subscription| self.is_for(event, customer, subscription))
            .map(|subscription| subscription.id)
            .collect();
        if told.is_empty() {
            return Ok(());
        }
        let body = body(event).map_err(|error| HandlerError::Permanent(error.to_string()))?;
        store::tell(tx, event.id, &event.subject, &body, &told).await?;
        Ok(())
    }

    /// What is told is passed on as it is, whatever its shape.
    fn understands(&self, _: &Event) -> bool {
        true
    }
}

impl Fanout {
    fn is_for(&self, event: &Event, customer: Option<&str>, subscription: &Subscription) -> bool {
        let wanted = subscription.event_types.iter().any(|pattern| outbox::matches(pattern, &event.subject));
        let mut attributes = json!({ "type": event.subject });
        if let (Some(customer), Some(attributes)) = (customer, attributes.as_object_mut()) {
            attributes.insert("customer".to_owned(), user(customer));
        }
        let resource = Resource::new("Event", event.id).with(attributes);
        wanted && self.authorizer.permits(&Principal::from(&subscription.owner), "receive-event", &resource)
    }
}

impl std::fmt::Debug for Fanout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fanout").finish_non_exhaustive()
    }
}

/// A user as an attribute of a Cedar entity.
#[must_use]
pub fn user(subject: &str) -> Value {
    json!({ "__entity": { "type": "User", "id": subject } })
}

/// The envelope, without what is for the inside alone.
fn body(event: &Event) -> Result<String, serde_json::Error> {
    let event = Event { saga: None, trace: None, ..event.clone() };
    Ok(String::from_utf8_lossy(&event.to_json()?).into_owned())
}

/// The message by which a subscriber tries their endpoint.
///
/// # Errors
/// Never.
pub fn test_message(source: &str, subscription: &Subscription) -> Result<(Uuid, String), serde_json::Error> {
    let id = Uuid::now_v7();
    let event = Event {
        id,
        subject: TEST.to_owned(),
        source: source.to_owned(),
        aggregate: outbox::Aggregate { kind: "subscription".to_owned(), id: subscription.id },
        version: subscription.version,
        data_version: 1,
        saga: None,
        initiator: Some(subscription.owner.subject.clone()),
        trace: None,
        time: jiff::Timestamp::now(),
        data: json!({ "subscription_id": subscription.id }),
    };
    Ok((id, String::from_utf8_lossy(&event.to_json()?).into_owned()))
}

/// What happened to a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Somebody made it.
    Created,
    /// Somebody changed it.
    Updated,
    /// Somebody removed it.
    Deleted,
    /// The service gave up.
    Disabled,
}

impl Change {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Created, Self::Updated, Self::Deleted, Self::Disabled];

    /// The subject it is told under.
    #[must_use]
    pub fn subject(self) -> &'static str {
        match self {
            Self::Created => "notifications.subscription.created",
            Self::Updated => "notifications.subscription.updated",
            Self::Deleted => "notifications.subscription.deleted",
            Self::Disabled => "notifications.subscription.disabled",
        }
    }
}

/// A subscription as others are told of it: without the rest of its URL, in which many keep a secret.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SubscriptionChanged {
    /// Which one.
    pub subscription_id: Uuid,
    /// The subject of its owner.
    pub owner: String,
    /// Scheme, host and port of its URL.
    pub target: String,
    /// Of what it wants to be told.
    pub event_types: Vec<String>,
    /// Whether it is told.
    pub state: State,
    /// Why the service gave up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled_for: Option<String>,
}

/// Owes others that this happened, if the transaction commits.
///
/// # Errors
/// That of the database.
pub async fn tell(
    tx: &Transaction<'_>,
    change: Change,
    subscription: &Subscription,
    initiator: Option<&str>,
) -> Result<(), outbox::Error> {
    let data = SubscriptionChanged {
        subscription_id: subscription.id,
        owner: subscription.owner.subject.clone(),
        target: Endpoint::stored(&subscription.url).map(|endpoint| endpoint.target()).unwrap_or_default(),
        event_types: subscription.event_types.clone(),
        state: subscription.state,
        disabled_for: subscription.disabled_for.clone(),
    };
    let event = NewEvent {
        subject: change.subject(),
        aggregate_id: subscription.id,
        saga: None,
        initiator,
        trace: TraceContext::current(),
        data,
    };
    Outbox::put(tx, event).await?;
    Ok(())
}
