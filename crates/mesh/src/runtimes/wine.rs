//! Windows executables, by Wine.

use super::{Files, Template};
use crate::units::Bytes;

/// Makes a Windows where there is none, takes it for made only when it is whole, and starts the program in it. Whoever is ended meanwhile
/// begins anew: Wine itself would go on with half of one, in which nothing starts.
const START: &str = r#"set -eu
prefix=$$1
shift
if [ ! -d "$$prefix" ]; then
    export WINEPREFIX="$$prefix.next"
    rm -rf "$$WINEPREFIX"
    wine wineboot --init
    wineserver --wait
    mv "$$WINEPREFIX" "$$prefix"
fi
export WINEPREFIX="$$prefix"
exec wine "$$@"
"#;

pub(super) const TEMPLATE: Template = Template {
    name: "wine",
    artifacts: &[".exe"],
    memory: Bytes::mib(512),
    // Each instance has a Windows of its own: what Wine keeps there belongs to one server process, and that ends with the
    // instance. Made at the first start, which takes some ten seconds.
    command: |_| super::words(&["sh", "-c", START, "sh", "${STATE_DIRECTORY}/wine", "${ARTIFACT}"]),
    // Nobody reads what Wine itself says of calls it does not know.
    environment: |_, _| vec![("WINEDEBUG", "-all".to_owned())],
    files: Files::Artifact,
    base: "docker.io/library/debian:trixie-slim",
    jit: true,
    dockerfile: include_str!("../../../../docker/runtimes/wine.Dockerfile"),
};
