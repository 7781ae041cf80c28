//! The tour of a running shop: the commands a person pastes, and that `berth demo` runs. They are defined once, here.

use std::{env, fmt::Write, path::Path};

use mesh::Plan;

use crate::{called, project::Project};

/// One step: what it shows, and the shell commands that do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it shows.
    pub title: &'static str,
    /// Lines for a POSIX shell. What they print is the answer to look at.
    pub commands: String,
}

/// The last step's answer holds this when all went well.
pub const CONFIRMED: &str = "\"CONFIRMED\"";

/// The tour, for a mesh that has the shop's services.
pub fn steps(project: &Project, plan: &Plan) -> Option<Vec<Step>> {
    let routed = |prefix: &str| plan.gateway.routes.iter().any(|route| *route.prefix == *prefix);
    if !routed("/items") || !routed("/documents") {
        return None;
    }
    let berth = program(project);
    let url = &plan.gateway.public_url;
    let state = project.state();
    let state = state.strip_prefix(project.root()).unwrap_or(&state).to_string_lossy().into_owned();
    let token = if project.runs_in_containers() { "token --compose" } else { "token" };
    let curl = &format!("curl -sS --cacert {state}/ca.pem");
    // From files: whatever stands in a command line can be read by everybody on the machine.
    let (carol, alice) = (&format!("-H @{state}/carol"), &format!("-H @{state}/alice"));
    let json = "-H 'Content-Type: application/json'";
    let id = r#"grep -o '"id":"[^"]*"' | head -n 1 | cut -d '"' -f 4"#;
    Some(vec![
        Step {
            title: "Go where the mesh is declared.",
            commands: format!("cd {}", quoted(&project.root().to_string_lossy())),
        },
        Step {
            title: "carol, a clerk, and alice, a customer, log in (authorization code with PKCE).",
            commands: format!(
                "(umask 077\n\
                 echo \"Authorization: Bearer $({berth} {token} --user carol)\" >{state}/carol\n\
                 echo \"Authorization: Bearer $({berth} {token} --user alice)\" >{state}/alice)"
            ),
        },
        Step {
            title: "carol puts an item on sale: price in cents, three pieces in stock.",
            commands: format!(
                "ITEM=$({curl} {url}/items {carol} {json} \\\n  \
                 -d '{{\"sku\":\"TEA-'$(date +%s)-$$'\",\"name\":\"Green tea\",\"price\":{{\"amount\":499,\"currency\":\"EUR\"}},\"stock_on_hand\":3}}')\n\
                 echo \"$ITEM\"; ITEM_ID=$(echo \"$ITEM\" | {id})"
            ),
        },
        Step {
            title: "alice orders two. The order is taken down at once; its outcome is a matter of two databases.",
            commands: format!(
                "ORDER=$({curl} {url}/documents {alice} {json} \\\n  \
                 -H \"Idempotency-Key: $(date +%s)-$$\" \\\n  \
                 -d '{{\"kind\":\"order\",\"lines\":[{{\"item_id\":\"'$ITEM_ID'\",\"quantity\":2}}]}}')\n\
                 echo \"$ORDER\"; ORDER_ID=$(echo \"$ORDER\" | {id})"
            ),
        },
        Step {
            title: "She watches it until it is decided.",
            commands: format!(
                "for second in $(seq 30); do\n  \
                 ORDER=$({curl} {url}/documents/$ORDER_ID {alice})\n  \
                 case $ORDER in *'\"PENDING\"'*) sleep 1 ;; *) break ;; esac\n\
                 done; echo \"$ORDER\""
            ),
        },
        Step { title: "One piece is left.", commands: format!("{curl} {url}/items/$ITEM_ID {alice}; echo") },
        Step {
            title: "Without a token there is no way in, and a customer may not put anything on sale.",
            commands: format!(
                "{curl} {url}/items; echo\n\
                 {curl} {url}/items {alice} {json} -d '{{\"sku\":\"X\",\"name\":\"X\",\"price\":{{\"amount\":1,\"currency\":\"EUR\"}},\"stock_on_hand\":1}}'; echo"
            ),
        },
        Step { title: "The order, confirmed.", commands: format!("{curl} {url}/documents/$ORDER_ID {alice}; echo") },
    ])
}

/// The tour as text to read and to paste.
pub fn text(project: &Project, plan: &Plan) -> String {
    let mut text = format!("{} is up at {}\n", plan.name, plan.gateway.public_url);
    // Writing to a text cannot fail.
    let _ = writeln!(text, "Trust its certificate with --cacert {}", project.ca().display());
    let Some(steps) = steps(project, plan) else { return text };
    let _ = writeln!(text, "Passwords of the demo users: {}\n", project.users().display());
    let _ = writeln!(text, "Try it (or let `{} demo` do all of it):", called::command());
    for step in steps {
        let _ = writeln!(text, "\n# {}\n{}", step.title, step.commands);
    }
    text
}

/// How to call this program from the project's folder: by the script there, if it has one.
fn program(project: &Project) -> String {
    if project.root().join("berth").is_file() {
        return "./berth".to_owned();
    }
    let own = env::current_exe().ok();
    quoted(&own.as_deref().unwrap_or(Path::new("berth")).to_string_lossy())
}

/// A word for a POSIX shell.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("/srv/shop"), "/srv/shop");
        assert_eq!(quoted("/a b/it's"), r"'/a b/it'\''s'");
    }
}
