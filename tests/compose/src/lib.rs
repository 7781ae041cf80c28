//! A mesh in containers, on a real engine: how a test, or the command that measures, brings it up and looks at it.
//!
//! Everything goes through what a user has: the compose program, the engine's command line and the gateway. What is tested stands in
//! `tests/`, what is measured in `examples/figures.rs`. Where the public images that all is built upon cannot be pulled,
//! `stand-ins.sh` makes others; this crate does not know the difference.
#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot have its containers is to fail at once, loudly"
)]

mod container;
mod measure;
mod stack;

pub use container::Container;
pub use stack::Stack;

use std::process::Command;

/// Whether the engine has this image.
pub fn has_image(name: &str) -> bool {
    let output = Command::new("docker").args(["image", "inspect", name]).output();
    output.is_ok_and(|output| output.status.success())
}

/// Runs a command, which must succeed, and returns what it printed.
fn output_of(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{printed}\n{said}", output.status);
    printed
}
