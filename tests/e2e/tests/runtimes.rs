//! Every kind of executable runs in a mesh: the examples, each behind the gateway, twice, restarted when killed.
//!
//! One test for each runtime. Where its interpreter or its compiler is missing, it says so and does nothing; `./berth test`
//! asks for the same programs and leaves it out, so that it counts as skipped.
#![allow(clippy::unwrap_used, reason = "in a test")]

use std::{path::PathBuf, time::Duration};

use e2e::{Answer, Caller, Mesh, example};
use nix::sys::signal::Signal;
use reqwest::{Method, StatusCode};
use sha2::{Digest, Sha256};
use testkit::eventually_within;

/// The instances of an example.
const INSTANCES: [&str; 2] = ["hello-1", "hello-2"];

#[tokio::test]
async fn native() {
    runs("native", &["cc"], "gcc libc6-dev").await;
}

#[tokio::test]
async fn java() {
    runs("java", &["java", "javac", "jar"], "default-jdk-headless").await;
}

#[tokio::test]
async fn python() {
    runs("python", &["python3"], "python3").await;
}

#[tokio::test]
async fn php() {
    runs("php", &["php"], "php-cli").await;
}

#[tokio::test]
async fn dotnet() {
    runs("dotnet", &["dotnet"], "dotnet-sdk-8.0, from Microsoft's package source").await;
}

/// The same example by the other implementation of .NET, which its declaration has to ask for.
#[tokio::test]
async fn mono() {
    if has_all("mono", &["mono", "mcs"], "mono-mcs") {
        let mesh = Mesh::example("dotnet", |declaration| {
            let hello = declaration.get_mut("services").and_then(|services| services.get_mut("hello")).unwrap();
            let command: Vec<toml::Value> = vec!["mono".into(), "${ARTIFACT}".into()];
            hello.as_table_mut().unwrap().insert("command".into(), command.into());
        });
        example::build(mesh.folder(), Some("mono"));
        serves("dotnet", &mesh).await;
    }
}

#[tokio::test]
async fn node() {
    runs("node", &["node"], "nodejs").await;
}

#[tokio::test]
async fn wine() {
    runs("wine", &["wine", "x86_64-w64-mingw32-gcc"], "wine wine64 gcc-mingw-w64-x86-64").await;
}

async fn runs(name: &str, programs: &[&str], packages: &str) {
    if has_all(name, programs, packages) {
        let mesh = Mesh::example(name, |_| {});
        example::build(mesh.folder(), None);
        serves(name, &mesh).await;
    }
}

fn has_all(name: &str, programs: &[&str], packages: &str) -> bool {
    let missing = example::missing(programs);
    if let Some(program) = missing {
        eprintln!("skipped: {name}: {program} is not installed (apt-get install {packages})");
    }
    missing.is_none()
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
        let answer = caller.get(path).await;
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
