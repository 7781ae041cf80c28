//! Executables that start by themselves.

use super::{Files, Template};
use crate::units::Bytes;

pub(super) const TEMPLATE: Template = Template {
    name: "native",
    artifacts: &[],
    memory: Bytes::mib(128),
    command: |_| super::words(&["${ARTIFACT}"]),
    environment: |_, _| Vec::new(),
    files: Files::Artifact,
    base: "gcr.io/distroless/cc-debian13:nonroot",
    jit: false,
    dockerfile: include_str!("../../../../docker/runtimes/native.Dockerfile"),
};
