//! Speaking to a mesh that runs in containers, through the compose program of this machine.

use std::{env, ffi::OsString, path::Path, process::Stdio};

use mesh::{Placement, Plan};
use tokio::process::Command;

use crate::{compose::OPERATOR, failure::Failure, operator, project::Project, secrets::files};

/// Programs that read `docker-compose.yaml`, as command lines; the first that runs is taken.
const PROGRAMS: [&str; 3] = ["docker compose", "docker-compose", "podman-compose"];
/// The variable that names another, where a machine has several.
const CHOSEN: &str = "BERTH_COMPOSE";

/// Brings what a client needs (the certificate, the demo users) out of the containers' volumes.
///
/// # Errors
/// No compose program is there, or the mesh was never started.
pub async fn access(project: &Project) -> Result<(Project, Plan), Failure> {
    let plan = project.resolve(&Placement::Containers)?;
    let outside = project.in_containers();
    outside.create_folders().map_err(|error| Failure::io("cannot make the folder .berth/compose", error))?;
    let program = program().await?;
    let (ca, users) =
        tokio::try_join!(shown(&program, project.root(), "ca"), shown(&program, project.root(), "users"))?;
    files::replace(&outside.ca(), ca.as_bytes())?;
    files::replace(&outside.users(), users.as_bytes())?;
    Ok((outside, plan))
}

/// Runs an operator's command, the words of this one's command line, in a container beside the services: the mesh's authority does not
/// leave its volume.
///
/// # Errors
/// No compose program is there, or the command failed.
pub async fn operate(project: &Project, words: impl Iterator<Item = OsString>) -> Result<(), Failure> {
    let program = program().await?;
    let mut command = command(&program);
    let named = format!("{}={}", operator::NAMED, operator::who());
    command.args(["run", "--rm", "-T", "-e", &named, OPERATOR]).args(of_any_mesh(words));
    command.current_dir(project.root()).stdin(Stdio::null()).stderr(Stdio::piped());
    let failure = |error| Failure::io(format!("cannot run {}", program.join(" ")), error);
    let output = command.spawn().map_err(failure)?.wait_with_output().await.map_err(failure)?;
    if output.status.success() {
        return Ok(());
    }
    let code = output.status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Err(Failure::Told { words: said(&output.stderr), code })
}

/// What a compose program complained of: where it is one of Python's and broke off, the error without the way that led to it.
fn said(complaint: &[u8]) -> String {
    let complaint = String::from_utf8_lossy(complaint);
    let broke_off = complaint.contains("Traceback (most recent call last)");
    match complaint.lines().last().filter(|_| broke_off) {
        Some(error) => format!("{error}\n"),
        None => complaint.into_owned(),
    }
}

/// Without those that say of which mesh, and where it runs.
fn of_any_mesh(mut words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--compose") => {}
            Some("--mesh") => drop(words.next()),
            Some(word) if word.starts_with("--mesh=") => {}
            _ => kept.push(word),
        }
    }
    kept
}

/// The compose program, as the words of its command line: what `BERTH_COMPOSE` says, else the first that this machine has.
///
/// # Errors
/// It has none.
pub async fn program() -> Result<Vec<String>, Failure> {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    if let Some(line) = env::var(CHOSEN).ok().map(|line| words(&line)).filter(|line| !line.is_empty()) {
        return Ok(line);
    }
    for line in PROGRAMS.map(words) {
        let version = command(&line).arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status().await;
        if version.is_ok_and(|status| status.success()) {
            return Ok(line);
        }
    }
    Err(Failure::mendable(
        "there is no compose program on this machine",
        "install docker-compose, the compose plugin of docker, or podman-compose",
    ))
}

/// The one-shot of the compose file has all volumes, so it can show what lies in them.
async fn shown(program: &[String], folder: &Path, what: &str) -> Result<String, Failure> {
    let mut command = command(program);
    command.args(["run", "--rm", "-T", "init", "contained", "show", what]);
    let output = command.current_dir(folder).stdin(Stdio::null()).output().await;
    let output = output.map_err(|error| Failure::io(format!("cannot run {}", program.join(" ")), error))?;
    if !output.status.success() {
        return Err(Failure::mendable(
            format!("the containers do not show the {what}: {}", said(&output.stderr).trim()),
            "start them: BERTH_DEMO_USERS=yes docker-compose up -d",
        ));
    }
    String::from_utf8(output.stdout).map_err(Failure::other)
}

fn command(line: &[String]) -> Command {
    let mut words = line.iter();
    let mut command = Command::new(words.next().map_or("docker", String::as_str));
    command.args(words).kill_on_drop(true);
    command
}

#[cfg(test)]
mod tests {
    use super::said;

    #[test]
    fn a_traceback_is_told_by_its_last_line_and_anything_else_as_it_is() {
        let traceback =
            "Traceback (most recent call last):\n  File \"a.py\", line 1, in <module>\nOSError: no engine\n";
        assert_eq!(said(traceback.as_bytes()), "OSError: no engine\n");
        for other in ["", "berth: no such saga\n  list them: berth sagas list\n"] {
            assert_eq!(said(other.as_bytes()), other);
        }
    }
}
