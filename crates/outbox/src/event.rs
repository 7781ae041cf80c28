//! The envelope: CloudEvents 1.0 in structured JSON mode (<https://github.com/cloudevents/spec/tree/v1.0.2>).

use std::{
    borrow::Cow,
    fmt::{self, Debug},
};

use jiff::Timestamp;
use runtime::trace::TraceContext;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

/// The media type of an [`Event`] on the wire.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// Something that happened to one aggregate.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Unique; also the message id by which duplicates are known. UUIDv7.
    pub id: Uuid,
    /// `<domain>.<aggregate type>.<event>`, which is the NATS subject and the CloudEvents `type`.
    pub subject: String,
    /// The service that emitted it, as a URI reference.
    pub source: String,
    /// What it happened to.
    pub aggregate: Aggregate,
    /// Its number among all events of the aggregate, which count from 1 without gaps.
    pub version: i64,
    /// Version of the shape of `data`.
    pub data_version: i32,
    /// The saga it belongs to.
    pub saga: Option<Uuid>,
    /// The subject of the principal who started what led to it.
    pub initiator: Option<String>,
    /// The trace it belongs to.
    pub trace: Option<TraceContext>,
    /// When it happened, by the clock of the producer's database.
    pub time: Timestamp,
    /// What happened; its shape depends on the subject.
    pub data: Value,
}

/// The thing an event happened to: one order, one item.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Aggregate {
    /// Its type, the middle of the subject: `order`.
    pub kind: String,
    /// Which one.
    pub id: Uuid,
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)
    }
}

/// Why a message is not an [`Event`].
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// It is not the JSON of an envelope.
    #[error("not a CloudEvent of this mesh: {0}")]
    Json(String),
    /// An attribute contradicts what the envelope must be.
    #[error("the attribute {attribute} is wrong: {what}")]
    Attribute {
        /// Its name.
        attribute: &'static str,
        /// What is wrong with it.
        what: String,
    },
}

impl Event {
    /// The envelope on the wire.
    ///
    /// # Errors
    /// Never for data that came from JSON.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&self.envelope())
    }

    /// The envelope, to be written somewhere as JSON.
    pub(crate) fn envelope(&self) -> impl Serialize + Debug + Sync {
        Envelope {
            id: self.id,
            source: self.source.as_str().into(),
            subject: self.subject.as_str().into(),
            time: self.time,
            aggregate_type: self.aggregate.kind.as_str().into(),
            aggregate_id: self.aggregate.id,
            version: self.version,
            data_version: self.data_version,
            saga: self.saga,
            initiator: self.initiator.as_deref().map(Into::into),
            traceparent: self.trace.map(|trace| trace.to_string().into()),
            ..Envelope::around(&self.data)
        }
    }

    /// Reads an envelope.
    ///
    /// # Errors
    /// [`Malformed`] says what is wrong with it.
    pub fn from_json(json: &[u8]) -> Result<Self, Malformed> {
        let mut json = serde_json::Deserializer::from_slice(json);
        let envelope: Envelope<'_, Value> =
            serde_path_to_error::deserialize(&mut json).map_err(|error| Malformed::Json(error.to_string()))?;
        json.end().map_err(|error| Malformed::Json(error.to_string()))?;
        envelope.try_into()
    }
}

