use mesh::Placement;

use super::lock::written_or_checked;
use crate::{compose, failure::Failure, project::Project};

/// Writes the compose file, or checks that it is what the declaration says.
pub(super) fn run(project: &Project, check: bool) -> Result<(), Failure> {
    let plan = project.resolve(&Placement::Containers)?;
    let text = compose::file(&plan, project.declaration_name())?;
    written_or_checked(&project.root().join("docker-compose.yaml"), &text, check, "berth compose")
}
