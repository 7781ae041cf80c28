//! The JSON Schema of `mesh.toml`, for editors.

use serde_json::{Value, json};

use crate::declaration::Declaration;
use crate::field::Shape as _;

/// Describes `mesh.toml` as JSON Schema, draft-07: what the editors' TOML servers understand. It is made of the very fields that
/// [`resolve`](crate::resolve) reads: whatever resolves is valid by it. What parts mean together it cannot say.
pub fn schema() -> Value {
    let mut schema = Declaration::schema();
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("$schema".to_owned(), json!("http://json-schema.org/draft-07/schema#"));
        schema.insert("title".to_owned(), json!("mesh.toml"));
        schema.insert("description".to_owned(), json!("A mesh of services; docs/mesh-toml.md explains every field."));
    }
    schema
}
