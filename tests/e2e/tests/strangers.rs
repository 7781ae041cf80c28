//! Somebody with a built program in a folder of its own: `berth init`, what the program needs besides, `berth up`, `berth compose`.
//!
//! Three kinds of programs are tried each time. The others are to be asked for, because each brings up a whole mesh, and what differs
//! between runtimes once they are declared is in `runtimes.rs`: `./berth test -E 'binary(strangers)' --run-ignored all`. What is not
//! installed here is left out and named.
#![allow(clippy::unwrap_used, reason = "in a test")]

use std::{fs, process::Command};

use e2e::{
    Mesh,
    example::{self, Example},
};
use nix::sys::signal::Signal;
use serde_yaml_ng::Value;

#[tokio::test]
async fn native() {
    settles_in(&example::NATIVE, "").await;
}

#[tokio::test]
async fn java() {
    settles_in(&example::JAVA, "").await;
}

#[tokio::test]
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
async fn dotnet() {
    settles_in(&example::DOTNET, "").await;
}

#[tokio::test]
#[ignore = "asked for by name"]
async fn mono() {
    settles_in(&example::MONO, "command = [\"mono\", \"${ARTIFACT}\"]\n").await;
}

#[tokio::test]
#[ignore = "asked for by name"]
async fn node() {
    settles_in(&example::NODE, "").await;
}

#[tokio::test]
#[ignore = "asked for by name"]
async fn wine() {
    settles_in(&example::WINE, "").await;
}

/// `fields` are what the declaration of this program has to say besides.
async fn settles_in(example: &Example, fields: &str) {
    if !example.can_run() {
        return;
    }
    let mesh = Mesh::undeclared();
    example.put(mesh.folder());
    mesh.expect(&["init", "--name", example.name]);
    example::declare_rest(mesh.folder(), fields);
    mesh.start();
    answers_and_heals(&mesh, example.name).await;
    becomes_containers(&mesh, example.name);
}

async fn answers_and_heals(mesh: &Mesh, name: &str) {
    let path = format!("/{name}/hello");
    let alice = mesh.user("alice");
    mesh.anonymous().get(&path).await.expect(401);
    alice.get(&path).await.expect(200);
    let killed = format!("{name}-1");
    let old = mesh.signal(&killed, Signal::SIGKILL);
    mesh.healed(&killed, old).await;
    alice.get(&path).await.expect(200);
}

/// All that `docker-compose up` needs is there, and any program for compose files that is installed takes it.
fn becomes_containers(mesh: &Mesh, name: &str) {
    mesh.expect(&["compose"]);
    let plan: serde_json::Value = serde_json::from_str(&mesh.expect(&["plan", "--json"])).unwrap();
    let services = plan.get("services").and_then(serde_json::Value::as_array).unwrap();
    let declared = services.iter().find(|service| service.get("name").is_some_and(|other| other == name)).unwrap();
    let compose: Value = serde_yaml_ng::from_str(&read(mesh, "docker-compose.yaml")).unwrap();
    let service = compose.get("services").and_then(|services| services.get(name)).unwrap();
    assert_eq!(service.get("mem_limit").and_then(Value::as_u64), declared.get("memory_bytes").unwrap().as_u64());
    assert_eq!(service.get("scale").and_then(Value::as_u64), Some(2));
    let dockerfile = service.get("build").and_then(|build| build.get("dockerfile")).and_then(Value::as_str).unwrap();
    assert!(read(mesh, dockerfile).contains("\nUSER 65532:65532\n"));
    assert!(read(mesh, ".dockerignore").lines().any(|line| line == "**/.berth"));
    for (program, first) in [("docker", &["compose"][..]), ("docker-compose", &[])] {
        let run =
            |arguments: &[&str]| Command::new(program).args(first).args(arguments).current_dir(mesh.folder()).output();
        if run(&["version"]).is_ok_and(|output| output.status.success()) {
            let taken = run(&["config", "--quiet"]).unwrap();
            assert!(taken.status.success(), "{program} {first:?}: {}", String::from_utf8_lossy(&taken.stderr));
        }
    }
}

fn read(mesh: &Mesh, path: &str) -> String {
    fs::read_to_string(mesh.folder().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
