//! Java archives, by `java -jar`.

use super::{Files, Template};
use crate::units::Bytes;

pub(super) const TEMPLATE: Template = Template {
    name: "java",
    artifacts: &[".jar", ".war"],
    memory: Bytes::mib(384),
    // The heap is bounded explicitly, since not every runner puts the process into a cgroup the JVM could read its limit from.
    // A JVM out of memory limps on; it is better restarted.
    command: |memory| {
        let heap = format!("-Xmx{}m", super::share_in_mib(memory, 70));
        super::words(&["java", &heap, "-XX:+ExitOnOutOfMemoryError", "-jar", "${ARTIFACT}"])
    },
    environment: |_, _| Vec::new(),
    files: Files::Artifact,
    base: "docker.io/library/eclipse-temurin:21-jre",
    jit: true,
    dockerfile: include_str!("../../../../docker/runtimes/java.Dockerfile"),
};
