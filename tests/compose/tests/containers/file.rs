//! The committed compose file, read by every program that this machine has for it.

use std::process::Command;

/// Programs, and how each is asked to read the file and to do nothing.
const PROGRAMS: [(&[&str], &str); 3] = [
    (&["docker", "compose"], "config --quiet"),
    (&["docker-compose"], "config --quiet"),
    (&["podman-compose"], "config"),
];

#[test]
fn every_compose_program_takes_the_committed_file() {
    let asked = PROGRAMS.iter().filter(|(program, _)| is_there(program)).inspect(|(program, ask)| takes(program, ask));
    assert!(asked.count() > 0, "there is no compose program");
}

fn command(program: &[&str]) -> Command {
    let mut command = Command::new(program.first().unwrap());
    command.args(program.iter().skip(1)).current_dir(e2e::repository());
    command
}

/// Old ones of podman-compose cannot show how they read a file.
fn is_there(program: &[&str]) -> bool {
    let does = |args: &[&str]| command(program).args(args).output().is_ok_and(|output| output.status.success());
    does(&["version"]) && does(&["config", "--help"])
}

fn takes(program: &[&str], ask: &str) {
    let output = command(program).args(ask.split(' ')).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.to_lowercase().contains("warn"), "{program:?}: {said}");
}
