use std::{fs, path::Path};

use mesh::Placement;

use super::print;
use crate::{failure::Failure, graph, project::Project};

/// Draws the mesh into `output`, or onto standard output.
pub(super) fn run(project: &Project, output: Option<&Path>) -> Result<(), Failure> {
    let svg = graph::svg(&project.resolve(&Placement::Nodes)?);
    match output {
        None => print(svg.trim_end()),
        Some(path) => {
            fs::write(path, svg).map_err(|error| Failure::io(format!("cannot write {}", path.display()), error))?;
            print(&format!("wrote {}", path.display()))
        }
    }
}
