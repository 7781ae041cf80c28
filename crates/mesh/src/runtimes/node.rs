//! JavaScript, by Node.js.

use super::{Files, Template};
use crate::units::Bytes;

pub(super) const TEMPLATE: Template = Template {
    name: "node",
    artifacts: &[".js", ".mjs", ".cjs"],
    memory: Bytes::mib(192),
    command: |memory| {
        let heap = format!("--max-old-space-size={}", super::share_in_mib(memory, 70));
        super::words(&["node", &heap, "${ARTIFACT}"])
    },
    environment: |_, _| vec![("NODE_ENV", "production".to_owned())],
    files: Files::Everything,
    base: "docker.io/library/node:24-slim",
    jit: true,
    dockerfile: include_str!("../../../../docker/runtimes/node.Dockerfile"),
};
