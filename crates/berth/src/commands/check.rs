use mesh::{Diagnostics, Placement, Plan};
use serde::Serialize;

use super::print;
use crate::{failure::Failure, project::Project};

/// What `--json` prints; no findings: it resolves.
#[derive(Serialize)]
struct Report {
    file: String,
    findings: Vec<Told>,
}

#[derive(Serialize)]
struct Told {
    /// From 1.
    line: usize,
    /// In characters, from 1.
    column: usize,
    rule: &'static str,
    message: String,
    help: Option<String>,
}

/// Says everything that is wrong with the declaration.
pub(super) fn run(project: &Project, json: bool) -> Result<(), Failure> {
    let resolved = project.resolve(&Placement::Nodes);
    if json {
        return match resolved {
            Ok(_) => print(&report(project, None)?),
            Err(Failure::Declaration(found)) => {
                print(&report(project, Some(&found))?)?;
                // All is said on standard output; the exit code says it once more.
                let code = Failure::Declaration(found).exit_code();
                Err(Failure::Told { words: String::new(), code })
            }
            Err(other) => Err(other),
        };
    }
    print(&summary(project, &resolved?))
}

fn report(project: &Project, found: Option<&Diagnostics>) -> Result<String, Failure> {
    let findings = found.map(Diagnostics::findings).unwrap_or_default().iter().map(|finding| Told {
        line: finding.line(),
        column: finding.column(),
        rule: finding.rule().code(),
        message: finding.message().to_owned(),
        help: miette::Diagnostic::help(finding).map(|help| help.to_string()),
    });
    let report = Report { file: project.declaration().display().to_string(), findings: findings.collect() };
    serde_json::to_string_pretty(&report).map_err(Failure::other)
}

fn summary(project: &Project, plan: &Plan) -> String {
    let count = |number: usize, one: &str| if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") };
    format!(
        "{} is right: {}, {}, {}",
        project.declaration().display(),
        count(plan.nodes.len(), "node"),
        count(plan.services.len(), "service"),
        count(plan.databases.len(), "database"),
    )
}
