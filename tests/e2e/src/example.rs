//! The folders of `examples/`: to copy, to build, and what that needs.

use std::{env, fs, path::Path, process::Command};

use crate::repository;

/// A program of `examples/`, and what it takes to build it and to run it here.
#[derive(Debug, Clone, Copy)]
pub struct Example {
    /// Its folder, which is also where its route begins.
    pub name: &'static str,
    /// What runs it and what builds it.
    programs: &'static [&'static str],
    /// Where those are from.
    packages: &'static str,
    /// The argument of its `build.sh`.
    pub variant: Option<&'static str>,
}

impl Example {
    const fn new(name: &'static str, programs: &'static [&'static str], packages: &'static str) -> Self {
        Self { name, programs, packages, variant: None }
    }

    /// Whether everything it takes is installed; if not, it is said what is not.
    pub fn can_run(&self) -> bool {
        let missing = missing(self.programs);
        if let Some(program) = missing {
            eprintln!("skipped: {}: {program} is not installed ({})", self.name, self.packages);
        }
        missing.is_none()
    }

    /// Puts the program alone into a folder: what was built, or, where nothing is, the script.
    pub fn put(&self, folder: &Path) {
        let workshop = tempfile::tempdir().expect("cannot make a folder");
        copy(self.name, workshop.path());
        build(workshop.path(), self.variant);
        let built = workshop.path().join("build");
        let programs = if built.is_dir() { &built } else { workshop.path() };
        for entry in fs::read_dir(programs).expect("cannot read the folder") {
            let path = entry.expect("cannot read the folder").path();
            if path.is_file() && path.file_stem().is_some_and(|stem| stem == "hello") {
                let name = path.file_name().expect("a file has a name");
                fs::copy(&path, folder.join(name)).expect("cannot copy the program");
            }
        }
    }
}

/// Adds to the declaration in this folder what `berth init` cannot know of: a secret, where the program says that it is ready, and these
/// fields.
pub fn declare_rest(folder: &Path, fields: &str) {
    let path = folder.join("mesh.toml");
    let written = fs::read_to_string(&path).expect("there is no declaration");
    let service = format!("port = 8200\nsecrets = [\"greeting\"]\nhealth = {{ path = \"/readyz\" }}\n{fields}");
    let declared = written.replacen("port = 8200\n", &service, 1) + "\n[secrets.greeting]\nsource = \"generated\"\n";
    fs::write(path, declared).expect("cannot write the declaration");
}

/// An executable.
pub const NATIVE: Example = Example::new("native", &["cc"], "apt-get install gcc libc6-dev");
/// A jar.
pub const JAVA: Example = Example::new("java", &["java", "javac", "jar"], "apt-get install default-jdk-headless");
/// A Python script.
pub const PYTHON: Example = Example::new("python", &["python3"], "apt-get install python3");
/// A PHP script.
pub const PHP: Example = Example::new("php", &["php"], "apt-get install php-cli");
/// An assembly, by Microsoft's .NET.
pub const DOTNET: Example = Example::new("dotnet", &["dotnet"], "dotnet-sdk-8.0, from Microsoft's package source");
/// The same by the other implementation of .NET, which a declaration has to ask for.
pub const MONO: Example =
    Example { variant: Some("mono"), ..Example::new("dotnet", &["mono", "mcs"], "apt-get install mono-mcs") };
/// A script for Node.js.
pub const NODE: Example = Example::new("node", &["node"], "apt-get install nodejs");
/// A Windows executable.
pub const WINE: Example =
    Example::new("wine", &["wine", "x86_64-w64-mingw32-gcc"], "apt-get install wine wine64 gcc-mingw-w64-x86-64");

/// Copies an example into a folder, which is made if it is not there. Nothing is built.
pub fn copy(name: &str, folder: &Path) {
    fs::create_dir_all(folder).expect("cannot make a folder");
    let example = repository().join("examples").join(name);
    for entry in fs::read_dir(&example).expect("cannot read the example") {
        let entry = entry.expect("cannot read the example");
        // Folders are what somebody built or ran there.
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            fs::copy(entry.path(), folder.join(entry.file_name())).expect("cannot copy the example");
        }
    }
}

/// Runs the build script of a copied example, if it has one, with the `variant` as its argument.
pub fn build(folder: &Path, variant: Option<&str>) {
    let script = folder.join("build.sh");
    if script.is_file() {
        let built = Command::new(script).args(variant).output().expect("cannot run build.sh");
        let said = [built.stdout, built.stderr].concat();
        assert!(built.status.success(), "{}: {}", built.status, String::from_utf8_lossy(&said));
    }
}

/// The first of these programs that is not on PATH.
fn missing<'a>(programs: &[&'a str]) -> Option<&'a str> {
    let path = env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &str| env::split_paths(&path).any(|folder| folder.join(program).is_file());
    programs.iter().find(|program| !is_there(program)).copied()
}
