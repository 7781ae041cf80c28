//! The mesh as containers: `docker-compose.yaml`, written from the plan.
//!
//! Every service, database and the event bus is a compose service of its name; copies come from `--scale`. A one-shot makes the secrets
//! on the first start, each into a volume that only its owner mounts; another, in a profile of its own, runs what an operator calls for.
//! Networks say who may meet whom: the gateway's edge, the services among themselves, each database with its owner, the event bus with
//! who uses it. Nothing but the gateway is published.
//!
//! The images of Berth's own programs are built from its source, which `BERTH_SOURCE` names (`.env` beside the file, or the folder
//! itself); those of artifacts from the folder and a Dockerfile of their runtime. So the file says nothing of the machine it was written on.
//!
//! [`mod@format`] is the vocabulary of the file, [`beside`] what has to lie next to it.

pub mod beside;
mod format;

use std::collections::{BTreeMap, BTreeSet};

use mesh::{
    Port, Template,
    plan::{Artifact, Database, Events, Executable, Health, Plan, Protocol, Service},
};

use self::format::{Build, Condition, Container, Entries, File, HealthCheck, Network, Volume};
use crate::{
    contained::{ACCOUNT, PROBE, TOOLS},
    failure::Failure,
    operator::NAMED,
};

const CREDENTIALS: &str = "/run/credentials";
const STATE: &str = "/var/lib/berth";
const PLAN_FOLDER: &str = "/run/berth";
/// Where the one-shot has the declaration and, in volumes, all that it makes.
const WORKSHOP: &str = "/mesh";
/// The one-shot.
const INIT: &str = "init";
/// What an operator's commands run in, when they are called.
pub const OPERATOR: &str = "operator";
/// The program of every image of ours.
const PROGRAM: &str = "/usr/bin/service";
/// Stands for the folder of the declaration in the image of an artifact.
const APP: &str = "/app";
/// Where a container has the probe, if its program knows nothing of the mesh.
const TOOLS_FOLDER: &str = "/run/tools";
/// Where Berth's own images are built from: the folder itself, if nothing else is said.
const SOURCE: &str = "${BERTH_SOURCE:-.}";
/// Of Berth's own images.
const VERSION: &str = env!("CARGO_PKG_VERSION");
const EDGE: &str = "edge";
const SERVICES: &str = "services";
/// What a program may keep in `/tmp`, which is memory.
const TMP: &str = "/tmp:size=16m,mode=1777";
/// The same for artifacts: virtual machines unpack libraries there and load them.
const TMP_OF_ARTIFACTS: &str = "/tmp:size=64m,mode=1777,exec";

const HEAD: &str = "\
# The mesh as containers. Written by `berth compose` from the declaration; changes are lost.
#
#   docker-compose up -d --build                        start it (with BERTH_DEMO_USERS=yes in front: with the demo users)
#   docker-compose up -d --scale SERVICE=3              more or fewer copies
#   docker-compose run --rm -T init contained show ca   the certificate clients trust
";

/// The text of the compose file. `declaration` is the file name of the declaration, beside which it is to stand.
///
/// # Errors
/// A command line names a variable that nothing sets.
pub fn file(plan: &Plan, declaration: &str) -> Result<String, Failure> {
    let mut services = vec![(INIT.to_owned(), init(plan, declaration)), (OPERATOR.to_owned(), operator(declaration))];
    services.extend(plan.databases.iter().map(|database| (database.name.to_string(), postgres(database))));
    services.extend(plan.events.iter().map(|events| (events.server.to_string(), event_bus(events))));
    for declared in &plan.services {
        services.push((declared.name.to_string(), service(plan, declared)?));
    }
    let file = File { services: Entries(services), networks: networks(plan), volumes: volumes(plan) };
    let text = serde_yaml_ng::to_string(&file).map_err(Failure::other)?;
    Ok(format!("{HEAD}{text}"))
}

/// What all containers have in common: no privilege, nothing to write to, nobody's account but ours.
fn container((image, build): (String, Build)) -> Container {
    Container {
        image,
        build,
        user: format!("{ACCOUNT}:{ACCOUNT}"),
        read_only: true,
        cap_drop: vec!["ALL"],
        security_opt: vec!["no-new-privileges:true"],
        pids_limit: 512,
        restart: Some("unless-stopped"),
        tmpfs: vec![TMP],
        ..Container::default()
    }
    .sized(128 << 20, 1000)
}

