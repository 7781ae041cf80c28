//! Every kind of executable in containers: the examples, all in one mesh in a stranger's folder, each behind the gateway, twice,
//! limited, and started again when killed.
//!
//! What cannot run here, for want of a program or of the image it begins with, is left out and named.

use std::{collections::BTreeSet, fs, path::Path};

use compose::Stack;
use e2e::{
    Answer, Caller,
    example::{self, Example},
};
use reqwest::{Method, StatusCode};
use testkit::eventually;

use crate::build;

/// The mesh, if all examples can run.
const DECLARATION: &str = include_str!("runtimes.toml");

/// .NET by Mono, which every Debian has.
const EXAMPLES: [Example; 7] =
    [example::NATIVE, example::JAVA, example::PYTHON, example::PHP, example::NODE, example::MONO, example::WINE];

#[tokio::test]
async fn every_kind_of_program_runs_in_containers() {
    let examples: Vec<&Example> = EXAMPLES.iter().filter(|example| can_run(example)).collect();
    assert!(!examples.is_empty(), "nothing can run here");
    let stack = Stack::of(|folder| declare(&examples, folder)).await;
    build(&stack);
    stack.up().await;
    let (anonymous, [alice]) = stack.callers(["alice"]).await;
    for Example { name, .. } in examples {
        works(&stack, &anonymous, &alice, name).await;
    }
}

/// With a token and not without, twice, limited, and again after a kill.
pub(crate) async fn works(stack: &Stack, anonymous: &Caller, alice: &Caller, name: &str) {
    let path = format!("/{name}/hello");
    anonymous.get(&path).await.expect(401);
    is_limited(stack, name);
    both_answer(stack, alice, name, &path).await;
    stack.kills_and_heals(&stack.container(name)).await;
    both_answer(stack, alice, name, &path).await;
}

/// As the engine tells the kernel.
fn is_limited(stack: &Stack, name: &str) {
    let service = stack.plan().service(name).unwrap();
    let declared = i64::try_from(service.memory_bytes.get()).unwrap();
    for container in stack.containers_of(name) {
        assert_eq!(container.number("/HostConfig/Memory"), declared, "{name}");
        assert_eq!(container.number("/HostConfig/MemorySwap"), declared, "{name}");
        assert_eq!(container.number("/HostConfig/NanoCpus"), i64::from(service.cpu_millis.get()) * 1_000_000, "{name}");
        assert_eq!(container.text("/Config/User"), "65532:65532", "{name}");
        assert_eq!(container.value("/HostConfig/ReadonlyRootfs"), &serde_json::Value::Bool(true), "{name}");
    }
}

/// Asks until both containers have answered, each by its host name: the beginning of its identity.
async fn both_answer(stack: &Stack, caller: &Caller, name: &str, path: &str) {
    let containers = stack.containers_of(name);
    let expected: BTreeSet<&str> = containers.iter().filter_map(|container| container.id().get(..12)).collect();
    assert_eq!(expected.len(), 2, "{name}");
    let mut seen = BTreeSet::new();
    eventually(&format!("an answer of both containers of {name}"), async || {
        let answer = Answer::of(caller.request(Method::GET, path)).await;
        if answer.status == StatusCode::OK {
            // Six bytes of a digest.
            assert_eq!(answer.text("/credential").len(), 12, "{name}");
            seen.insert(answer.text("/instance").to_owned());
        }
        expected.iter().all(|id| seen.contains(*id)).then_some(())
    })
    .await;
}

pub(crate) fn can_run(example: &Example) -> bool {
    let base = base(example.name);
    let has_image = compose::has_image(&base);
    if !has_image {
        eprintln!("skipped: {}: there is no image {base}", example.name);
    }
    example.can_run() && has_image
}

/// The image that the service's begins with.
fn base(name: &str) -> String {
    let plan = mesh::resolve("mesh.toml", DECLARATION, &mesh::Placement::Containers).unwrap();
    match &plan.service(name).unwrap().executable {
        mesh::plan::Executable::Artifact(artifact) => artifact.base.clone(),
        mesh::plan::Executable::Package(package) => panic!("{package} is a program of ours"),
    }
}

/// Each example in a folder of its own, and one declaration for all.
fn declare(examples: &[&Example], folder: &Path) {
    let mut declaration: toml::Table = DECLARATION.parse().unwrap();
    let runs_here = |name: &str| {
        EXAMPLES.iter().all(|known| known.name != name) || examples.iter().any(|example| example.name == name)
    };
    declaration["services"].as_table_mut().unwrap().retain(|name, _| runs_here(name));
    let app = declaration["nodes"]["app"]["runs"].as_array_mut().unwrap();
    app.retain(|name| runs_here(name.as_str().unwrap()));
    fs::write(folder.join("mesh.toml"), declaration.to_string()).unwrap();
    for Example { name, variant, .. } in examples {
        let folder = folder.join(name);
        example::copy(name, &folder);
        example::build(&folder, *variant);
    }
}
