//! Executables that start by themselves.

use super::Template;
use crate::units::Bytes;

pub(super) const TEMPLATE: Template = Template {
    name: "native",
    artifacts: &[],
    memory: Bytes::mib(128),
    command: |_| super::words(&["${ARTIFACT}"]),
    environment: |_, _| Vec::new(),
};
