//! One file for each command: what it prints, and in which order things are done.

mod check;
mod compose;
mod demo;
mod down;
mod graph;
mod init;
mod lock;
mod logs;
mod messaging;
mod plan;
mod status;
mod up;

use std::{
    env,
    io::{self, IsTerminal, Write},
    path::Path,
};

use mesh::{Placement, Plan};

use crate::{
    cli::{Cli, Command, Operate, Secrets},
    contained,
    control::{Client, Request},
    engine,
    failure::Failure,
    login,
    project::Project,
    secrets::{
        self,
        export::{Form, NodeCredentials},
    },
};

/// Does what was asked for.
///
/// # Errors
/// It cannot be done.
pub async fn run(cli: Cli) -> Result<(), Failure> {
    let project = || Project::find(cli.mesh.as_deref());
    match cli.command {
        Command::Up(options) => up::run(&project()?, &options).await,
        Command::Down => down::run(&project()?).await,
        Command::Status { json } => status::run(&project()?, json).await,
        Command::Logs(options) => logs::run(&project()?, &options).await,
        Command::Token { user, nodes: true, .. } => {
            let project = project()?;
            print(&login::access_token(&project, &project.resolve(&Placement::Nodes)?, &user).await?)
        }
        Command::Token { user, compose, .. } => token(&project()?, &user, compose).await,
        Command::Restart { service } => restart(&project()?, service).await,
        Command::Demo { compose } => demo::run(&project()?, compose).await,
        Command::Outbox(Operate { compose: true, .. })
        | Command::Inbox(Operate { compose: true, .. })
        | Command::DeadLetters(Operate { compose: true, .. })
        | Command::Sagas(Operate { compose: true, .. })
        | Command::Interventions { compose: true, .. } => engine::operate(&project()?, env::args_os().skip(1)).await,
        Command::Outbox(Operate { command, .. }) => messaging::outbox(&project()?, command).await,
        Command::Inbox(Operate { command, .. }) => messaging::inbox(&project()?, command).await,
        Command::DeadLetters(Operate { command, .. }) => messaging::dead_letters(&project()?, command).await,
        Command::Sagas(Operate { command, .. }) => messaging::sagas(&project()?, command).await,
        Command::Interventions { services, .. } => messaging::interventions(&project()?, &services).await,
        Command::Secrets(Secrets::Init { demo_users }) => init_secrets(&project()?, demo_users),
        Command::Secrets(Secrets::Export { node, to, smbios }) => {
            export_secrets(&project()?, &node, to.as_deref(), smbios)
        }
        Command::Init(options) => init::run(cli.mesh.as_deref(), &options),
        Command::Check { json } => check::run(&project()?, json),
        Command::Plan { json } => plan::run(&project()?, json),
        Command::Graph { output } => graph::run(&project()?, output.as_deref()),
        Command::Lock { check } => lock::run(&project()?, check),
        Command::Compose { check } => compose::run(&project()?, check),
        Command::Contained(order) => contained::run(project, order).await,
        Command::Exec(order) => match order.run() {
            Ok(never) => match never {},
            Err(error) => Err(Failure::io("berth exec", error)),
        },
    }
}

async fn token(project: &Project, user: &str, in_containers: bool) -> Result<(), Failure> {
    let (project, plan) = running(project, in_containers).await?;
    print(&login::access_token(&project, &plan, user).await?)
}

/// The running mesh, here or in containers: where its certificate and users lie, and its plan.
async fn running(project: &Project, in_containers: bool) -> Result<(Project, Plan), Failure> {
    if in_containers {
        return engine::access(project).await;
    }
    Ok((project.clone(), running_plan(project).await?))
}

async fn restart(project: &Project, name: String) -> Result<(), Failure> {
    let done = format!("{name} was restarted and is ready");
    Client::order(project, &Request::Restart { name }).await?;
    print(&done)
}

fn export_secrets(project: &Project, node: &str, to: Option<&Path>, smbios: bool) -> Result<(), Failure> {
    let credentials = NodeCredentials::collect(project, &project.resolve(&Placement::Nodes)?, node)?;
    let form = if smbios { Form::Smbios } else { Form::Plain };
    match to {
        Some(folder) => {
            credentials.write_files(folder, form)?;
            print(&format!("{} credentials of {node} are in {}", credentials.len(), folder.display()))
        }
        None if io::stdout().is_terminal() => Err(Failure::mendable(
            "secrets are not shown on a terminal",
            format!(
                "hand them over: berth secrets export {node} | ssh root@{node} berth-credentials; or name a folder with --to"
            ),
        )),
        None => credentials.write_archive(io::stdout().lock()),
    }
}

fn init_secrets(project: &Project, demo_users: bool) -> Result<(), Failure> {
    let plan = project.resolve(&Placement::Nodes)?;
    let report = secrets::init(project, &plan, demo_users)?;
    print(&report.to_string())?;
    print(&format!("clients trust the mesh by {}", project.ca().display()))
}

/// The plan the running mesh was started with.
async fn running_plan(project: &Project) -> Result<Plan, Failure> {
    Client::status(project).await?;
    let path = project.plan();
    let text = secrets::files::read(&path)?.ok_or(Failure::NotRunning)?;
    Plan::from_json(&text).map_err(Failure::other)
}

/// The columns of the terminal, if standard output is one.
fn width() -> Option<u16> {
    let term = console::Term::stdout();
    term.is_term().then(|| term.size().1)
}

/// Writes to standard output.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    writeln!(io::stdout(), "{text}").map_err(printing)
}

fn printing(error: io::Error) -> Failure {
    // Whoever read has seen enough: `berth logs | head`.
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::Told { words: String::new(), code: 0 };
    }
    Failure::io("cannot write to standard output", error)
}
