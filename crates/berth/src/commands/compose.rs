use mesh::Placement;

use super::{lock::written_or_checked, print};
use crate::{compose, failure::Failure, project::Project};

/// Writes the compose file and what it needs beside it, or checks that it is what the declaration says.
pub(super) fn run(project: &Project, check: bool) -> Result<(), Failure> {
    let plan = project.resolve(&Placement::Containers)?;
    let text = compose::file(&plan, project.declaration_name())?;
    if !check {
        for line in compose::beside::complete(project, &plan)? {
            print(&line)?;
        }
    }
    written_or_checked(&project.root().join("docker-compose.yaml"), &text, check, "berth compose")
}
