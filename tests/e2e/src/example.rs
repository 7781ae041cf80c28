//! The folders of `examples/`: to copy, to build, and what that needs.

use std::{env, fs, path::Path, process::Command};

use crate::repository;

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
pub fn missing<'a>(programs: &[&'a str]) -> Option<&'a str> {
    let path = env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &str| env::split_paths(&path).any(|folder| folder.join(program).is_file());
    programs.iter().find(|program| !is_there(program)).copied()
}
