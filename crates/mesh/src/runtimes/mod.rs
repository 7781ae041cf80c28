//! The runtimes: how each kind of executable is started, and what it needs around it. `berth up` and containers read this registry and
//! nothing else: for them a new runtime is a file here, a Dockerfile in `docker/runtimes`, and its two lines below.
//!
//! It has to be named in a few more places, because they are not Rust or have a choice of their own to make; a test below fails until
//! it is:
//! - `nix/runtimes.nix`: which packages of Nix hold its interpreter.
//! - `nixos-modules/options/services.nix`: which runtimes there are, and whether it makes machine code, for who declares a service
//!   without a plan; `tests/nixos/evaluation.nix` sees that its unit may.
//! - `docs/mesh-toml.md`: its rows in the tables.
//! - `examples/<name>`, a program to try it with, and in `./berth` what has to be installed for that.
//!
//! `berth init` knows an artifact by its ending, from here; what else tells one is in `crates/berth/src/detect.rs`.

mod dotnet;
mod java;
mod native;
mod node;
mod php;
mod python;
mod wine;

use serde::{Deserialize, Serialize};

use crate::plan::Artifact;
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

macro_rules! runtimes {
    ($($(#[doc = $doc:literal])+ $runtime:ident = $module:ident,)+) => {
        /// How an executable is started.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Runtime {
            $($(#[doc = $doc])+ $runtime,)+
        }

        impl Runtime {
            /// Every runtime there is.
            pub const ALL: [Self; [$(Self::$runtime),+].len()] = [$(Self::$runtime),+];
        }

        impl Template {
            /// The template of a runtime.
            pub fn of(runtime: Runtime) -> &'static Self {
                match runtime {
                    $(Runtime::$runtime => &$module::TEMPLATE,)+
                }
            }
        }
    };
}

runtimes! {
    /// By itself.
    Native = native,
    /// By a Java virtual machine.
    Java = java,
    /// By CPython.
    Python = python,
    /// By PHP's command line.
    Php = php,
    /// By the .NET host.
    Dotnet = dotnet,
    /// By Node.js.
    Node = node,
    /// By Wine: a Windows executable on Linux.
    Wine = wine,
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
    use std::fs;

    use super::*;

    fn repository(path: &str) -> String {
        let path = format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"));
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    #[test]
    fn a_runtime_is_wherever_it_has_to_be_named() {
        let [packages, options, evaluation, manual, script] = [
            "nix/runtimes.nix",
            "nixos-modules/options/services.nix",
            "tests/nixos/evaluation.nix",
            "docs/mesh-toml.md",
            "berth",
        ]
        .map(repository);
        let making_code =
            options.split("lib.elem config.runtime [").nth(1).and_then(|rest| rest.split(']').next()).unwrap();
        for Template { name, jit, .. } in Runtime::ALL.map(Template::of) {
            assert!(packages.contains(&format!("\n  {name} = [")), "nix/runtimes.nix: {name}");
            assert_eq!(making_code.contains(&format!("\"{name}\"")), *jit, "options/services.nix: {name}");
            assert!(evaluation.contains(&format!("\n        {name} = {};", !jit)), "evaluation.nix: {name}");
            assert_eq!(manual.matches(&format!("\n| `{name}` |")).count(), 3, "docs/mesh-toml.md: {name}");
            assert!(script.contains(&format!("\n    runtime {name} ")), "./berth: {name}");
            assert!(
                repository(&format!("examples/{name}/mesh.toml")).contains(&format!("runtime = \"{name}\"")),
                "{name}"
            );
        }
    }

    /// What a Dockerfile does: without comments, labels, and the arguments that only labels use.
    fn steps(dockerfile: &str) -> Vec<&str> {
        let mut in_label = false;
        let is_step = |line: &&str| {
            let is_label = in_label || line.starts_with("LABEL ");
            in_label = is_label && line.ends_with('\\');
            !(is_label || line.is_empty() || line.starts_with('#') || matches!(*line, "ARG NAME=app" | "ARG BASE"))
        };
        dockerfile.lines().filter(is_step).collect()
    }

    #[test]
    fn the_dockerfile_that_is_explained_is_the_one_that_is_used() {
        let concepts = repository("docs/concepts.md");
        let listing = concepts.split("```dockerfile\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        assert_eq!(steps(listing), steps(java::TEMPLATE.dockerfile));
    }

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
