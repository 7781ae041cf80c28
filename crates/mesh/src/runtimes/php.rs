//! A PHP front controller, by the web server of PHP's command line.

use super::Template;
use crate::units::Bytes;

pub(super) const TEMPLATE: Template = Template {
    name: "php",
    artifacts: &[".php"],
    memory: Bytes::mib(128),
    command: |_| super::words(&["php", "-S", "${HOST}:${PORT}", "${ARTIFACT}"]),
    // Without workers the server takes one request at a time, and a slow one would fail the health check.
    environment: |_, _| vec![("PHP_CLI_SERVER_WORKERS", "4".to_owned())],
};
