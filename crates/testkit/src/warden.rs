//! What ends a mesh that a test has started, however the test itself ends.

use std::{
    ffi::OsStr,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};

/// Takes a mesh down and its folder away when this value is dropped, and when the process that holds it is no more.
#[derive(Debug)]
pub struct Warden(Child);

impl Warden {
    /// Of the mesh that is declared in `folder` and is spoken to by the program `berth`, which may lie in that folder.
    ///
    /// # Panics
    /// Without a shell.
    pub fn of_mesh(berth: impl AsRef<OsStr>, folder: &Path) -> Self {
        let declaration = folder.join("mesh.toml");
        Self::new(&[berth.as_ref(), OsStr::new("--mesh"), declaration.as_os_str(), OsStr::new("down")], folder)
    }

    /// Of what this command line, run in `folder`, takes down.
    ///
    /// It waits for the end of its standard input, which this process alone holds open. It is in a process group of its own, because
    /// whoever ends a test that takes too long ends the test's group.
    ///
    /// # Panics
    /// Without a shell.
    pub fn new<Word: AsRef<OsStr>>(down: &[Word], folder: &Path) -> Self {
        let child = Command::new("sh")
            .args(["-c", r#"read -r _; folder=$1; shift; (cd "$folder" && "$@"); rm -rf "$folder""#, "warden"])
            .arg(folder)
            .args(down)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        Self(child.expect("cannot run a shell"))
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // Nobody can be told here that it failed.
        let _ = self.0.wait();
    }
}
