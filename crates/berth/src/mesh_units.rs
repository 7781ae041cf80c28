//! From the plan to what the supervisor runs: a unit for each database, for the event bus, and for each instance.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs,
    net::{IpAddr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mesh::{
    Plan,
    plan::{Database, Events, Executable, Instance, Protocol, Service},
};
use nix::sys::signal::Signal;
use servers::{
    Account, Launch, NatsProgram, PostgresPrograms,
    postgres::{Owner, Postgres},
};

use crate::{
    failure::Failure,
    plan_servers::{self, Place},
    project::Project,
    secrets,
    supervisor::{
        probe::Probe,
        specification::Specification,
        unit::{Backoff, Policy, Readiness, Restart},
    },
};

/// The name the gateway knows its public socket by.
const PUBLIC_SOCKET: &str = "https";
/// What a service gets of this process's environment.
const INHERITED: [&str; 9] = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "RUST_LOG", "RUST_BACKTRACE"];
/// PostgreSQL and NATS get this long to recover after a crash.
const SERVER_START: Duration = Duration::from_secs(300);
const SERVER_STOP: Duration = Duration::from_secs(30);
const SERVICE_START: Duration = Duration::from_secs(90);
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(100),
    max: Duration::from_secs(10),
    steps: 8,
    stable_after: Duration::from_secs(30),
};

/// Prepares the databases and the event bus, and says how to run everything.
///
/// # Errors
/// A program is missing, a server cannot be prepared, or a host of the plan is no address.
pub async fn prepare(project: &Project, plan: &Plan, public: Arc<TcpListener>) -> Result<Vec<Specification>, Failure> {
    let mut units = databases(project, plan).await?;
    if let Some(events) = &plan.events {
        units.push(event_bus(project, events)?);
    }
    let plan_file = project.plan();
    secrets::files::replace(&plan_file, plan.to_json().as_bytes())?;
    for (service, instance) in plan.instances().filter(|(_, instance)| instance.start) {
        let mut unit = instance_unit(project, service, instance, &plan_file)?;
        if service.name == plan.gateway.service {
            unit.sockets.push((PUBLIC_SOCKET.to_owned(), Arc::clone(&public)));
        }
        units.push(unit);
    }
    Ok(units)
}

async fn databases(project: &Project, plan: &Plan) -> Result<Vec<Specification>, Failure> {
    if plan.databases.is_empty() {
        return Ok(Vec::new());
    }
    let programs = PostgresPrograms::find()?;
    let account = Account::unprivileged();
    let home = servers::data_home(&project.data(), account)?;
    let mut making = Vec::new();
    for database in &plan.databases {
        let server = postgres(project, &programs, account, &home, database)?;
        let password = secrets::database_password(project, &database.name)?;
        let (role, name) = (database.role.to_string(), database.database.to_string());
        // Making a cluster takes seconds, so all are made at once.
        making.push((
            database,
            tokio::task::spawn_blocking(move || {
                server.prepare(Owner { role: &role, database: &name, password: &password })?;
                Ok::<_, servers::Error>((server.launch(), server.readiness_probe()))
            }),
        ));
    }
    let mut units = Vec::new();
    for (database, made) in making {
        let (launch, probe) = made.await.map_err(Failure::other)??;
        let address = address(&database.name, &database.host, database.port.get())?;
        let policy = server_policy(Signal::SIGINT);
        units.push(server_unit(&database.name, launch, Probe::Command(probe), address, &home, policy));
    }
    Ok(units)
}

fn postgres(
    project: &Project,
    programs: &PostgresPrograms,
    account: Option<Account>,
    home: &Path,
    database: &Database,
) -> Result<Postgres, Failure> {
    let place = Place {
        data: home.join(database.name.as_str()),
        credentials: project.credentials().join(database.name.as_str()),
        host: address(&database.name, &database.host, database.port.get())?.ip(),
    };
    Ok(plan_servers::postgres(database, place, programs.clone(), account))
}

fn event_bus(project: &Project, events: &Events) -> Result<Specification, Failure> {
    let name: &str = &events.server;
    let address = address(name, &events.host, events.port.get())?;
    let place =
        Place { data: project.data().join(name), credentials: project.credentials().join(name), host: address.ip() };
    let server = plan_servers::nats(events, place, NatsProgram::find()?)?;
    server.prepare()?;
    let policy = server_policy(Signal::SIGTERM);
    Ok(server_unit(name, server.launch(), Probe::Nats(address), address, &project.data(), policy))
}

fn server_unit(
    name: &str,
    launch: Launch,
    probe: Probe,
    address: SocketAddr,
    folder: &Path,
    policy: Policy,
) -> Specification {
    Specification {
        name: name.to_owned(),
        service: name.to_owned(),
        program: launch.program,
        args: launch.args,
        environment: inherited(),
        folder: folder.to_owned(),
        account: launch.account,
        // A server whose supervisor dies stops cleanly, as it would be stopped by it.
        death_signal: policy.stop_signal,
        sockets: Vec::new(),
        probe: Some(probe),
        policy,
        after: Vec::new(),
        address: Some(address),
    }
}

