//! The fields of `mesh.toml`: each has its name, its type and its meaning in one place, which reading and the JSON Schema both go by.

use std::marker::PhantomData;

use serde_json::{Map, Value, json};
use toml::Spanned;

use crate::name::{Domain, Name};
use crate::path::UrlPath;
use crate::read::{Entries, Whole};
use crate::subject::Subject;
use crate::units::{Bytes, MilliCpu, Millis, Port};

/// What may stand in a place, as JSON Schema (draft-07). It may be laxer than reading is, never stricter.
pub(crate) trait Shape {
    fn schema() -> Value;
}

/// A field that holds a `T`.
#[derive(Debug)]
pub(crate) struct Field<T> {
    pub(crate) name: &'static str,
    /// A value for it, in TOML, if it must be there.
    pub(crate) required: Option<&'static str>,
    /// For the person who writes it.
    about: &'static str,
    holds: PhantomData<fn() -> T>,
}

impl<T> Field<T> {
    pub(crate) const fn new(name: &'static str, about: &'static str) -> Self {
        Self { name, required: None, about, holds: PhantomData }
    }

    /// One that must be there, with an example for who left it out.
    pub(crate) const fn required(name: &'static str, example: &'static str, about: &'static str) -> Self {
        Self { name, required: Some(example), about, holds: PhantomData }
    }
}

/// A field of whatever type.
pub(crate) trait AnyField: Sync {
    fn name(&self) -> &'static str;
    fn is_required(&self) -> bool;
    fn schema(&self) -> Value;
}

impl<T: Shape> AnyField for Field<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_required(&self) -> bool {
        self.required.is_some()
    }

    fn schema(&self) -> Value {
        let mut schema = T::schema();
        if let Some(schema) = schema.as_object_mut() {
            schema.insert("description".to_owned(), self.about.into());
        }
        schema
    }
}

/// A table with these fields and no others.
pub(crate) trait Table {
    const FIELDS: &'static [&'static dyn AnyField];
}

impl<T: Table> Shape for T {
    fn schema() -> Value {
        let properties: Map<String, Value> =
            T::FIELDS.iter().map(|field| (field.name().to_owned(), field.schema())).collect();
        let required: Vec<&str> =
            T::FIELDS.iter().filter(|field| field.is_required()).map(|field| field.name()).collect();
        let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
        if let (Some(schema), false) = (schema.as_object_mut(), required.is_empty()) {
            schema.insert("required".to_owned(), required.into());
        }
        schema
    }
}

impl<T: Shape> Shape for Entries<T> {
    fn schema() -> Value {
        json!({ "type": "object", "propertyNames": Name::schema(), "additionalProperties": T::schema() })
    }
}

impl<T: Shape> Shape for Spanned<T> {
    fn schema() -> Value {
        T::schema()
    }
}

impl<T: Shape> Shape for Vec<T> {
    fn schema() -> Value {
        json!({ "type": "array", "items": T::schema() })
    }
}

impl Shape for String {
    fn schema() -> Value {
        json!({ "type": "string" })
    }
}

impl Shape for bool {
    fn schema() -> Value {
        json!({ "type": "boolean" })
    }
}

impl<const LEAST: u32, const MOST: u32> Shape for Whole<LEAST, MOST> {
    fn schema() -> Value {
        json!({ "type": "integer", "minimum": LEAST, "maximum": MOST })
    }
}

impl Shape for Port {
    fn schema() -> Value {
        Whole::<1, { u16::MAX as u32 }>::schema()
    }
}

impl Shape for MilliCpu {
    fn schema() -> Value {
        json!({ "type": "number", "minimum": 0.01, "maximum": 1024, "examples": [0.5, 2] })
    }
}

impl Shape for Bytes {
    fn schema() -> Value {
        json!({
            "type": "string",
            "pattern": r"^[0-9]+(\.[0-9]+)?\s*(B|KiB|MiB|GiB|TiB)$",
            "examples": ["256MiB", "1.5GiB"],
        })
    }
}

impl Shape for Millis {
    // What counts as a unit is jiff's to say; that there is one is what people forget.
    fn schema() -> Value {
        json!({ "type": "string", "pattern": "[0-9].*[A-Za-zµμ:]|[Pp][Tt]", "examples": ["500ms", "1.5s", "1m 30s"] })
    }
}

impl Shape for Name {
    fn schema() -> Value {
        json!({
            "type": "string",
            "pattern": "^[a-z][a-z0-9]*(-[a-z0-9]+)*$",
            "not": { "pattern": "-[0-9]+$" },
            "maxLength": Self::MOST_DECLARED,
        })
    }
}

impl Shape for Domain {
    fn schema() -> Value {
        json!({ "type": "string", "pattern": r"^[a-z0-9-]+(\.[a-z0-9-]+)*$", "examples": ["eshop.internal"] })
    }
}

impl Shape for UrlPath {
    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^/([A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*)?$", "examples": ["/items"] })
    }
}

impl Shape for Subject {
    fn schema() -> Value {
        json!({ "type": "string", "pattern": r"^[a-z0-9_*>-]+(\.[a-z0-9_*>-]+){0,2}$", "examples": ["items.>"] })
    }
}

/// One of a few words.
pub(crate) fn one_of<'a>(words: impl IntoIterator<Item = &'a str>) -> Value {
    json!({ "type": "string", "enum": words.into_iter().collect::<Vec<_>>() })
}
