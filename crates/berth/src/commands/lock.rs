use mesh::Placement;

use super::print;
use crate::{failure::Failure, project::Project, secrets::files};

/// Writes the resolved plan, or checks that it is what the declaration says.
pub(super) fn run(project: &Project, check: bool) -> Result<(), Failure> {
    let plan = project.resolve(&Placement::Nodes)?.to_json();
    let path = project.lock_file();
    let current = files::read(&path)?;
    if current.as_deref() == Some(plan.as_str()) {
        return print(&format!("{} is up to date", path.display()));
    }
    if check {
        return Err(Failure::mendable(
            format!("{} is not what mesh.toml says", path.display()),
            "run `berth lock` and commit the result",
        ));
    }
    files::replace_public(&path, plan.as_bytes())?;
    print(&format!("wrote {}", path.display()))
}
