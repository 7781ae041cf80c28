//! What a service emits, as an AsyncAPI 3.0 document (<https://www.asyncapi.com/docs/reference/specification/v3.0.0>), made of the very
//! types its events are written from. Each service has one committed under `asyncapi/`.

use std::collections::BTreeMap;

use auth::refusals::Report;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::{CONTENT_TYPE, event::Envelope, refusals};

/// The events of one service.
#[derive(Debug)]
pub struct Description {
    title: String,
    text: String,
    /// The name of the schema of each subject's data.
    data: BTreeMap<String, String>,
    schemas: BTreeMap<String, Value>,
}

impl Description {
    /// Of the service with this name, without events yet; `text` says what they are about.
    #[must_use]
    pub fn new(service: &str, text: &str) -> Self {
        let mut new =
            Self { title: service.to_owned(), text: text.to_owned(), data: BTreeMap::new(), schemas: BTreeMap::new() };
        new.take::<Envelope<'static>>();
        new
    }

    /// An event whose data is a `T`.
    #[must_use]
    pub fn event<T: ToSchema>(mut self, subject: &str) -> Self {
        let schema = self.take::<T>();
        self.data.insert(subject.to_owned(), schema);
        self
    }

    /// The events by which every service of a domain tells what it [refused](refusals).
    #[must_use]
    pub fn refusals(self, domain: &str) -> Self {
        refusals::subjects(domain).iter().fold(self, |this, subject| this.event::<Report>(subject))
    }

    /// The subjects that are described.
    pub fn subjects(&self) -> impl Iterator<Item = &str> {
        self.data.keys().map(String::as_str)
    }

    /// The document.
    #[must_use]
    pub fn document(&self) -> Value {
        let of_each = |make: &dyn Fn(&str, &str) -> (String, Value)| {
            self.data.iter().map(|(subject, schema)| make(subject, schema)).collect::<Map<_, _>>()
        };
        json!({
            "asyncapi": "3.0.0",
            "info": { "title": self.title, "version": env!("CARGO_PKG_VERSION"), "description": self.text },
            "defaultContentType": CONTENT_TYPE,
            "channels": of_each(&|subject, _| (subject.to_owned(), json!({
                "address": subject,
                "messages": { "event": { "$ref": format!("#/components/messages/{subject}") } },
            }))),
            "operations": of_each(&|subject, _| (format!("emit.{subject}"), json!({
                "action": "send",
                "channel": { "$ref": format!("#/channels/{subject}") },
                "messages": [{ "$ref": format!("#/channels/{subject}/messages/event") }],
            }))),
            "components": {
                "messages": of_each(&|subject, schema| (subject.to_owned(), self.message(subject, schema))),
                "schemas": self.schemas,
            },
        })
    }

    fn message(&self, subject: &str, schema: &str) -> Value {
        let summary = self.schemas.get(schema).and_then(|schema| schema.get("description"));
        json!({
            "name": subject,
            "summary": summary,
            "contentType": CONTENT_TYPE,
            "headers": {
                "type": "object",
                "properties": {
                    "Nats-Msg-Id": { "type": "string", "format": "uuid", "description": "The event's id, by which a repeated one is known." },
                    "Content-Type": { "type": "string", "const": CONTENT_TYPE },
                },
                "required": ["Nats-Msg-Id", "Content-Type"],
            },
            "payload": {
                "allOf": [
                    { "$ref": format!("#/components/schemas/{}", Envelope::<Value>::name()) },
                    {
                        "type": "object",
                        "properties": {
                            "type": { "const": subject },
                            "data": { "$ref": format!("#/components/schemas/{schema}") },
                        },
                        "required": ["type", "data"],
                    },
                ],
            },
        })
    }

    /// Keeps a type's schema, and those it refers to; gives its name.
    fn take<T: ToSchema>(&mut self) -> String {
        let mut referred = Vec::new();
        T::schemas(&mut referred);
        let name = T::name().into_owned();
        referred.push((name.clone(), T::schema()));
        self.schemas.extend(referred.into_iter().map(|(name, schema)| (name, json!(schema))));
        name
    }
}
