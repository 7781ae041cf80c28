//! The runtimes: how each kind of executable is started. One file each; every target reads this registry, so that a new runtime is a
//! new file here and a line in [`Template::of`].

mod dotnet;
mod java;
mod native;
mod node;
mod php;
mod python;
mod wine;

use crate::plan::Runtime;
use crate::units::{Bytes, Port};

/// How executables of one runtime are started.
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
