//! Windows executables, by Wine.

use super::Template;
use crate::units::Bytes;

pub(super) const TEMPLATE: Template = Template {
    name: "wine",
    artifacts: &[".exe"],
    memory: Bytes::mib(512),
    command: |_| super::words(&["wine", "${ARTIFACT}"]),
    environment: |_, _| vec![("WINEDEBUG", "-all".to_owned())],
};
