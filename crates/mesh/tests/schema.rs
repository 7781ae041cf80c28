//! The JSON Schema of `mesh.toml`: committed, and in step with what is read.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use mesh::{Placement, resolve};
use serde_json::Value;

const SHOP: &str = include_str!("../../../mesh.toml");
const MANUAL: &str = include_str!("../../../docs/mesh-toml.md");

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schema/mesh.schema.json")
}

/// What the schema has against a text.
fn complaints(text: &str) -> Vec<String> {
    let document: Value = toml::from_str(text).unwrap();
    let validator = jsonschema::draft7::new(&mesh::schema()).unwrap();
    validator.iter_errors(&document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn the_committed_schema_is_up_to_date() {
    let path = committed();
    if std::env::var_os("BERTH_BLESS").is_some_and(|bless| bless == "1") {
        let text = serde_json::to_string_pretty(&mesh::schema()).unwrap();
        std::fs::write(&path, text + "\n").unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let committed: Value = serde_json::from_str(&text).unwrap_or_default();
    assert!(
        committed == mesh::schema(),
        "schema/mesh.schema.json is not what mesh.toml is read by: write it anew with BERTH_BLESS=1, and commit it"
    );
}

#[test]
fn it_is_a_valid_schema() {
    assert!(jsonschema::draft7::meta::is_valid(&mesh::schema()));
}

#[test]
fn what_resolves_is_valid() {
    let examples = MANUAL.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    for text in examples.chain([SHOP]) {
        let document: toml::Table = toml::from_str(text).unwrap();
        // The manual's example of another issuer is a part of a declaration.
        let text = if document.contains_key("mesh") { text.to_owned() } else { format!("{SHOP}{text}") };
        assert!(resolve("mesh.toml", &text, &Placement::Nodes).is_ok(), "{text}");
        assert_eq!(complaints(&text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn what_no_reader_would_take_is_not() {
    for (right, wrong) in [
        ("[mesh]\nname = \"eshop\"", ""),
        ("name = \"eshop\"", "name = \"Eshop\""),
        ("name = \"eshop\"", "name = \"eshop-1\""),
        ("cpus = 1,", "cpus = \"1\","),
        ("memory = \"1.5GiB\"", "memory = \"1.5GB\""),
        ("count = 2", "count = 257"),
        ("port = 8200", "port = 0"),
        ("port = 8200", "prot = 8200"),
        ("port = 8200", "port = 8200\nstop_timeout = \"30\""),
        ("port = 8200", "port = 8200\nruntime = \"cobol\""),
        ("replicas = { min = 1,", "replicas = { minimum = 1,"),
        ("prefix = \"/items\"", "prefix = \"items/\""),
        ("auth = \"none\"", "auth = \"nobody\""),
        ("emits = [\"items.>\"]", "emits = \"items.>\""),
        ("emits = [\"items.>\"]", "emits = [\"Items.>\"]"),
    ] {
        let text = SHOP.replacen(right, wrong, 1);
        assert_ne!(text, SHOP, "{right}");
        assert!(resolve("mesh.toml", &text, &Placement::Nodes).is_err(), "{wrong}");
        assert_ne!(complaints(&text), Vec::<String>::new(), "{wrong}");
    }
}

#[test]
fn the_manual_has_every_field() {
    fn walk(schema: &Value, missing: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let told = [format!("`{name}`"), format!("`[{name}"), format!("`{{ {name}")];
            if !told.iter().any(|told| MANUAL.contains(told)) {
                missing.push(name.clone());
            }
            walk(field, missing);
            walk(&field["additionalProperties"], missing);
        }
    }
    let mut missing = Vec::new();
    walk(&mesh::schema(), &mut missing);
    assert_eq!(missing, Vec::<String>::new(), "docs/mesh-toml.md does not explain these");
}