impl Container {
    /// With so much memory at most, in bytes, none of it swapped, and so many thousandths of a core.
    fn sized(self, memory: u64, cpu_millis: u32) -> Self {
        Self { mem_limit: memory, memswap_limit: memory, cpus: f64::from(cpu_millis) / 1000.0, ..self }
    }
}

/// An image of ours around one program of the workspace: the same for every mesh, in a registry of one's own if `BERTH_IMAGES` names one.
fn own(target: &'static str, program: &str) -> (String, Build) {
    let name = if matches!(target, "service" | "cli") { program } else { target };
    let build = Build {
        context: SOURCE,
        dockerfile: "docker/Dockerfile".to_owned(),
        target: Some(target),
        args: BTreeMap::from([
            ("PROGRAM", program.to_owned()),
            ("REVISION", "${BERTH_REVISION:-unknown}".to_owned()),
            ("VERSION", VERSION.to_owned()),
        ]),
    };
    (format!("${{BERTH_IMAGES:-berth}}/{name}:{VERSION}"), build)
}

/// Makes the secrets. It alone mounts all volumes; it has no network and ends at once.
fn init(plan: &Plan, declaration: &str) -> Container {
    let base = format!("{WORKSHOP}/.berth");
    let mut volumes = vec![
        format!("./{declaration}:{WORKSHOP}/mesh.toml:ro"),
        format!("authority:{base}"),
        format!("plan:{base}/run"),
    ];
    volumes.extend(owners(plan).map(|owner| format!("{}:{base}/credentials/{owner}", credentials_volume(&owner))));
    volumes.extend(has_probe(plan).then(|| format!("{TOOLS}:{base}/{TOOLS}")));
    Container {
        command: vec!["contained".into(), "init".into()],
        working_dir: Some(WORKSHOP),
        user: "0".to_owned(),
        // To give each folder to the containers' account, and to come back to it.
        cap_add: vec!["CHOWN", "DAC_OVERRIDE", "FOWNER"],
        network_mode: Some("none"),
        restart: None,
        environment: BTreeMap::from([("BERTH_DEMO_USERS".to_owned(), "${BERTH_DEMO_USERS:-no}".to_owned())]),
        volumes,
        ..container(own("cli", "berth"))
    }
}

/// Speaks to the services as their operator, in whose name only the mesh's authority lets it. Nothing starts it but a command.
fn operator(declaration: &str) -> Container {
    let base = format!("{WORKSHOP}/.berth");
    Container {
        profiles: vec![OPERATOR],
        command: vec!["outbox".into(), "status".into()],
        working_dir: Some(WORKSHOP),
        user: "0".to_owned(),
        // To read the plan, which is the containers' account's.
        cap_add: vec!["DAC_OVERRIDE"],
        networks: vec![SERVICES.to_owned()],
        restart: None,
        environment: BTreeMap::from([
            ("BERTH_PLAN".to_owned(), format!("{base}/run/plan.json")),
            (NAMED.to_owned(), OPERATOR.to_owned()),
        ]),
        volumes: vec![
            format!("./{declaration}:{WORKSHOP}/mesh.toml:ro"),
            format!("authority:{base}"),
            format!("plan:{base}/run:ro"),
        ],
        ..container(own("cli", "berth"))
    }
}

/// Whether any program has to be asked from outside whether it serves.
fn has_probe(plan: &Plan) -> bool {
    plan.services.iter().any(|service| service.protocol == Protocol::Plain)
}

fn postgres(database: &Database) -> Container {
    let name = database.name.as_str();
    let base = container(own("database", "berth")).sized(database.memory_bytes.get(), database.cpu_millis.get());
    Container {
        shm_size: Some("128m"),
        // Its way to say: end at once, but in order.
        stop_signal: Some("SIGINT"),
        networks: vec![name.to_owned()],
        ..server(name, base)
    }
}

fn event_bus(events: &Events) -> Container {
    let name = events.server.as_str();
    let base = container(own("events", "berth")).sized(events.memory_bytes.get(), events.cpu_millis.get());
    Container { networks: vec![name.to_owned()], ..server(name, base) }
}

