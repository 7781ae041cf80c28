//! Windows executables, by Wine.

use super::{Files, Template};
use crate::units::Bytes;

pub(super) const TEMPLATE: Template = Template {
    name: "wine",
    artifacts: &[".exe"],
    memory: Bytes::mib(512),
    // Each instance has a Windows of its own: what Wine keeps there belongs to one server process, and that ends with the
    // instance. Made at the first start, which takes some ten seconds.
    command: |_| super::words(&["env", "WINEPREFIX=${STATE_DIRECTORY}/wine", "wine", "${ARTIFACT}"]),
    // Nobody reads what Wine itself says of calls it does not know.
    environment: |_, _| vec![("WINEDEBUG", "-all".to_owned())],
    files: Files::Artifact,
    base: "docker.io/library/debian:trixie-slim",
    jit: true,
    dockerfile: include_str!("../../../../docker/runtimes/wine.Dockerfile"),
};
