//! Java archives, by `java -jar`.

use super::Template;
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
};
