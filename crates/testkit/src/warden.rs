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
    /// It waits for the end of its standard input, which this process alone holds open. It is in a process group of its own, because
    /// whoever ends a test that takes too long ends the test's group.
    ///
    /// # Panics
    /// Without a shell.
    pub fn of_mesh(berth: impl AsRef<OsStr>, folder: &Path) -> Self {
        let child = Command::new("sh")
            .args(["-c", r#"read -r _; "$1" --mesh "$2/mesh.toml" down; rm -rf "$2""#, "warden"])
            .arg(berth)
            .arg(folder)
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