/// A database or the event bus: it alone keeps data.
fn server(name: &str, base: Container) -> Container {
    let word = |word: &str| vec!["contained".to_owned(), word.to_owned(), name.to_owned()];
    Container {
        command: word("serve"),
        environment: runner_environment(STATE, true),
        volumes: vec![
            format!("{}:{CREDENTIALS}:ro", credentials_volume(name)),
            format!("plan:{PLAN_FOLDER}:ro"),
            format!("{}:{STATE}", data_volume(name)),
        ],
        stop_grace_period: Some("30s".to_owned()),
        healthcheck: Some(health_check(&[&[PROGRAM.to_owned()], word("probe").as_slice()].concat())),
        depends_on: after_init([]),
        ..base
    }
}

fn service(plan: &Plan, service: &Service) -> Result<Container, Failure> {
    let name = service.name.as_str();
    let is_gateway = service.name == plan.gateway.service;
    let Some(instance) = service.instances.first() else {
        return Err(Failure::other(format!("{name} has no instance")));
    };
    let (base, program, state) = match &service.executable {
        Executable::Package(program) => (container(own("service", program)), PROGRAM.to_owned(), "/tmp"),
        Executable::Artifact(artifact) => (foreign(plan, service, artifact), format!("{APP}/{}", artifact.path), STATE),
    };
    let lookup = |variable: &str| match variable {
        "ARTIFACT" => Some(program.clone()),
        "CREDENTIALS_DIRECTORY" => Some(CREDENTIALS.to_owned()),
        "STATE_DIRECTORY" => Some(state.to_owned()),
        _ => None,
    };
    let line = service.command_line(instance, lookup).map_err(|error| Failure::other(format!("{name}: {error}")))?;
    let mut environment = runner_environment(state, is_gateway);
    environment.extend(instance.environment.clone());
    // All copies have one environment: each is named after its container.
    environment.remove("BERTH_INSTANCE");
    let mut volumes = vec![format!("{}:{CREDENTIALS}:ro", credentials_volume(name))];
    volumes.extend(is_gateway.then(|| format!("plan:{PLAN_FOLDER}:ro")));
    let is_plain = service.protocol == Protocol::Plain;
    volumes.extend(is_plain.then(|| format!("{TOOLS}:{TOOLS_FOLDER}:ro")));
    let mut healthcheck = health_check(&[PROGRAM.to_owned(), "healthcheck".to_owned()]);
    if is_plain {
        healthcheck = foreign_health_check(&service.health, instance.port);
    }
    Ok(Container {
        entrypoint: line.iter().map(|word| literal(word)).collect(),
        scale: (!is_gateway).then(|| service.replicas.start()),
        stop_grace_period: Some(format!("{}s", service.stop_timeout_ms.duration().as_millis().div_ceil(1000))),
        environment: environment.into_iter().map(|(name, value)| (name, literal(&value))).collect(),
        volumes: [volumes.as_slice(), &base.volumes].concat(),
        ports: if is_gateway { vec![format!("{0}:{0}", plan.gateway.public_port)] } else { Vec::new() },
        networks: networks_of(plan, service),
        healthcheck: Some(healthcheck),
        depends_on: after_init(service.after.iter().map(ToString::to_string)),
        ..base.sized(service.memory_bytes.get(), service.cpu_millis.get())
    })
}

/// A container around an artifact, with a folder of its own for each copy to keep its state in.
fn foreign(plan: &Plan, service: &Service, artifact: &Artifact) -> Container {
    let build = Build {
        context: ".",
        dockerfile: beside::dockerfile(Template::of(service.runtime)),
        target: None,
        args: BTreeMap::from([
            ("BASE", literal(&artifact.base)),
            ("FILES", literal(&artifact.files)),
            ("NAME", service.name.to_string()),
        ]),
    };
    Container {
        // As the first process, a program without a handler of its own would not be ended by SIGTERM.
        init: true,
        volumes: vec![STATE.to_owned()],
        tmpfs: vec![TMP_OF_ARTIFACTS],
        ..container((format!("{}/{}", plan.name, service.name), build))
    }
}

/// By the probe, which needs nothing of the container it runs in.
fn foreign_health_check(health: &Health, port: Port) -> HealthCheck {
    let address = format!("127.0.0.1:{port}");
    let path = health.path.iter().map(ToString::to_string);
    health_check(&[format!("{TOOLS_FOLDER}/{PROBE}"), address].into_iter().chain(path).collect::<Vec<_>>())
}

/// A text in which nothing stands for a variable.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

