//! A PHP front controller, by the web server of PHP's command line.

use super::{Files, Template};
use crate::units::Bytes;

pub(super) const TEMPLATE: Template = Template {
    name: "php",
    artifacts: &[".php"],
    memory: Bytes::mib(128),
    // PCRE's compiler is refused where memory may not be written and executed, and warns then at every start.
    command: |_| super::words(&["php", "-d", "pcre.jit=0", "-S", "${HOST}:${PORT}", "${ARTIFACT}"]),
    // Without workers the server takes one request at a time, and a slow one would fail the health check.
    environment: |_, _| vec![("PHP_CLI_SERVER_WORKERS", "4".to_owned())],
    files: Files::Everything,
    base: "docker.io/library/php:8.4-cli",
    jit: false,
    dockerfile: include_str!("../../../../docker/runtimes/php.Dockerfile"),
};
