//! The command line: what can be asked for, in words.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use mesh::{Template, plan::Runtime};

use crate::exec;

const AFTER_HELP: &str = "\
Examples:
  berth init                     declare the program in this folder
  berth up                       start everything and watch it; Ctrl-C stops everything
  berth up --detach              start everything and return when it is ready
  berth status --json            what runs, for a script
  berth logs -f item-management  follow the logs of one service
  berth demo                     place an order for real
  berth down                     stop everything
  ./berth test                   in the repository: everything that can be tested here

Exit codes:
  0  done
  1  failed
  2  the command line is wrong
  3  the mesh is not running
  4  there is no mesh.toml, or it is wrong
  5  PostgreSQL or NATS is missing on this machine";

/// Runs a declared mesh of services: with its databases, its event bus, its secrets and its gateway.
#[derive(Debug, Parser)]
#[command(name = "berth", version, after_help = AFTER_HELP, propagate_version = true)]
pub struct Cli {
    /// The declaration, or its folder [default: the nearest mesh.toml from here upward]
    #[arg(long, global = true, value_name = "PATH")]
    pub mesh: Option<PathBuf>,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the mesh on this machine
    ///
    /// Makes missing secrets and data folders, starts a PostgreSQL for each database, the event bus and every instance of
    /// every service, restarts what fails, and stops everything on Ctrl-C. What it keeps lies in .berth beside mesh.toml.
    #[command(after_help = "Examples:\n  berth up\n  berth up --detach")]
    Up(Up),
    /// Stop the mesh
    #[command(after_help = "Stopping what does not run is no error.")]
    Down,
    /// Show what runs
    #[command(
        after_help = "Examples:\n  berth status\n  berth status --json | jq '.units[] | {name, state, memory: .usage.memory_bytes}'"
    )]
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what services wrote
    #[command(after_help = "Examples:\n  berth logs\n  berth logs -f gateway\n  berth logs -n 500 item-management-db")]
    Logs(Logs),
    /// Print an access token for a demo user
    #[command(
        after_help = "Example (from a file, since a command line can be read by everybody on the machine):\n  echo \"Authorization: Bearer $(berth token --user alice)\" >.berth/alice\n  curl --cacert .berth/ca.pem -H @.berth/alice https://localhost:8443/items"
    )]
    Token {
        /// The user: alice, bob, carol, dave, mallory or admin
        #[arg(long, value_name = "NAME")]
        user: String,
        /// Of the mesh that runs in containers (docker-compose up)
        #[arg(long, conflicts_with = "nodes")]
        compose: bool,
        /// Of the mesh that runs on its nodes, each a machine
        #[arg(long)]
        nodes: bool,
    },
    /// Restart a service, one instance after the other
    #[command(
        after_help = "Examples:\n  berth restart item-management\n  berth restart item-management-2\n  berth restart nats"
    )]
    Restart {
        /// A service, a database, the event bus, or one instance
        service: String,
    },
    /// Walk through the shop for real: log in, create an item, place an order, watch it confirmed
    #[command(
        after_help = "Runs the very commands that `berth up` shows, in a shell. Ends with 0 only if the order is confirmed."
    )]
    Demo {
        /// In the mesh that runs in containers (docker-compose up)
        #[arg(long)]
        compose: bool,
    },
    /// Make certificates, keys and passwords
    #[command(subcommand)]
    Secrets(Secrets),
    /// Write a first mesh.toml for the program in this folder
    ///
    /// Looks for what there is to run (a jar, Python, PHP, .NET, JavaScript, Rust, a Windows .exe, an executable) and declares it behind
    /// a gateway. Writes nothing else, and never over a mesh.toml that is there.
    #[command(
        after_help = "Examples:\n  berth init\n  berth init --artifact build/pricing.jar\n  berth init --name pricing --runtime python --artifact serve.py"
    )]
    Init(Init),
    /// Say everything that is wrong with mesh.toml
    #[command(
        after_help = "Examples:\n  berth check\n  berth check --json | jq -r '.findings[] | \"\\(.line):\\(.column): \\(.message)\"'"
    )]
    Check {
        /// Print JSON: line and column (from 1), rule, message, help
        #[arg(long)]
        json: bool,
    },
    /// Show what mesh.toml comes to: nodes and their load, services, routes, databases, events
    #[command(after_help = "Examples:\n  berth plan\n  berth plan --json | jq '.gateway.routes'")]
    Plan {
        /// Print the plan as mesh.lock.json has it
        #[arg(long)]
        json: bool,
    },
    /// Draw the mesh as SVG: who calls whom, and who hears of what
    #[command(after_help = "Examples:\n  berth graph > mesh.svg\n  berth graph --output docs/mesh.svg")]
    Graph {
        /// The file to write [default: standard output]
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Resolve mesh.toml and write mesh.lock.json
    #[command(
        after_help = "Examples:\n  berth lock\n  berth lock --check    fail if mesh.lock.json is not what mesh.toml says"
    )]
    Lock {
        /// Write nothing; fail if the file differs
        #[arg(long)]
        check: bool,
    },
    /// Write docker-compose.yaml: the mesh as containers
    ///
    /// Where it is missing, a Dockerfile for each runtime is written too, .env says where Berth's own images are built from, and
    /// .dockerignore keeps secrets out of images. What is there stays as it is.
    #[command(
        after_help = "Examples:\n  berth compose\n  berth compose --check    fail if docker-compose.yaml is not what mesh.toml says"
    )]
    Compose {
        /// Write nothing; fail if the file differs
        #[arg(long)]
        check: bool,
    },
    /// What runs inside containers and machines
    #[command(subcommand, hide = true)]
    Contained(Contained),
    /// Become a supervised program
    #[command(hide = true)]
    Exec(exec::Arguments),
}

