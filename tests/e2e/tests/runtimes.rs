//! Every kind of executable runs in a mesh: the examples, each behind the gateway, twice, restarted when killed.
//!
//! One test for each runtime. Where its interpreter or its compiler is missing, it says so and does nothing; `./berth test`
//! asks for the same programs and leaves it out, so that it counts as skipped.
#![allow(clippy::unwrap_used, reason = "in a test")]

use std::{path::PathBuf, time::Duration};

use e2e::{
    Answer, Caller, Mesh,
    example::{self, Example},
};
use nix::sys::signal::Signal;
use reqwest::{Method, StatusCode};
use sha2::{Digest, Sha256};
use testkit::eventually_within;

/// The instances of an example.
const INSTANCES: [&str; 2] = ["hello-1", "hello-2"];

#[tokio::test]
async fn native() {
    runs(&example::NATIVE, |_| {}).await;
}

#[tokio::test]
async fn java() {
    runs(&example::JAVA, |_| {}).await;
}

#[tokio::test]
async fn python() {
    runs(&example::PYTHON, |_| {}).await;
}

#[tokio::test]
async fn php() {
    runs(&example::PHP, |_| {}).await;
}

#[tokio::test]
async fn dotnet() {
    runs(&example::DOTNET, |_| {}).await;
}

#[tokio::test]
async fn mono() {
    let by_mono = |declaration: &mut toml::Table| {
        let hello = declaration.get_mut("services").and_then(|services| services.get_mut("hello")).unwrap();
        let command: Vec<toml::Value> = vec!["mono".into(), "${ARTIFACT}".into()];
        hello.as_table_mut().unwrap().insert("command".into(), command.into());
    };
    runs(&example::MONO, by_mono).await;
}

#[tokio::test]
async fn node() {
    runs(&example::NODE, |_| {}).await;
}

#[tokio::test]
async fn wine() {
    runs(&example::WINE, |_| {}).await;
}

async fn runs(example: &Example, change: impl FnOnce(&mut toml::Table)) {
    if example.can_run() {
        let mesh = Mesh::example(example.name, change);
        example::build(mesh.folder(), example.variant);
        serves(example.name, &mesh).await;
    }
}

async fn serves(name: &str, mesh: &Mesh) {
    mesh.start();
    let path = format!("/{name}/hello");
    let alice = mesh.user("alice");
    mesh.anonymous().get(&path).await.expect(401);
    alice.get(&format!("/{name}/nothing")).await.expect(404);
    shows_who_it_is_and_no_secret(mesh, &alice, &path).await;
    comes_back_when_killed(mesh, &alice, &path).await;
    stops_when_asked_and_leaves_nothing(mesh);
}

async fn shows_who_it_is_and_no_secret(mesh: &Mesh, caller: &Caller, path: &str) {
    let secret = std::fs::read_to_string(mesh.folder().join(".berth/credentials/hello/greeting")).unwrap();
    let forged = caller.request(Method::GET, path).header("x-forwarded-for", "6.6.6.6");
    let answer = Answer::of(forged).await.expect(200);
    assert_eq!(answer.text("/caller"), "127.0.0.1");
    assert_eq!(answer.text("/credential"), sha256_prefix(&secret));
    assert!(!answer.body.to_string().contains(&secret));
}

/// The first six bytes of the digest.
fn sha256_prefix(text: &str) -> String {
    Sha256::digest(text).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Kills each in turn: the other one answers, and it comes back. So both have answered in the end.
async fn comes_back_when_killed(mesh: &Mesh, caller: &Caller, path: &str) {
    for [killed, other] in [INSTANCES, [INSTANCES[1], INSTANCES[0]]] {
        let old = mesh.signal(killed, Signal::SIGKILL);
        answered_by(other, caller, path).await;
        mesh.healed(killed, old).await;
    }
}

/// Asks until this instance has answered. The gateway learns only by its next health check that one is back, and prefers for
/// up to a minute the one that was faster: the first request to a JVM takes a hundred times as long as the next.
async fn answered_by(instance: &str, caller: &Caller, path: &str) {
    eventually_within(Duration::from_secs(120), &format!("an answer of {instance}"), async || {
        let answer = caller.try_get(path).await.ok()?;
        (answer.status == StatusCode::OK && answer.text("/instance") == instance).then_some(())
    })
    .await;
}

fn stops_when_asked_and_leaves_nothing(mesh: &Mesh) {
    mesh.expect(&["down"]);
    let log = std::fs::read_to_string(mesh.folder().join(".berth/logs/supervisor.log")).unwrap();
    // We have killed each once; a further time it was the supervisor, who had waited in vain.
    let killed = log.lines().filter(|line| line.contains("\"message\":\"ended by SIGKILL\"")).count();
    assert_eq!(killed, INSTANCES.len(), "{log}");
    assert_eq!(processes_of(mesh), Vec::<PathBuf>::new());
}

/// What has anything of the mesh's folder in its environment.
fn processes_of(mesh: &Mesh) -> Vec<PathBuf> {
    let folder = mesh.folder().to_str().unwrap();
    let of_mesh = |process: &PathBuf| {
        // A process of somebody else, or one that has just ended, cannot be read.
        let environment = std::fs::read(process.join("environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(folder)
    };
    std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path()).filter(of_mesh).collect()
}
