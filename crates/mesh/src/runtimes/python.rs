//! Python scripts and zipapps, by CPython.

use super::{Files, Template};
use crate::units::Bytes;

pub(super) const TEMPLATE: Template = Template {
    name: "python",
    artifacts: &[".py", ".pyz"],
    memory: Bytes::mib(128),
    command: |_| super::words(&["python3", "${ARTIFACT}"]),
    environment: |_, _| vec![("PYTHONUNBUFFERED", "1".to_owned()), ("PYTHONDONTWRITEBYTECODE", "1".to_owned())],
    files: Files::Everything,
    base: "docker.io/library/python:3.13-slim",
    jit: false,
    dockerfile: include_str!("../../../../docker/runtimes/python.Dockerfile"),
};