/// A CloudEvent of this mesh.
// The attributes by their names on the wire. Attributes we do not know are left alone, as the specification asks.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Envelope<'a, D = Value> {
    /// The version of CloudEvents: 1.0.
    #[schema(value_type = String)]
    pub(crate) specversion: Cow<'a, str>,
    /// Unique: an event that comes twice is known by it. UUIDv7.
    pub(crate) id: Uuid,
    /// The service that emitted it: its SPIFFE ID.
    #[schema(value_type = String, format = "uri")]
    pub(crate) source: Cow<'a, str>,
    /// `<domain>.<aggregate type>.<event>`; the subject it is published under.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub(crate) subject: Cow<'a, str>,
    /// When it happened, by the clock of the producer's database.
    pub(crate) time: Timestamp,
    /// What `data` is: `application/json`.
    #[serde(default = "json_data")]
    #[schema(value_type = String)]
    pub(crate) datacontenttype: Cow<'a, str>,
    /// The type of what it happened to.
    #[serde(rename = "aggregatetype")]
    #[schema(value_type = String)]
    pub(crate) aggregate_type: Cow<'a, str>,
    /// What it happened to.
    #[serde(rename = "aggregateid")]
    pub(crate) aggregate_id: Uuid,
    /// Its number among all events of the aggregate, which count from 1 without gaps.
    #[serde(rename = "aggregateversion")]
    #[schema(minimum = 1)]
    pub(crate) version: i64,
    /// The version of the shape of `data`.
    #[serde(rename = "dataversion", default = "first_version")]
    pub(crate) data_version: i32,
    /// The saga it belongs to.
    #[serde(rename = "sagaid", default, skip_serializing_if = "Option::is_none")]
    pub(crate) saga: Option<Uuid>,
    /// The subject of the principal who started what led to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) initiator: Option<Cow<'a, str>>,
    /// The trace it belongs to (W3C Trace Context).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) traceparent: Option<Cow<'a, str>>,
    /// What happened; its shape depends on `type`.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub(crate) data: D,
}

impl<D> Envelope<'_, D> {
    /// One around this data, whose attributes are to be filled in.
    pub(crate) fn around(data: D) -> Self {
        Self {
            specversion: "1.0".into(),
            id: Uuid::nil(),
            source: "".into(),
            subject: "".into(),
            time: Timestamp::UNIX_EPOCH,
            datacontenttype: json_data(),
            aggregate_type: "".into(),
            aggregate_id: Uuid::nil(),
            version: 0,
            data_version: first_version(),
            saga: None,
            initiator: None,
            traceparent: None,
            data,
        }
    }
}

fn json_data() -> Cow<'static, str> {
    "application/json".into()
}

const fn first_version() -> i32 {
    1
}

impl TryFrom<Envelope<'_, Value>> for Event {
    type Error = Malformed;

    fn try_from(envelope: Envelope<'_, Value>) -> Result<Self, Malformed> {
        let wrong = |attribute, what: String| Err(Malformed::Attribute { attribute, what });
        if envelope.specversion != "1.0" {
            return wrong("specversion", format!("{} is not 1.0", envelope.specversion));
        }
        if envelope.version < 1 {
            return wrong("aggregateversion", format!("{} is below 1", envelope.version));
        }
        if kind(&envelope.subject) != Some(&*envelope.aggregate_type) {
            return wrong("type", format!("{} is not about a {}", envelope.subject, envelope.aggregate_type));
        }
        Ok(Self {
            id: envelope.id,
            subject: envelope.subject.into_owned(),
            source: envelope.source.into_owned(),
            aggregate: Aggregate { kind: envelope.aggregate_type.into_owned(), id: envelope.aggregate_id },
            version: envelope.version,
            data_version: envelope.data_version,
            saga: envelope.saga,
            initiator: envelope.initiator.map(Cow::into_owned),
            // A trace that cannot be read is no reason to lose the event.
            trace: envelope.traceparent.as_deref().and_then(TraceContext::parse),
            time: envelope.time,
            data: envelope.data,
        })
    }
}

/// The aggregate type in a subject of the form `<domain>.<aggregate type>.<event>`, each part of lower-case letters,
/// digits and hyphens; none in any other text.
pub(crate) fn kind(subject: &str) -> Option<&str> {
    let word =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    let mut parts = subject.split('.');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(domain), Some(kind), Some(event), None) if [domain, kind, event].into_iter().all(word) => Some(kind),
        _ => None,
    }
}

