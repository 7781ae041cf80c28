use std::{process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{ChildStdin, Command},
    time::timeout,
};

use super::{print, running};
use crate::{
    failure::Failure,
    project::Project,
    walkthrough::{self, Step},
};

/// For one step.
const PATIENCE: Duration = Duration::from_secs(90);

/// Runs the tour in a shell, as somebody who pastes it would, and shows each command with its answer.
pub(super) async fn run(project: &Project, in_containers: bool) -> Result<(), Failure> {
    let (project, plan) = running(project, in_containers).await?;
    let steps = walkthrough::steps(&project, &plan).ok_or_else(|| {
        Failure::mendable(
            "this mesh is not the shop: there is no tour of it",
            "the tour needs the routes /items and /documents",
        )
    })?;
    let mut shell = Command::new("sh")
        .current_dir(project.root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Failure::io("cannot start a shell", error))?;
    let (Some(mut input), Some(output)) = (shell.stdin.take(), shell.stdout.take()) else {
        return Err(Failure::other("the shell has no input and output"));
    };
    let mut output = BufReader::new(output);
    let mut last = String::new();
    for step in &steps {
        print(&format!("\n# {}", step.title))?;
        step.commands.lines().try_for_each(|line| print(&format!("$ {line}")))?;
        let answer = timeout(PATIENCE, answer(&mut input, &mut output, step));
        let answer = answer.await.map_err(|_| Failure::other(format!("no answer within {PATIENCE:?}")))?;
        last = answer.map_err(|error| Failure::io("the shell ended", error))?;
    }
    if last.contains(walkthrough::CONFIRMED) {
        return print("\nThe order is confirmed.");
    }
    Err(Failure::mendable("the order was not confirmed", "see `berth status` and `berth logs`"))
}

/// Has the shell do one step, prints what it writes, and returns that.
async fn answer(
    input: &mut ChildStdin,
    output: &mut (impl AsyncBufReadExt + Unpin),
    step: &Step,
) -> std::io::Result<String> {
    // A line that no answer has tells where this one ends.
    let mark = uuid::Uuid::new_v4().to_string();
    input.write_all(format!("{}\nprintf '\\n%s\\n' {mark}\n", step.commands).as_bytes()).await?;
    input.flush().await?;
    let mut answer = String::new();
    loop {
        let mut line = String::new();
        if output.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line.trim_end() == mark {
            return Ok(answer);
        }
        if !line.trim().is_empty() {
            print(line.trim_end()).map_err(std::io::Error::other)?;
        }
        answer.push_str(&line);
    }
}
