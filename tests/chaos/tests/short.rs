//! A short run with a fixed seed and every fault; `./berth chaos` has the long ones.
#![allow(clippy::unwrap_used, reason = "in a test")]

use std::process::Command;

#[test]
fn nothing_is_lost_in_a_minute_of_everything_at_once() {
    let output = Command::new(env!("CARGO_BIN_EXE_chaos")).args(["--seed", "1", "--seconds", "60"]).output().unwrap();
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}\n{errors}");
}
