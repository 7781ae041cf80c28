//! What runs inside the containers of `docker-compose.yaml` and the units of `nixos-modules/`, besides the services: the one-shot that
//! makes the secrets of containers, and the step from a container or unit to the database or event bus that runs in it.
//!
//! Each has its own credentials alone; the plan lies where all may read it.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    env, fs,
    io::{self, Read as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
};

use mesh::{
    Placement, Plan,
    plan::{Credential, CredentialKind, Database, Events},
};
use servers::{Launch, NatsProgram, PostgresPrograms, postgres::Owner};

use crate::{
    cli::{Contained, Shown},
    commands::print,
    failure::Failure,
    operator,
    plan_servers::{self, Place},
    project::Project,
    secrets::{self, files},
    supervisor::probe::Probe,
};

/// The account of every process in a container, by number: "nonroot" of the distroless images.
pub const ACCOUNT: u32 = 65_532;

/// The folder, and the volume, of what containers of foreign programs need.
pub const TOOLS: &str = "tools";
/// The program in it that asks another one whether it serves.
pub const PROBE: &str = "probe";

/// What is longer is no secret but a mistake, in bytes.
const MOST_SECRET: u64 = 1 << 20;

/// Does what the compose file or a unit asks for.
///
/// # Errors
/// It cannot be done.
pub async fn run(project: impl Fn() -> Result<Project, Failure>, order: Contained) -> Result<(), Failure> {
    match order {
        Contained::Init { demo_users } => init(&project()?, demo_users),
        Contained::Keep { secret } => keep(&project()?, &secret),
        Contained::Serve { server } => match serve(&server)? {},
        Contained::Probe { server } => probe(&server).await,
        Contained::Show { what } => show(&project()?, what),
    }
}

/// Makes the secrets as `berth secrets init` does, and gives each folder to who runs in the containers.
fn init(project: &Project, demo_users: bool) -> Result<(), Failure> {
    let plan = project.resolve(&Placement::Containers)?;
    ask_for_secrets(project, &plan)?;
    let report = secrets::init(project, &plan, demo_users)?;
    files::replace(&project.plan(), plan.to_json().as_bytes())?;
    hand_out_probe(&project.state().join(TOOLS))?;
    for folder in [project.credentials(), project.run()] {
        give(&folder).map_err(|error| Failure::io(format!("cannot give {} away", folder.display()), error))?;
    }
    print(&report.to_string())
}

/// The secrets that only the operator can provide, with where each is kept for the whole mesh.
fn provided<'p>(project: &'p Project, plan: &'p Plan) -> impl Iterator<Item = (&'p Credential, PathBuf)> {
    let folder = project.state().join("secrets");
    let credentials = plan.services.iter().flat_map(|service| &service.credentials);
    credentials
        .filter(|credential| matches!(credential.kind, CredentialKind::Provided | CredentialKind::IssuerRoots))
        .map(move |credential| (credential, folder.join(&credential.name)))
}

