//! The mesh as containers: `docker-compose.yaml`, written from the plan.
//!
//! Every service, database and the event bus is a compose service of its name; copies come from `--scale`. A one-shot makes the secrets
//! on the first start, each into a volume that only its owner mounts. Networks say who may meet whom: the gateway's edge, the
//! services among themselves, each database with its owner, the event bus with who uses it. Nothing but the gateway is published.
//!
//! The file keeps to what docker-compose 1.29, `docker compose` 2 and podman-compose have in common.

use std::collections::{BTreeMap, BTreeSet};

use mesh::plan::{Database, Events, Executable, Plan, Protocol, Runtime, Service};
use serde::{Serialize, Serializer};

use crate::{contained::ACCOUNT, failure::Failure};

const CREDENTIALS: &str = "/run/credentials";
const STATE: &str = "/var/lib/berth";
const PLAN_FOLDER: &str = "/run/berth";
/// Where the one-shot has the declaration and, in volumes, all that it makes.
const WORKSHOP: &str = "/mesh";
/// The one-shot.
const INIT: &str = "init";
/// The program of every image of ours.
const PROGRAM: &str = "/usr/bin/service";
const EDGE: &str = "edge";
const SERVICES: &str = "services";
/// Bytes a program may keep in `/tmp`, which is memory.
const TMP: &str = "/tmp:size=16m,mode=1777";

const HEAD: &str = "\
# The mesh as containers. Written by `berth compose` from the declaration; changes are lost.
#
#   docker-compose up -d --build                      start it (with BERTH_DEMO_USERS=yes in front: with the demo users)
#   docker-compose up -d --scale SERVICE=3            more or fewer copies
#   docker-compose run --rm -T init contained show ca the certificate clients trust
";

/// The text of the compose file. `declaration` is the file name of the declaration, beside which it is to stand.
///
/// # Errors
/// A command line names a variable that nothing sets.
pub fn file(plan: &Plan, declaration: &str) -> Result<String, Failure> {
    let mut services = vec![(INIT.to_owned(), init(plan, declaration))];
    services.extend(plan.databases.iter().map(|database| (database.name.to_string(), postgres(plan, database))));
    services.extend(plan.events.iter().map(|events| (events.server.to_string(), event_bus(plan, events))));
    for declared in &plan.services {
        services.push((declared.name.to_string(), service(plan, declared)?));
    }
    let file = File { services: Entries(services), networks: networks(plan), volumes: volumes(plan) };
    let text = serde_yaml_ng::to_string(&file).map_err(Failure::other)?;
    Ok(format!("{HEAD}{text}"))
}

#[derive(Serialize)]
struct File {
    services: Entries<Container>,
    networks: Entries<Network>,
    volumes: Entries<Volume>,
}

/// A map in an order of its own.
struct Entries<T>(Vec<(String, T)>);

impl<T: Serialize> Serialize for Entries<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// One compose service; absent fields are left out of the file.
#[derive(Serialize, Default)]
struct Container {
    image: String,
    build: Build,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    entrypoint: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    command: Vec<String>,
    user: String,
    read_only: bool,
    cap_drop: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cap_add: Vec<&'static str>,
    security_opt: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network_mode: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scale: Option<u16>,
    mem_limit: u64,
    cpus: f64,
    pids_limit: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    shm_size: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restart: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_signal: Option<&'static str>,
    // docker-compose 1.29 passes on whole seconds alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_grace_period: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", serialize_with = "assignments")]
    environment: BTreeMap<String, String>,
    volumes: Vec<String>,
    tmpfs: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    networks: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthcheck: Option<HealthCheck>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    depends_on: BTreeMap<String, Condition>,
    logging: Logging,
}

/// As `NAME=value`: as a map, a reader of YAML 1.1 would take the value `on` for a truth value.
fn assignments<S: Serializer>(environment: &BTreeMap<String, String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(environment.iter().map(|(name, value)| format!("{name}={value}")))
}

#[derive(Serialize, Default)]
struct Build {
    context: &'static str,
    dockerfile: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'static str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    args: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct HealthCheck {
    test: Vec<String>,
    interval: &'static str,
    timeout: &'static str,
    retries: u8,
    start_period: &'static str,
}

#[derive(Serialize)]
struct Condition {
    condition: &'static str,
}

/// A container's log is bounded.
#[derive(Serialize)]
struct Logging {
    driver: &'static str,
    options: BTreeMap<&'static str, &'static str>,
}

impl Default for Logging {
    fn default() -> Self {
        Self { driver: "json-file", options: BTreeMap::from([("max-file", "4"), ("max-size", "8m")]) }
    }
}

#[derive(Serialize)]
struct Network {
    internal: bool,
}

#[derive(Serialize)]
struct Volume {}

/// What all containers have in common: no privilege, nothing to write to, nobody's account but ours.
fn container(plan: &Plan, image: &str, build: Build) -> Container {
    Container {
        image: format!("{}/{image}", plan.name),
        build,
        user: format!("{ACCOUNT}:{ACCOUNT}"),
        read_only: true,
        cap_drop: vec!["ALL"],
        security_opt: vec!["no-new-privileges:true"],
        mem_limit: 128 << 20,
        cpus: 1.0,
        pids_limit: 512,
        restart: Some("unless-stopped"),
        tmpfs: vec![TMP],
        ..Container::default()
    }
}

