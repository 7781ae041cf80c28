//! The runtimes: how each kind of executable is started, and what it needs around it. One file each, and one Dockerfile each in
//! `docker/runtimes`; every target reads this registry, so that a new runtime is those two and a line in [`Template::of`].

mod dotnet;
mod java;
mod native;
mod node;
mod php;
mod python;
mod wine;

use crate::plan::{Artifact, Runtime};
use crate::units::{Bytes, Port};

/// How executables of one runtime are started, and what they need around them.
#[derive(Debug)]
pub struct Template {
    /// Its name in `mesh.toml`.
    pub name: &'static str,
    /// How the file names of its artifacts end; empty: any may.
    pub artifacts: &'static [&'static str],
    /// The memory one instance gets when nothing is declared.
    pub(crate) memory: Bytes,
    /// The command line before the declared arguments, for that much memory.
    pub(crate) command: fn(Bytes) -> Vec<String>,
    /// What the environment of an instance that listens on this host and port needs besides.
    pub(crate) environment: fn(&str, Port) -> Vec<(&'static str, String)>,
    /// What goes along with an artifact when nothing is declared.
    pub(crate) files: Files,
    /// The container image that images begin with when nothing is declared.
    pub(crate) base: &'static str,
    /// Whether machine code is made while it runs (systemd: `MemoryDenyWriteExecute=` must be off).
    pub(crate) jit: bool,
    /// How an image of an artifact is built: a Dockerfile with the arguments `NAME`, `FILES` and `BASE`, whose context is
    /// the folder of `mesh.toml`.
    pub dockerfile: &'static str,
}

/// What a program of a runtime usually needs of what lies around its artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Files {
    /// Nothing: the artifact is all of it.
    Artifact,
    /// What lies in the same folder.
    Folder,
    /// Everything beside `mesh.toml`.
    Everything,
}

impl Files {
    /// The path of what goes along with this artifact.
    pub(crate) fn of(self, artifact: &str) -> &str {
        match self {
            Self::Artifact => artifact,
            Self::Folder => artifact.rsplit_once('/').map_or(Artifact::EVERYTHING, |(folder, _)| folder),
            Self::Everything => Artifact::EVERYTHING,
        }
    }
}

impl Runtime {
    /// Every runtime there is.
    pub const ALL: [Self; 7] =
        [Self::Native, Self::Java, Self::Python, Self::Php, Self::Dotnet, Self::Node, Self::Wine];
}

impl Template {
    /// The template of a runtime.
    pub fn of(runtime: Runtime) -> &'static Self {
        match runtime {
            Runtime::Native => &native::TEMPLATE,
            Runtime::Java => &java::TEMPLATE,
            Runtime::Python => &python::TEMPLATE,
            Runtime::Php => &php::TEMPLATE,
            Runtime::Dotnet => &dotnet::TEMPLATE,
            Runtime::Node => &node::TEMPLATE,
            Runtime::Wine => &wine::TEMPLATE,
        }
    }
}

impl Template {
    /// The memory one instance gets when nothing is declared.
    pub const fn memory(&self) -> Bytes {
        self.memory
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// So many hundredths of `memory`, in MiB: what a runtime may use for its heap, so that stacks, code and buffers fit beside it.
fn share_in_mib(memory: Bytes, percent: u64) -> u64 {
    ((memory.get() >> 20) * percent / 100).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dockerfile_begins_with_the_base_of_its_runtime_and_has_no_privileges() {
        for template in Runtime::ALL.map(Template::of) {
            let lines: Vec<&str> = template.dockerfile.lines().collect();
            for line in [&*format!("ARG BASE={}", template.base), "ARG NAME=app", "ARG FILES=.", "USER 65532:65532"] {
                assert!(lines.contains(&line), "{}: {line}", template.name);
            }
        }
    }

    #[test]
    fn what_goes_along_holds_the_artifact() {
        for (files, artifact, along) in [
            (Files::Artifact, "build/app.jar", "build/app.jar"),
            (Files::Folder, "publish/net8/App.dll", "publish/net8"),
            (Files::Folder, "App.dll", "."),
            (Files::Everything, "src/main.py", "."),
        ] {
            assert_eq!(files.of(artifact), along);
        }
    }
}
