//! Every kind of executable runs in containers: the examples, all of them in one mesh in a stranger's folder, each behind the gateway,
//! twice, limited, and started again when killed.
//!
//! What cannot run here, for want of a compiler or of the image it begins with, is left out and said by name.
#![allow(clippy::unwrap_used, reason = "in a test")]

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use compose::Stack;
use e2e::Caller;
use mesh::{Placement, plan::Executable};
use reqwest::StatusCode;
use testkit::eventually;

/// Compiled as tests are.
const PROFILE: &str = "dev";
/// Names examples that are to run besides: `BERTH_TEST_ALSO=wine`, whose image has to be installed into at first.
const ALSO: &str = "BERTH_TEST_ALSO";

/// A folder of `examples/`.
struct Example {
    name: &'static str,
    /// What builds it must be installed here.
    programs: &'static [&'static str],
    /// The argument of its `build.sh`.
    variant: Option<&'static str>,
    /// What is declared of it that its own declaration leaves to the runtime.
    more: &'static str,
}

/// .NET by Mono, whose compiler every Debian has.
const EXAMPLES: [Example; 7] = [
    Example { name: "native", programs: &["cc"], variant: None, more: "protocol = \"plain\"" },
    Example { name: "java", programs: &["javac", "jar"], variant: None, more: "" },
    Example { name: "python", programs: &[], variant: None, more: "files = \"python\"" },
    Example { name: "php", programs: &[], variant: None, more: "files = \"php\"" },
    Example { name: "node", programs: &[], variant: None, more: "files = \"node\"" },
    Example {
        name: "dotnet",
        programs: &["mcs"],
        variant: Some("mono"),
        more: "command = [\"mono\", \"${ARTIFACT}\"]\nbase = \"docker.io/library/mono:6.12-slim\"",
    },
    Example { name: "wine", programs: &["x86_64-w64-mingw32-gcc"], variant: None, more: "" },
];

#[tokio::test]
async fn every_kind_of_program_runs_in_containers() {
    let stack = Stack::of(declare_what_can_run).await;
    let examples: Vec<&str> =
        EXAMPLES.iter().map(|example| example.name).filter(|name| stack.plan().service(name).is_some()).collect();
    assert!(!examples.is_empty(), "nothing at all can run here");
    stack.build(PROFILE);
    stack.up().await;
    let (anonymous, alice) = stack.callers("alice").await;
    for name in examples {
        let path = format!("/{name}/hello");
        anonymous.get(&path).await.expect(401);
        is_limited(&stack, name);
        answers_twice(&stack, &alice, name, &path).await;
        let victim = stack.container(name);
        stack.kills_and_heals(&victim).await;
        answers_twice(&stack, &alice, name, &path).await;
    }
}

/// The kernel has the declared limits, and no swap on top.
fn is_limited(stack: &Stack, name: &str) {
    let declared = i64::try_from(stack.plan().service(name).unwrap().memory_bytes.get()).unwrap();
    for container in stack.containers_of(name) {
        assert_eq!(container.number("/HostConfig/Memory"), declared, "{name}");
        assert_eq!(container.text("/Config/User"), "65532:65532", "{name}");
        assert_eq!(container.value("/HostConfig/ReadonlyRootfs"), &true.into(), "{name}");
    }
}

/// Asks until both containers have answered, each by its host name: the beginning of its identity.
async fn answers_twice(stack: &Stack, caller: &Caller, name: &str, path: &str) {
    let containers = stack.containers_of(name);
    let expected: BTreeSet<&str> = containers.iter().filter_map(|container| container.id().get(..12)).collect();
    assert_eq!(expected.len(), 2, "{name}");
    let mut seen = BTreeSet::new();
    eventually(&format!("an answer of both containers of {name}"), async || {
        let answer = caller.get(path).await;
        if answer.status == StatusCode::OK {
            assert_eq!(answer.text("/credential").len(), 12, "{name}");
            seen.insert(answer.text("/instance").to_owned());
        }
        expected.iter().all(|id| seen.contains(*id)).then_some(())
    })
    .await;
}

/// Declares the examples that can run here as services of one mesh, each in a folder of its own.
fn declare_what_can_run(folder: &Path) {
    let also = env::var(ALSO).unwrap_or_default();
    let mut services = String::new();
    let mut names = Vec::new();
    for (number, example) in EXAMPLES.iter().enumerate() {
        if let Some(why) = hindrance(example, &also) {
            eprintln!("skipped: {}: {why}", example.name);
            continue;
        }
        copy_and_build(example, &folder.join(example.name));
        services.push_str(&declaration(example, 8200 + 10 * number));
        names.push(format!("\"{}\"", example.name));
    }
    let text = format!(
        r#"
[mesh]
name = "runtimes"

[sizes]
small = {{ cpus = 1, memory = "2GiB" }}

[nodes.edge]
size = "small"
runs = ["gateway", "identity", "identity-db"]

[nodes.app]
size = "small"
count = 2
runs = [{}]

[services.gateway]
port = 8080

[services.identity]
port = 8100
route = {{ prefix = "/identity", auth = "none" }}
database = "identity-db"
{services}
[secrets.greeting]
source = "generated"

[databases.identity-db]

[gateway]
port = 8443
"#,
        names.join(", ")
    );
    fs::write(folder.join("mesh.toml"), text).unwrap();
}

fn declaration(example: &Example, port: usize) -> String {
    let Example { name, more, .. } = example;
    let hello = own_declaration(name);
    let Executable::Artifact(artifact) = &hello.executable else { panic!("{name} has no artifact") };
    format!(
        r#"
[services.{name}]
runtime = "{name}"
artifact = "{name}/{}"
{more}
memory = "{}"
port = {port}
route = {{ prefix = "/{name}" }}
secrets = ["greeting"]
health = {{ path = "/readyz" }}
"#,
        artifact.path, hello.memory_bytes
    )
}

/// What the example itself declares of its service.
fn own_declaration(name: &str) -> mesh::plan::Service {
    let text = fs::read_to_string(folder_of(name).join("mesh.toml")).unwrap();
    let plan = mesh::resolve("mesh.toml", &text, &Placement::Containers).unwrap();
    plan.service("hello").unwrap().clone()
}

fn folder_of(name: &str) -> PathBuf {
    e2e::repository().join("examples").join(name)
}

/// Why an example cannot run here.
fn hindrance(example: &Example, also: &str) -> Option<String> {
    if example.name == "wine" && !also.split(',').any(|name| name == "wine") {
        return Some(format!("takes minutes; asked for by {ALSO}=wine"));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let is_missing = |program: &&&str| !env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if let Some(program) = example.programs.iter().find(is_missing) {
        return Some(format!("{program} is not installed"));
    }
    let Executable::Artifact(artifact) = own_declaration(example.name).executable else { return None };
    let base = example.more.split('"').find(|part| part.starts_with("docker.io/")).map_or(artifact.base, str::to_owned);
    (!compose::has_image(&base)).then(|| format!("there is no image {base} (pull it, or tests/compose/stand-ins.sh)"))
}

fn copy_and_build(example: &Example, folder: &Path) {
    fs::create_dir(folder).unwrap();
    for entry in fs::read_dir(folder_of(example.name)).unwrap() {
        let entry = entry.unwrap();
        // Folders are what somebody built or ran there.
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        }
    }
    let script = folder.join("build.sh");
    if script.is_file() {
        let built = Command::new(script).args(example.variant).output().unwrap();
        assert!(built.status.success(), "{}: {built:?}", example.name);
    }
}
