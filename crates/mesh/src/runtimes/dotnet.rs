//! .NET assemblies, by the .NET host.

use super::Template;
use crate::units::Bytes;

pub(super) const TEMPLATE: Template = Template {
    name: "dotnet",
    artifacts: &[".dll"],
    memory: Bytes::mib(256),
    command: |_| super::words(&["dotnet", "${ARTIFACT}"]),
    environment: |host, port| {
        vec![("ASPNETCORE_URLS", format!("http://{host}:{port}")), ("DOTNET_NOLOGO", "1".to_owned())]
    },
};