/// An image of ours around one program of the workspace.
fn own(target: &'static str, program: &str) -> Build {
    Build {
        context: ".",
        dockerfile: "docker/Dockerfile".to_owned(),
        target: Some(target),
        args: BTreeMap::from([("PROGRAM", program.to_owned())]),
    }
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
    Container {
        command: vec!["--mesh".into(), WORKSHOP.into(), "contained".into(), "init".into()],
        user: "0".to_owned(),
        // To give each folder to the containers' account, and to come back to it.
        cap_add: vec!["CHOWN", "DAC_OVERRIDE", "FOWNER"],
        network_mode: Some("none"),
        restart: None,
        environment: BTreeMap::from([("BERTH_DEMO_USERS".to_owned(), "${BERTH_DEMO_USERS:-no}".to_owned())]),
        volumes,
        ..container(plan, "berth", own("program", "berth"))
    }
}

fn postgres(plan: &Plan, database: &Database) -> Container {
    let name = database.name.as_str();
    Container {
        mem_limit: database.memory_bytes.get(),
        cpus: f64::from(database.cpu_millis.get()) / 1000.0,
        shm_size: Some("128m"),
        // Its way to say: end at once, but in order.
        stop_signal: Some("SIGINT"),
        networks: vec![name.to_owned()],
        ..server(name, container(plan, "database", own("database", "berth")))
    }
}

fn event_bus(plan: &Plan, events: &Events) -> Container {
    let name = events.server.as_str();
    Container {
        mem_limit: events.memory_bytes.get(),
        cpus: f64::from(events.cpu_millis.get()) / 1000.0,
        networks: vec![name.to_owned()],
        ..server(name, container(plan, "events", own("events", "berth")))
    }
}

/// A database or the event bus: it alone keeps data.
fn server(name: &str, base: Container) -> Container {
    let word = |word: &str| vec!["contained".to_owned(), word.to_owned(), name.to_owned()];
    Container {
        command: word("serve"),
        environment: runner_environment(true),
        volumes: vec![
            format!("{}:{CREDENTIALS}:ro", credentials_volume(name)),
            format!("plan:{PLAN_FOLDER}:ro"),
            format!("{}:{STATE}", data_volume(name)),
        ],
        stop_grace_period: Some("30s".to_owned()),
        healthcheck: Some(health_check([PROGRAM.to_owned()].into_iter().chain(word("probe")))),
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
    let (build, artifact) = image(service);
    let lookup = |variable: &str| match variable {
        "ARTIFACT" => Some(artifact.clone()),
        "CREDENTIALS_DIRECTORY" => Some(CREDENTIALS.to_owned()),
        "STATE_DIRECTORY" => Some("/tmp".to_owned()),
        _ => None,
    };
    let line = service.command_line(instance, lookup).map_err(|error| Failure::other(format!("{name}: {error}")))?;
    let mut environment = runner_environment(is_gateway);
    environment.extend(instance.environment.clone());
    // All copies have one environment: each is named after its container.
    environment.remove("BERTH_INSTANCE");
    let mut volumes = vec![format!("{}:{CREDENTIALS}:ro", credentials_volume(name))];
    volumes.extend(is_gateway.then(|| format!("plan:{PLAN_FOLDER}:ro")));
    let mut dependencies: Vec<(String, &'static str)> = Vec::new();
    for other in &service.after {
        let speaks = plan.service(other).is_none_or(|other| other.protocol == Protocol::Mesh);
        dependencies.push((other.to_string(), if speaks { "service_healthy" } else { "service_started" }));
    }
    let check = || health_check([PROGRAM.to_owned(), "healthcheck".to_owned()]);
    Ok(Container {
        entrypoint: line,
        scale: (!is_gateway).then(|| service.replicas.start()),
        mem_limit: service.memory_bytes.get(),
        cpus: f64::from(service.cpu_millis.get()) / 1000.0,
        stop_grace_period: Some(format!("{}s", service.stop_timeout_ms.duration().as_millis().div_ceil(1000))),
        environment: environment.into_iter().map(|(name, value)| (name, value.replace('$', "$$"))).collect(),
        volumes,
        ports: if is_gateway { vec![format!("{0}:{0}", plan.gateway.public_port)] } else { Vec::new() },
        networks: networks_of(plan, service),
        healthcheck: (service.protocol == Protocol::Mesh).then(check),
        depends_on: after_init(dependencies),
        ..container(plan, name, build)
    })
}

/// How a service's image is built, and where its executable lies in it.
fn image(service: &Service) -> (Build, String) {
    match &service.executable {
        Executable::Package(program) => (own("service", program), PROGRAM.to_owned()),
        Executable::Artifact(path) => {
            let file = path.rsplit('/').next().unwrap_or(path);
            let build = Build {
                context: ".",
                dockerfile: format!("docker/runtimes/{}.Dockerfile", runtime_name(service.runtime)),
                target: None,
                args: BTreeMap::from([("ARTIFACT", path.clone())]),
            };
            (build, format!("/app/{file}"))
        }
    }
}

fn runtime_name(runtime: Runtime) -> &'static str {
    mesh::Template::of(runtime).name
}

fn runner_environment(with_plan: bool) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::from([
        ("CREDENTIALS_DIRECTORY".to_owned(), CREDENTIALS.to_owned()),
        ("STATE_DIRECTORY".to_owned(), STATE.to_owned()),
    ]);
    if with_plan {
        environment.insert("BERTH_PLAN".to_owned(), format!("{PLAN_FOLDER}/plan.json"));
    }
    environment
}

fn health_check(command: impl IntoIterator<Item = String>) -> HealthCheck {
    HealthCheck {
        test: ["CMD".to_owned()].into_iter().chain(command).collect(),
        interval: "3s",
        timeout: "6s",
        retries: 5,
        start_period: "60s",
    }
}

fn after_init(others: impl IntoIterator<Item = (String, &'static str)>) -> BTreeMap<String, Condition> {
    let init = (INIT.to_owned(), "service_completed_successfully");
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
    let names = ["authority".to_owned(), "plan".to_owned()].into_iter();
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
}
