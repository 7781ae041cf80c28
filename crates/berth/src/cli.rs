//! The command line: what can be asked for, in words.

use std::{path::PathBuf, str::FromStr};

use clap::{
    Args, Parser, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};

use mesh::{Template, plan::Runtime};
use uuid::Uuid;

use crate::exec;

const AFTER_HELP: &str = "\
Examples:
  berth init                     declare the program in this folder
  berth up                       start everything and watch it; Ctrl-C stops everything
  berth up --detach              start everything and return when it is ready
  berth status --json            what runs, for a script
  berth logs -f item-management  follow the logs of one service
  berth demo                     place an order for real
  berth outbox status            what services owe each other
  berth dead-letters list        messages that could not be handled
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
    /// See and mend what services owe each other: events that were written and are to be published
    Outbox(Operate<Outbox>),
    /// See and mend what services have not handled yet: how far they are, and which events wait
    Inbox(Operate<Inbox>),
    /// See, replay and discard messages that could not be handled
    DeadLetters(Operate<DeadLetters>),
    /// See and move the transactions that span databases
    Sagas(Operate<Sagas>),
    /// Show what operators changed by the commands above
    #[command(after_help = "Example:\n  berth interventions item-management")]
    Interventions {
        /// Of which service
        #[command(flatten)]
        services: Services,
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
    #[arg(long, value_parser = runtime(), value_name = "RUNTIME")]
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

fn runtime() -> impl TypedValueParser<Value = Runtime> {
    let named = |word: String| Runtime::ALL.into_iter().find(|runtime| Template::of(*runtime).name == word);
    PossibleValuesParser::new(Runtime::ALL.map(|runtime| Template::of(runtime).name))
        .try_map(move |word| named(word).ok_or("there is no such runtime"))
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
    /// Lines to show of each log, from its rotated files as well
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

/// What an operator does, and where.
#[derive(Debug, Args)]
pub struct Operate<C: Subcommand> {
    /// What
    #[command(subcommand)]
    pub command: C,
    /// In the mesh that runs in containers (docker-compose up)
    #[arg(long, global = true)]
    pub compose: bool,
}

/// One service or all, and how to print.
#[derive(Debug, Args)]
pub struct Services {
    /// The service [default: all that have messages]
    pub service: Option<String>,
    /// Print JSON: an object with a member for each service
    #[arg(long)]
    pub json: bool,
}

/// One thing of one service.
#[derive(Debug, Args)]
pub struct One<I>
where
    I: FromStr + Clone + Send + Sync + 'static,
    I::Err: std::error::Error + Send + Sync + 'static,
{
    /// The service
    pub service: String,
    /// Its id
    pub id: I,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Events that are owed, and those that were published.
#[derive(Debug, Subcommand)]
pub enum Outbox {
    /// Show how much is owed and since when, what is on its way, and how far the stream is
    #[command(after_help = "Examples:\n  berth outbox status\n  berth outbox status --json | jq '.[].unpublished'")]
    Status(Services),
    /// List events, the latest first
    #[command(after_help = "Examples:\n  berth outbox list eshop-documents\n  berth outbox list --unpublished")]
    List {
        /// Which service
        #[command(flatten)]
        services: Services,
        /// Those that are owed alone, the oldest first
        #[arg(long)]
        unpublished: bool,
        /// At most so many of each service
        #[arg(long, short = 'n', default_value_t = 50, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1000))]
        lines: u16,
    },
    /// Show an event with its data
    Show(One<Uuid>),
    /// Publish an event once more; consumers that know it recognize it
    ///
    /// For a consumer that has lost it in a way that nobody noticed. Published events are kept for a time alone.
    Republish(One<Uuid>),
}

/// Events that were handled, and those that wait.
#[derive(Debug, Subcommand)]
pub enum Inbox {
    /// Show how far each consumer is
    #[command(
        after_help = "Examples:\n  berth inbox status\n  berth inbox status --json | jq '.[][] | {consumer, parked}'"
    )]
    Status(Services),
    /// List the events that wait, what they wait for, and those that fail and will be tried again
    #[command(after_help = "Example:\n  berth inbox list item-management")]
    List(Services),
    /// Show what each consumer of a service knows of an event
    Show(One<Uuid>),
    /// Go on behind a gap: give up the events that have not come
    ///
    /// Should one of them come after all, it becomes a dead letter.
    #[command(
        after_help = "Example:\n  berth inbox skip item-management --consumer eshop-documents/item-management --aggregate stock/0198… --accept-loss"
    )]
    Skip(Gap),
    /// Begin with the first event that is there: take what came before it as handled
    ///
    /// Should one of them come after all, it is ignored.
    #[command(
        after_help = "Example:\n  berth inbox adopt item-management --consumer eshop-documents/item-management --aggregate stock/0198… --accept-loss"
    )]
    Adopt(Gap),
}