/// What to declare.
#[derive(Debug, Args)]
pub struct Init {
    /// How the program is started
    #[arg(long, value_parser = runtime, value_name = "native|java|python|php|dotnet|node|wine")]
    pub runtime: Option<Runtime>,
    /// The file to start, by its path from this folder down
    #[arg(long, value_name = "FILE")]
    pub artifact: Option<String>,
    /// What the service and the mesh are called [default: made of the folder's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Write over a mesh.toml that is there
    #[arg(long)]
    pub force: bool,
}

fn runtime(word: &str) -> Result<Runtime, String> {
    let found = Runtime::ALL.into_iter().find(|runtime| Template::of(*runtime).name == word);
    found.ok_or_else(|| {
        let names = Runtime::ALL.map(|runtime| Template::of(runtime).name).join(", ");
        format!("there are {names}")
    })
}

/// How to start.
#[derive(Debug, Args)]
pub struct Up {
    /// Return when everything is ready, and leave it running
    #[arg(long, short)]
    pub detach: bool,
    /// With --detach: give up waiting after so many seconds (the mesh is left running)
    #[arg(long, default_value_t = 180, value_name = "SECONDS")]
    pub timeout: u64,
    /// Supervise without a view: what --detach leaves running
    #[arg(long, hide = true, conflicts_with = "detach")]
    pub supervise: bool,
}

/// Which logs.
#[derive(Debug, Args)]
pub struct Logs {
    /// A service, a database, the event bus, one instance, or `supervisor` [default: all]
    pub service: Option<String>,
    /// Go on with what is written from now on
    #[arg(long, short)]
    pub follow: bool,
    /// Lines to show of each log
    #[arg(long, short = 'n', default_value_t = 50, value_name = "COUNT")]
    pub lines: usize,
}

/// What runs inside containers and machines; docker-compose.yaml and the units of nixos-modules call it.
#[derive(Debug, Subcommand)]
pub enum Contained {
    /// Make what is missing of the mesh's secrets, each in the volume of who may read it, and write the plan
    Init {
        /// Make the demo users as well
        #[arg(long, env = "BERTH_DEMO_USERS", value_parser = clap::builder::BoolishValueParser::new(), default_value_t = false, action = clap::ArgAction::Set)]
        demo_users: bool,
    },
    /// Keep a secret that only the mesh's operator can provide: its value is read from standard input
    Keep {
        /// Its name in the declaration
        secret: String,
    },
    /// Prepare a database or the event bus, and become it
    Serve {
        /// Its name in the plan
        server: String,
    },
    /// Ask a database or the event bus beside this process whether it serves
    Probe {
        /// Its name in the plan
        server: String,
    },
    /// Print something a client outside needs
    Show {
        /// What
        what: Shown,
    },
}

/// What a client outside needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Shown {
    /// The certificate to trust
    Ca,
    /// Names and passwords of the demo users
    Users,
}

/// What to do with secrets.
#[derive(Debug, Subcommand)]
pub enum Secrets {
    /// Make what is missing: the mesh's authority, a certificate for each service and server, passwords and keys
    ///
    /// Nothing that is there is changed, and nothing secret is printed. Each service has a folder of its own in
    /// .berth/credentials that only you may enter.
    #[command(after_help = "Example:\n  berth secrets init")]
    Init {
        /// Make the demo users as well: never in a mesh that others reach
        #[arg(long)]
        demo_users: bool,
    },
    /// Hand a machine its credentials
    ///
    /// Those of what runs on one node of the plan, and no others. Without --to they are written to standard output as a tar archive, which
    /// `berth-credentials` on the machine takes and seals with its own key.
    #[command(
        after_help = "Examples:\n  berth secrets export items-1 | ssh root@items-1 berth-credentials\n  berth secrets export items-1 --to credentials/items-1 --smbios"
    )]
    Export {
        /// The node: items-1
        node: String,
        /// Write a file for each into this folder instead, which is made, and must be empty if it is there
        #[arg(long, value_name = "FOLDER")]
        to: Option<PathBuf>,
        /// As strings for a virtual machine's SMBIOS, one a file: -smbios type=11,path=FILE
        #[arg(long, requires = "to")]
        smbios: bool,
    },
}