fn server_policy(stop_signal: Signal) -> Policy {
    Policy {
        readiness: Readiness::Probe,
        restart: Restart::Always,
        backoff: BACKOFF,
        start_timeout: SERVER_START,
        stop_timeout: SERVER_STOP,
        stop_signal,
        watchdog: None,
        // They are configured to stay within their sizes; a cache that is a little over is no reason to kill a database.
        memory: None,
    }
}

fn instance_unit(
    project: &Project,
    service: &Service,
    instance: &Instance,
    plan_file: &Path,
) -> Result<Specification, Failure> {
    let name: &str = &instance.name;
    let address = address(name, &instance.host, instance.port.get())?;
    let mut environment = inherited();
    let state = project.data().join(name);
    secrets::files::private_folder(&state)?;
    let artifact = executable(project, service)?;
    let runner: [(&str, PathBuf); 4] = [
        ("BERTH_PLAN", plan_file.to_owned()),
        ("CREDENTIALS_DIRECTORY", project.credentials().join(service.name.as_str())),
        ("STATE_DIRECTORY", state),
        ("ARTIFACT", artifact),
    ];
    let lookup = |wanted: &str| {
        runner.iter().find(|(known, _)| *known == wanted).map(|(_, path)| path.to_string_lossy().into_owned())
    };
    let line = service.command_line(instance, lookup).map_err(|error| Failure::other(format!("{name}: {error}")))?;
    let (program, args) =
        line.split_first().ok_or_else(|| Failure::other(format!("{name} has an empty command line")))?;
    environment.extend(instance.environment.iter().map(|(name, value)| (name.clone(), OsString::from(value))));
    environment.extend(
        runner.iter().filter(|(name, _)| *name != "ARTIFACT").map(|(name, path)| ((*name).to_owned(), path.into())),
    );
    Ok(Specification {
        name: name.to_owned(),
        service: service.name.to_string(),
        program: PathBuf::from(program),
        args: args.iter().map(OsString::from).collect(),
        environment,
        folder: project.root().to_owned(),
        account: None,
        death_signal: Signal::SIGKILL,
        sockets: Vec::new(),
        probe: probe(service, address),
        policy: instance_policy(service),
        after: service.after.iter().map(ToString::to_string).collect(),
        address: Some(address),
    })
}

fn probe(service: &Service, address: SocketAddr) -> Option<Probe> {
    match (service.protocol, &service.health.path) {
        (Protocol::Mesh, _) => None,
        (Protocol::Plain, Some(path)) => Some(Probe::Http(address, path.to_string())),
        (Protocol::Plain, None) => Some(Probe::Tcp(address)),
    }
}

fn instance_policy(service: &Service) -> Policy {
    let speaks = service.protocol == Protocol::Mesh;
    Policy {
        readiness: if speaks { Readiness::Notify } else { Readiness::Probe },
        restart: Restart::OnFailure,
        backoff: BACKOFF,
        start_timeout: SERVICE_START,
        stop_timeout: service.stop_timeout_ms.duration(),
        stop_signal: Signal::SIGTERM,
        watchdog: service.watchdog_ms.filter(|_| speaks).map(mesh::Millis::duration),
        memory: Some(service.memory_bytes.get()),
    }
}

/// Our own programs lie beside this one; artifacts where the declaration says.
fn executable(project: &Project, service: &Service) -> Result<PathBuf, Failure> {
    let (path, mend) = match &service.executable {
        Executable::Package(name) => {
            let own = env::current_exe().map_err(|error| Failure::io("cannot find the folder of berth", error))?;
            let name: &str = name;
            (own.with_file_name(name), format!("build it: `cargo build --release --bin {name}`, or `./berth up`"))
        }
        Executable::Artifact(artifact) => {
            (project.root().join(&artifact.path), format!("put it there, or mend services.{}.artifact", service.name))
        }
    };
    if !fs::metadata(&path).is_ok_and(|found| found.is_file()) {
        return Err(Failure::mendable(format!("{} of {} is missing", path.display(), service.name), mend));
    }
    Ok(path)
}

fn inherited() -> BTreeMap<String, OsString> {
    INHERITED.iter().filter_map(|name| Some(((*name).to_owned(), env::var_os(name)?))).collect()
}

fn address(unit: &str, host: &str, port: u16) -> Result<SocketAddr, Failure> {
    let host: IpAddr =
        host.parse().map_err(|_| Failure::other(format!("the host {host:?} of {unit} is no IP address")))?;
    Ok(SocketAddr::new(host, port))
}