/// Which history has a gap; `berth inbox list` shows them.
#[derive(Debug, Args)]
pub struct Gap {
    /// The service
    pub service: String,
    /// Its consumer: <stream>/<service>
    #[arg(long, value_name = "NAME")]
    pub consumer: String,
    /// Whose events do not come: <type>/<id>
    #[arg(long, value_name = "AGGREGATE")]
    pub aggregate: String,
    /// Say that the effects of those events are given up
    #[arg(long, required = true)]
    pub accept_loss: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Messages that could not be handled.
#[derive(Debug, Subcommand)]
pub enum DeadLetters {
    /// List those that nobody has replayed or discarded, the oldest first
    #[command(
        after_help = "Examples:\n  berth dead-letters list\n  berth dead-letters list item-management --resolved --json"
    )]
    List {
        /// Which service
        #[command(flatten)]
        services: Services,
        /// The others too
        #[arg(long)]
        resolved: bool,
    },
    /// Show one with its message
    Show(One<i64>),
    /// Have some handled again, or published
    #[command(
        after_help = "Examples:\n  berth dead-letters replay item-management 7 8\n  berth dead-letters replay item-management --all"
    )]
    Replay(Letters),
    /// Give some up
    #[command(after_help = "Example:\n  berth dead-letters discard item-management 7")]
    Discard(Letters),
}

/// Which dead letters.
#[derive(Debug, Args)]
pub struct Letters {
    /// The service
    pub service: String,
    /// Their ids
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub ids: Vec<i64>,
    /// All that nobody has replayed or discarded
    #[arg(long)]
    pub all: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Transactions that span databases.
#[derive(Debug, Subcommand)]
pub enum Sagas {
    /// List those that have not come to an end: first those that wait for an operator, then the first due first
    #[command(after_help = "Examples:\n  berth sagas list\n  berth sagas list eshop-documents --ended --json")]
    List {
        /// Which service
        #[command(flatten)]
        services: Services,
        /// The others too, the latest first
        #[arg(long)]
        ended: bool,
    },
    /// Show one with the events it has led to
    Show(One<Uuid>),
    /// Ask at once for the answer that a saga waits for; once more, where the answer left no way forward
    ///
    /// Where the saga would give up instead of asking again, this is refused.
    Retry(One<Uuid>),
    /// Call a saga off that has not passed its pivot
    Cancel(One<Uuid>),
    /// Give up a saga that has no way forward: there is nothing for a confirmed order, or a credit note's goods are refused
    ///
    /// That happens only after a database was put back to an older state; `berth sagas list` shows such sagas first, as unfulfilled or
    /// unreturned. The order becomes CANCELLED with the reason `unfulfilled`, and whatever is found for it after all is undone; its
    /// invoice must be credited in full before. The credit note stays ISSUED, and becomes RETURNED should its goods come in after all;
    /// it may be given up while it still waits, too. Any other saga is refused. Done twice, it is done once.
    #[command(
        after_help = "Example:\n  berth sagas abandon eshop-documents 0198… --reason 'restored from the backup of Friday, sold out since'"
    )]
    Abandon {
        /// Which saga
        #[command(flatten)]
        one: One<Uuid>,
        /// Why, for whoever reads it later in `berth interventions`: 1 to 500 characters
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
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
