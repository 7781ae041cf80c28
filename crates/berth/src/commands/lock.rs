use std::path::Path;

use mesh::Placement;

use super::print;
use crate::{failure::Failure, project::Project, secrets::files};

/// Writes the resolved plan, or checks that it is what the declaration says.
pub(super) fn run(project: &Project, check: bool) -> Result<(), Failure> {
    let plan = project.resolve(&Placement::Nodes)?.to_json();
    written_or_checked(&project.lock_file(), &plan, check, "berth lock")
}

/// Writes what follows from the declaration, or checks that it is what `command` would write.
pub(super) fn written_or_checked(path: &Path, text: &str, check: bool, command: &str) -> Result<(), Failure> {
    if files::read(path)?.as_deref() == Some(text) {
        return print(&format!("{} is up to date", path.display()));
    }
    if check {
        return Err(Failure::mendable(
            format!("{} is not what mesh.toml says", path.display()),
            format!("run `{command}` and commit the result"),
        ));
    }
    files::replace_public(path, text.as_bytes())?;
    print(&format!("wrote {}", path.display()))
}
