//! The first `mesh.toml` of a folder: one service behind the gateway, twice.

use mesh::{Name, Template};

use crate::detect::Candidate;

/// Names that the first declaration needs for other things.
const TAKEN: [&str; 5] = ["gateway", "identity", "identity-db", "nats", "app"];

/// A `mesh.toml` for one program. `name`, a valid one, is that of the mesh, of the service and of its route.
pub fn declaration(name: &str, program: &Candidate) -> String {
    let template = Template::of(program.runtime);
    let (runtime, memory) = (template.name, template.memory());
    let artifact = toml_string(&program.artifact);
    let build = program.build.as_deref().map(|build| format!("    # not there yet: {build}")).unwrap_or_default();
    format!(
        r#"# Written by `berth init`. What every field means: docs/mesh-toml.md. After a change: `berth check`, `berth plan`.

[mesh]
name = "{name}"

[sizes]
small = {{ cpus = 1, memory = "1.5GiB", disk = "8GiB" }}

# The way in, and who issues access tokens.
[nodes.edge]
size = "small"
runs = ["gateway", "identity", "identity-db"]

# Two machines, one instance on each.
[nodes.app]
size = "small"
count = 2
runs = ["{name}"]

[services.gateway]
port = 8000

[services.identity]
port = 8100
memory = "256MiB"
route = {{ prefix = "/identity", auth = "none" }}
database = "identity-db"

# It must listen on $HOST:$PORT and serve what lies below its prefix.
[services.{name}]
runtime = "{runtime}"
artifact = {artifact}{build}
# args = ["--port", "${{PORT}}"]
# health = {{ path = "/{name}/health" }}    # without it, accepting a connection is enough
memory = "{memory}"
port = 8200
route = {{ prefix = "/{name}" }}            # auth = "none" lets everybody in

[databases.identity-db]

[gateway]
port = 8443
"#
    )
}

/// A TOML basic string.
fn toml_string(text: &str) -> String {
    // JSON's escapes are TOML's too; control characters are not let in before.
    serde_json::Value::from(text).to_string()
}

/// Checks a name that somebody chose.
///
/// # Errors
/// It is not valid, or the first declaration needs it for something else.
pub fn checked_name(text: &str) -> Result<String, String> {
    let name = Name::new(text).map_err(|error| error.to_string())?;
    if TAKEN.contains(&name.as_str()) {
        return Err(format!("`{name}` is something else in this declaration"));
    }
    Ok(name.to_string())
}

/// The valid name nearest to a folder's: `My Shop_2` → `my-shop2`.
pub fn name_of(folder: &str) -> String {
    let lower = folder.to_lowercase();
    let parts: Vec<&str> = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty()).collect();
    let mut name = String::new();
    for part in parts {
        // A number after a hyphen is an instance's.
        if !name.is_empty() && !part.bytes().all(|byte| byte.is_ascii_digit()) {
            name.push('-');
        }
        name.push_str(part);
    }
    let name: String =
        name.trim_start_matches(|c: char| !c.is_ascii_lowercase()).chars().take(Name::MOST_DECLARED - 8).collect();
    match name.trim_end_matches('-') {
        "" => "my-app".to_owned(),
        taken if TAKEN.contains(&taken) => format!("my-{taken}"),
        free => free.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use mesh::{Placement, plan::Runtime};

    use super::*;

    fn jar(artifact: &str) -> Candidate {
        Candidate {
            runtime: Runtime::Java,
            artifact: artifact.to_owned(),
            because: "pom.xml".to_owned(),
            build: Some("mvn package".to_owned()),
        }
    }

    #[test]
    fn any_folder_gives_a_name_that_resolves() {
        for (folder, name) in [
            ("pricing", "pricing"),
            ("My Shop_2", "my-shop2"),
            ("gateway", "my-gateway"),
            ("app", "my-app"),
            ("42", "my-app"),
            ("2-fast", "fast"),
            ("ÄÖ", "my-app"),
            ("a--b-1-2", "a-b12"),
            (&"x-".repeat(60), &"x-".repeat(20)[..39]),
        ] {
            assert_eq!(name_of(folder), name, "{folder}");
            let text = declaration(&name_of(folder), &jar("target/a.jar"));
            assert!(mesh::resolve("mesh.toml", &text, &Placement::Nodes).is_ok(), "{folder}");
        }
    }

    #[test]
    fn a_chosen_name_is_valid_and_free() {
        assert_eq!(checked_name("pricing").as_deref(), Ok("pricing"));
        for text in ["", "Pricing", "gateway", "nats"] {
            assert!(checked_name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_quote_in_a_file_name_stays_inside_the_text() {
        let text = declaration("pricing", &jar("a \"b\".jar"));
        let plan = mesh::resolve("mesh.toml", &text, &Placement::Nodes).unwrap();
        let mesh::plan::Executable::Artifact(artifact) = &plan.service("pricing").unwrap().executable else {
            panic!("{text}")
        };
        assert_eq!(artifact.path, "a \"b\".jar");
    }

    #[test]
    fn the_first_declaration_explains_itself() {
        insta::assert_snapshot!(declaration("pricing", &jar("target/pricing.jar")));
    }
}
