//! Somebody with a built program in an empty folder: `berth init`, `berth compose`, and the program answers in containers.
//!
//! A jar is tried each time; the others are to be asked for: `./berth test compose -E 'test(strangers)' --run-ignored all`.

use std::process::Command;

use compose::Stack;
use e2e::example::{self, Example};

use crate::{build, runtimes};

#[tokio::test]
async fn java() {
    settles_in(&example::JAVA, "").await;
}

#[tokio::test]
#[ignore = "asked for by name"]
async fn native() {
    settles_in(&example::NATIVE, "").await;
}

#[tokio::test]
#[ignore = "asked for by name"]
async fn python() {
    settles_in(&example::PYTHON, "").await;
}

#[tokio::test]
#[ignore = "asked for by name"]
async fn php() {
    settles_in(&example::PHP, "").await;
}

#[tokio::test]
#[ignore = "asked for by name"]
async fn node() {
    settles_in(&example::NODE, "").await;
}

#[tokio::test]
#[ignore = "asked for by name"]
async fn mono() {
    settles_in(&example::MONO, "base = \"docker.io/library/mono:6.12-slim\"\ncommand = [\"mono\", \"${ARTIFACT}\"]\n")
        .await;
}

#[tokio::test]
#[ignore = "asked for by name"]
async fn wine() {
    settles_in(&example::WINE, "").await;
}

/// `fields` are what the declaration of this program has to say besides.
async fn settles_in(example: &Example, fields: &str) {
    if !runtimes::can_run(example) {
        return;
    }
    let stack = Stack::of(|folder| {
        example.put(folder);
        let mut init = Command::new(e2e::program("berth"));
        let output = init.args(["init", "--name", example.name]).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        example::declare_rest(folder, fields);
    })
    .await;
    build(&stack);
    stack.up().await;
    let (anonymous, [alice]) = stack.callers(["alice"]).await;
    runtimes::works(&stack, &anonymous, &alice, example.name).await;
}
