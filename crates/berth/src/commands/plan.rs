use mesh::Placement;

use super::{print, width};
use crate::{failure::Failure, picture, project::Project};

/// Shows what the declaration comes to on its nodes.
pub(super) fn run(project: &Project, json: bool) -> Result<(), Failure> {
    let plan = project.resolve(&Placement::Nodes)?;
    let text = if json { plan.to_json() } else { picture::of(&plan, width()) };
    print(text.trim_end())
}