fn runner_environment(state: &str, with_plan: bool) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::from([
        ("CREDENTIALS_DIRECTORY".to_owned(), CREDENTIALS.to_owned()),
        ("STATE_DIRECTORY".to_owned(), state.to_owned()),
    ]);
    if with_plan {
        environment.insert("BERTH_PLAN".to_owned(), format!("{PLAN_FOLDER}/plan.json"));
    }
    environment
}

fn health_check(command: &[String]) -> HealthCheck {
    HealthCheck {
        test: [&["CMD".to_owned()], command].concat(),
        interval: "3s",
        timeout: "6s",
        retries: 5,
        start_period: "60s",
    }
}

/// The one-shot has made the secrets, and the others serve.
fn after_init(others: impl IntoIterator<Item = String>) -> BTreeMap<String, Condition> {
    let init = (INIT.to_owned(), "service_completed_successfully");
    let others = others.into_iter().map(|name| (name, "service_healthy"));
    [init].into_iter().chain(others).map(|(name, condition)| (name, Condition { condition })).collect()
}

/// Who has credentials.
fn owners(plan: &Plan) -> impl Iterator<Item = String> {
    let databases = plan.databases.iter().map(|database| database.name.to_string());
    let events = plan.events.iter().map(|events| events.server.to_string());
    databases.chain(events).chain(plan.services.iter().map(|service| service.name.to_string()))
}

fn credentials_volume(owner: &str) -> String {
    format!("credentials-{owner}")
}

fn data_volume(server: &str) -> String {
    format!("data-{server}")
}

fn networks_of(plan: &Plan, service: &Service) -> Vec<String> {
    let is_gateway = service.name == plan.gateway.service;
    let uses_events = !service.emits.is_empty() || !service.consumes.is_empty();
    let events = plan.events.iter().filter(|_| uses_events).map(|events| events.server.to_string());
    let edge = is_gateway.then(|| EDGE.to_owned());
    let database = service.database.iter().map(ToString::to_string);
    edge.into_iter().chain([SERVICES.to_owned()]).chain(database).chain(events).collect()
}

fn networks(plan: &Plan) -> Entries<Network> {
    let databases = plan.databases.iter().map(|database| database.name.to_string());
    let events = plan.events.iter().map(|events| events.server.to_string());
    let closed: BTreeSet<String> = databases.chain(events).chain([SERVICES.to_owned()]).collect();
    let closed = closed.into_iter().map(|name| (name, Network { internal: true }));
    Entries([(EDGE.to_owned(), Network { internal: false })].into_iter().chain(closed).collect())
}

fn volumes(plan: &Plan) -> Entries<Volume> {
    let databases = plan.databases.iter().map(|database| data_volume(&database.name));
    let events = plan.events.iter().map(|events| data_volume(&events.server));
    let credentials = owners(plan).map(|owner| credentials_volume(&owner));
    let names = ["authority", "plan"].into_iter().chain(has_probe(plan).then_some(TOOLS)).map(str::to_owned);
    Entries(names.chain(databases).chain(events).chain(credentials).map(|name| (name, Volume {})).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::{env, fs, path::PathBuf};

    use mesh::Placement;

    use super::*;

    fn repository() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    fn read(path: &str) -> String {
        fs::read_to_string(repository().join(path)).unwrap()
    }

    #[test]
    fn the_committed_compose_file_is_what_the_declaration_says() {
        let plan = mesh::resolve("mesh.toml", &read("mesh.toml"), &Placement::Containers).unwrap();
        let text = file(&plan, "mesh.toml").unwrap();
        if env::var_os("BERTH_BLESS").is_some() {
            fs::write(repository().join("docker-compose.yaml"), &text).unwrap();
        }
        assert!(read("docker-compose.yaml") == text, "run `berth compose` and commit the result");
    }

    #[test]
    fn a_foreign_program_is_sized_probed_and_left_its_dollars() {
        let declared = read("examples/java/mesh.toml").replace(
            "health = { path = \"/readyz\" }",
            "health = { path = \"/readyz\" }\nargs = [\"--port=${PORT}\", \"$$HOME\", \"${STATE_DIRECTORY}\"]",
        );
        let plan = mesh::resolve("mesh.toml", &declared, &Placement::Containers).unwrap();
        let text = file(&plan, "mesh.toml").unwrap();
        let hello = text.split("\n  hello:\n").nth(1).unwrap().split("\n  gateway:\n").next().unwrap();
        insta::assert_snapshot!(hello);
    }
}
