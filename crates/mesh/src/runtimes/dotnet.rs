//! .NET assemblies, by the .NET host.

use super::{Files, Template};
use crate::units::Bytes;

pub(super) const TEMPLATE: Template = Template {
    name: "dotnet",
    artifacts: &[".dll"],
    memory: Bytes::mib(256),
    command: |_| super::words(&["dotnet", "${ARTIFACT}"]),
    environment: |host, port| {
        vec![("ASPNETCORE_URLS", format!("http://{host}:{port}")), ("DOTNET_NOLOGO", "1".to_owned())]
    },
    files: Files::Folder,
    base: "mcr.microsoft.com/dotnet/aspnet:10.0",
    jit: true,
    dockerfile: include_str!("../../../../docker/runtimes/dotnet.Dockerfile"),
};