/// All that are missing at once, since each takes a command.
fn ask_for_secrets(project: &Project, plan: &Plan) -> Result<(), Failure> {
    let missing = provided(project, plan).filter(|(credential, path)| !credential.optional && !path.is_file());
    let missing: BTreeSet<&str> = missing.map(|(credential, _)| credential.name.as_str()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let command = |name| format!("  docker-compose run --rm -T init contained keep {name} <FILE");
    Err(Failure::mendable(
        "the mesh needs secrets that only you can provide",
        format!("provide each, then start again:\n{}", missing.into_iter().map(command).collect::<Vec<_>>().join("\n")),
    ))
}

fn keep(project: &Project, name: &str) -> Result<(), Failure> {
    let plan = project.resolve(&Placement::Containers)?;
    let Some((_, path)) = provided(project, &plan).find(|(credential, _)| credential.name == name) else {
        return Err(Failure::mendable(
            format!("no service has a secret {name} that is provided"),
            "those of the mesh stand in [secrets] of its declaration",
        ));
    };
    let mut value = Vec::new();
    io::stdin()
        .take(MOST_SECRET + 1)
        .read_to_end(&mut value)
        .map_err(|error| Failure::io("cannot read standard input", error))?;
    if value.is_empty() || u64::try_from(value.len()).is_ok_and(|length| length > MOST_SECRET) {
        return Err(Failure::mendable(
            format!("there are {} bytes in standard input, or more", value.len()),
            format!("hand over a secret of 1 to {MOST_SECRET} bytes: … contained keep {name} <FILE"),
        ));
    }
    files::private_folder(&project.state().join("secrets"))?;
    files::replace(&path, &value)?;
    print(&format!("{name} is kept; the next start hands it out"))
}

/// Copies the probe, which lies beside this program in its image, into the volume that foreign programs' containers have it from.
fn hand_out_probe(tools: &Path) -> Result<(), Failure> {
    if !tools.is_dir() {
        return Ok(());
    }
    let copy = || {
        let probe = env::current_exe()?.with_file_name(PROBE);
        let next = tools.join("probe.next");
        // One that runs cannot be written to, but replaced.
        fs::copy(probe, &next)?;
        fs::rename(next, tools.join(PROBE))
    };
    copy().map_err(|error| Failure::io("cannot hand out the probe", error))
}

/// Gives a folder to the containers' account, with all that is in it.
fn give(path: &Path) -> io::Result<()> {
    chown(path, Some(ACCOUNT), Some(ACCOUNT))?;
    if !fs::symlink_metadata(path)?.is_dir() {
        return Ok(());
    }
    fs::read_dir(path)?.try_for_each(|entry| give(&entry?.path()))
}

fn show(project: &Project, what: Shown) -> Result<(), Failure> {
    let path = match what {
        Shown::Ca => project.ca(),
        Shown::Users => project.users(),
    };
    let text = files::read(&path)?.ok_or_else(|| match what {
        Shown::Ca => Failure::mendable("the mesh has no authority yet", "start it once: docker-compose up"),
        Shown::Users => Failure::mendable(
            "the mesh has no demo users",
            "start it with them: BERTH_DEMO_USERS=yes docker-compose up",
        ),
    })?;
    print(text.trim_end())
}

/// A database or the event bus of the plan.
enum Server<'p> {
    Database(&'p Database),
    Events(&'p Events),
}

impl<'p> Server<'p> {
    fn find(plan: &'p Plan, name: &str) -> Result<Self, Failure> {
        let database = plan.databases.iter().find(|database| database.name == *name).map(Self::Database);
        let events = plan.events.as_ref().filter(|events| events.server == *name).map(Self::Events);
        database.or(events).ok_or_else(|| {
            Failure::mendable(
                format!("the plan has no database and no event bus {name}"),
                "write the compose file anew: `berth compose`",
            )
        })
    }
}

/// Prepares the server's data folder, and becomes the server.
fn serve(name: &str) -> Result<Infallible, Failure> {
    let plan = plan()?;
    let launch = match Server::find(&plan, name)? {
        Server::Database(database) => prepare_database(database)?,
        Server::Events(events) => {
            let server = plan_servers::nats(events, place()?, NatsProgram::find()?)?;
            server.prepare()?;
            server.launch()
        }
    };
    Err(Failure::io(format!("cannot become {name}"), launch.command().exec()))
}

fn prepare_database(database: &Database) -> Result<Launch, Failure> {
    let place = place()?;
    let path = place.credentials.join("database-password");
    let password = files::read(&path)?.ok_or_else(|| Failure::other(format!("{} is missing", path.display())))?;
    let server = plan_servers::postgres(database, place, PostgresPrograms::find()?, None);
    server.prepare(Owner {
        role: &database.role,
        database: &database.database,
        password: password.trim_end_matches('\n'),
    })?;
    Ok(server.launch())
}

async fn probe(name: &str) -> Result<(), Failure> {
    let plan = plan()?;
    let probe = match Server::find(&plan, name)? {
        Server::Database(database) => {
            let server = plan_servers::postgres(database, place()?, PostgresPrograms::find()?, None);
            Probe::Command(server.readiness_probe())
        }
        Server::Events(events) => Probe::Nats(SocketAddr::from((Ipv4Addr::LOCALHOST, events.port.get()))),
    };
    if probe.passes().await { Ok(()) } else { Err(Failure::other(format!("{name} does not serve"))) }
}

/// Whether this is the container in which `docker-compose.yaml` has the operator's commands run.
pub fn is_operator() -> bool {
    env::var_os(operator::NAMED).is_some()
}

/// The plan that lies in the volume of all containers.
///
/// # Errors
/// It is not there.
pub fn plan() -> Result<Plan, Failure> {
    let path = folder("BERTH_PLAN")?;
    let text = files::read(&path)?.ok_or_else(|| Failure::other(format!("there is no plan at {}", path.display())))?;
    Plan::from_json(&text).map_err(Failure::other)
}

fn place() -> Result<Place, Failure> {
    Ok(Place {
        data: folder("STATE_DIRECTORY")?.join("data"),
        credentials: folder("CREDENTIALS_DIRECTORY")?,
        host: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    })
}

fn folder(variable: &str) -> Result<PathBuf, Failure> {
    env::var_os(variable).map(PathBuf::from).ok_or_else(|| {
        Failure::mendable(
            format!("{variable} is not set"),
            "let docker-compose.yaml or a unit of nixos-modules start it, which set it",
        )
    })
}