/// Whether a subject without wildcards matches a pattern with NATS wildcards (`*` one word, `>` one or more at the end).
#[must_use]
pub fn matches(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some(wanted), Some(word)) if wanted == "*" || wanted == word => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn event() -> Event {
        Event {
            id: Uuid::now_v7(),
            subject: "documents.stock.reserve".into(),
            source: "spiffe://eshop.internal/eshop-documents".into(),
            aggregate: Aggregate { kind: "stock".into(), id: Uuid::now_v7() },
            version: 7,
            data_version: 1,
            saga: Some(Uuid::now_v7()),
            initiator: Some("alice".into()),
            trace: Some(TraceContext::new()),
            time: "2026-11-23T10:00:00.123456Z".parse().unwrap(),
            data: json!({"lines": [{"quantity": 2}]}),
        }
    }

    #[test]
    fn an_event_comes_back_from_the_wire_as_it_was() {
        let event = event();
        assert_eq!(Event::from_json(&event.to_json().unwrap()).unwrap(), event);
        let bare = Event { saga: None, initiator: None, trace: None, data: Value::Null, ..event };
        assert_eq!(Event::from_json(&bare.to_json().unwrap()).unwrap(), bare);
    }

    #[test]
    fn the_attributes_are_those_of_cloudevents() {
        let event = event();
        let json: Value = serde_json::from_slice(&event.to_json().unwrap()).unwrap();
        assert_eq!(json["specversion"], "1.0");
        assert_eq!(json["type"], "documents.stock.reserve");
        assert_eq!(json["datacontenttype"], "application/json");
        assert_eq!(json["aggregateversion"], 7);
        assert_eq!(json["traceparent"], event.trace.unwrap().to_string());
        let extension = |name: &str| name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9'));
        assert!(json.as_object().unwrap().keys().all(|name| extension(name)), "{json}");
    }

    #[test]
    fn what_is_no_event_is_refused_with_the_reason() {
        let good: Value = serde_json::from_slice(&event().to_json().unwrap()).unwrap();
        for (attribute, value, reason) in [
            ("specversion", json!("0.3"), "specversion"),
            ("id", json!("x"), "id"),
            ("aggregateversion", json!(0), "aggregateversion"),
            ("aggregatetype", json!("order"), "not about a order"),
            ("type", json!("documents.stock"), "type"),
            ("time", json!("yesterday"), "time"),
            ("aggregateid", Value::Null, "aggregateid"),
        ] {
            let mut bad = good.clone();
            bad[attribute] = value;
            let error = Event::from_json(bad.to_string().as_bytes()).unwrap_err().to_string();
            assert!(error.contains(reason), "{attribute}: {error}");
        }
    }

    #[test]
    fn an_unknown_attribute_or_a_broken_trace_is_no_reason_to_refuse() {
        let mut json: Value = serde_json::from_slice(&event().to_json().unwrap()).unwrap();
        json["partitionkey"] = json!("x");
        json["traceparent"] = json!("nonsense");
        assert_eq!(Event::from_json(json.to_string().as_bytes()).unwrap().trace, None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = Event::from_json(&bytes);
        }

        #[test]
        fn the_wildcard_of_its_type_matches_every_subject(domain in "[a-z0-9-]{1,8}", kind in "[a-z0-9-]{1,8}", name in "[a-z0-9-]{1,8}") {
            let subject = format!("{domain}.{kind}.{name}");
            prop_assert_eq!(super::kind(&subject), Some(kind.as_str()));
            let whole_domain = format!("{domain}.>");
            let whole_type = format!("{domain}.{kind}.*");
            prop_assert!(matches(&whole_domain, &subject) && matches(&whole_type, &subject) && matches(&subject, &subject));
        }
    }

    #[test]
    fn patterns_match_as_in_nats() {
        for (pattern, subject, expected) in [
            ("items.>", "items.item.created", true),
            ("items.>", "items", false),
            ("items.*", "items.item.created", false),
            ("items.*.*", "items.item.created", true),
            ("items.item.created", "items.item.created", true),
            ("items.item.*", "items.reservation.taken", false),
        ] {
            assert_eq!(matches(pattern, subject), expected, "{pattern} {subject}");
        }
    }
}
