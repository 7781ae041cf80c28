//! The declaration: what a person wrote, typed, with the place of whatever another part of it may disagree with.
//!
//! Every field and its default stands here, and nowhere else but in `docs/mesh-toml.md`; the JSON Schema is made of the same fields.
//! What fields mean together is `resolve`'s business.

use serde_json::{Value as Json, json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostics::{Finding, Findings, Rule, Span};
use crate::field::{AnyField, Field, Shape, Table, one_of};
use crate::name::{Domain, Name};
use crate::path::UrlPath;
use crate::plan::{Algorithm, Artifact, Executable, Protocol, Replicas, RouteAuth, Runtime, TokenType};
use crate::read::{Entries, Fields, Read, Value, Whole, choice, declared_name, wrong_type};
use crate::runtimes::{Files, Template};
use crate::subject::Subject;
use crate::units::{Bytes, MilliCpu, Millis, Port};

/// A whole `mesh.toml`.
#[derive(Debug)]
pub(crate) struct Declaration {
    pub(crate) mesh: Mesh,
    pub(crate) sizes: Entries<Size>,
    pub(crate) nodes: Entries<Node>,
    pub(crate) services: Entries<Service>,
    pub(crate) databases: Entries<Database>,
    pub(crate) secrets: Entries<Secret>,
    pub(crate) events: Option<Events>,
    pub(crate) gateway: Gateway,
    pub(crate) auth: Auth,
}

impl Declaration {
    const MESH: Field<Mesh> = Field::required("mesh", "{ name = \"eshop\" }", "What the mesh is called.");
    const SIZES: Field<Entries<Size>> = Field::new("sizes", "Named machine sizes.");
    const NODES: Field<Entries<Node>> = Field::new("nodes", "Machines, or several alike, and what they run.");
    const SERVICES: Field<Entries<Service>> = Field::new("services", "What runs, in one or more instances.");
    const DATABASES: Field<Entries<Database>> =
        Field::new("databases", "A PostgreSQL server of its own for one service.");
    const SECRETS: Field<Entries<Secret>> =
        Field::new("secrets", "Secrets of your own services; their values never stand here.");
    const EVENTS: Field<Events> =
        Field::new("events", "The event bus, NATS with JetStream: required as soon as a service emits or consumes.");
    const GATEWAY: Field<Gateway> = Field::new("gateway", "The public face of the gateway.");
    const AUTH: Field<Auth> = Field::new(
        "auth",
        "Whose access tokens (RFC 9068) the gateway accepts. Default: those of the service `identity`.",
    );
}

impl Table for Declaration {
    const FIELDS: &'static [&'static dyn AnyField] = &[
        &Self::MESH,
        &Self::SIZES,
        &Self::NODES,
        &Self::SERVICES,
        &Self::DATABASES,
        &Self::SECRETS,
        &Self::EVENTS,
        &Self::GATEWAY,
        &Self::AUTH,
    ];
}

impl Declaration {
    pub(crate) fn read(document: &Spanned<DeTable<'_>>, findings: &mut Findings) -> Self {
        let mut root = Fields::new(document.get_ref(), 0..0, "mesh.toml");
        let declaration = Self {
            mesh: Mesh::read(&mut root, findings),
            sizes: Entries::read(&mut root, &Self::SIZES, findings, |_, fields, findings| Size::read(fields, findings)),
            nodes: Entries::read(&mut root, &Self::NODES, findings, |_, fields, findings| Node::read(fields, findings)),
            services: Entries::read(&mut root, &Self::SERVICES, findings, Service::read),
            databases: Entries::read(&mut root, &Self::DATABASES, findings, |_, fields, findings| {
                Database::read(fields, findings)
            }),
            secrets: Entries::read(&mut root, &Self::SECRETS, findings, |_, fields, findings| {
                Secret::read(fields, findings)
            }),
            events: section(&mut root, &Self::EVENTS, findings, Events::read),
            gateway: Gateway::read(&mut root, findings),
            auth: Auth::read(&mut root, findings),
        };
        root.close::<Self>(findings);
        declaration
    }
}

/// Reads the table `[<field>]` by `body`, if it is there.
fn section<T: Table, R>(
    parent: &mut Fields<'_, '_>,
    field: &Field<T>,
    findings: &mut Findings,
    body: impl FnOnce(&mut Fields<'_, '_>, Span, &mut Findings) -> R,
) -> Option<R> {
    let (span, value) = parent.entry(field)?;
    let mut fields = Fields::of(value, span.clone(), field.name, findings)?;
    let read = body(&mut fields, span, findings);
    fields.close::<T>(findings);
    Some(read)
}

/// `[mesh]`.
#[derive(Debug)]
pub(crate) struct Mesh {
    pub(crate) name: Option<Name>,
    pub(crate) domain: Option<Domain>,
    /// What to point at when something of the whole mesh is wrong.
    pub(crate) span: Span,
}

impl Mesh {
    const NAME: Field<Name> = Field::required("name", "\"eshop\"", "What the mesh is called.");
    const DOMAIN: Field<Domain> =
        Field::new("domain", "The nodes' DNS zone and the SPIFFE trust domain. Default: `<name>.internal`.");
}

impl Table for Mesh {
    const FIELDS: &'static [&'static dyn AnyField] = &[&Self::NAME, &Self::DOMAIN];
}

impl Mesh {
    fn read(root: &mut Fields<'_, '_>, findings: &mut Findings) -> Self {
        let mesh = section(root, &Declaration::MESH, findings, |fields, span, findings| {
            let name: Option<Name> = fields.required(&Self::NAME, findings);
            let domain = match fields.entry(&Self::DOMAIN) {
                Some((_, value)) => Domain::read(value, findings),
                None => name.as_ref().and_then(|name| Domain::new(format!("{name}.internal")).ok()),
            };
            Self { name, domain, span }
        });
        mesh.unwrap_or_else(|| {
            if root.entry(&Declaration::MESH).is_none() {
                let finding = Finding::new(Rule::MissingField, "there is no `[mesh]`")
                    .at(0..0, "missing")
                    .help("begin with `[mesh]` and `name = \"eshop\"` below it");
                findings.push(finding);
            }
            Self { name: None, domain: None, span: 0..0 }
        })
    }
}

/// `[sizes] <name> = { … }`.
#[derive(Debug)]
pub(crate) struct Size {
    pub(crate) cpus: Option<u32>,
    pub(crate) memory: Option<Bytes>,
    pub(crate) disk: Bytes,
    pub(crate) reserved: Bytes,
}

impl Size {
    const CPUS: Field<Whole<1, 1024>> = Field::required("cpus", "1", "Whole cores.");
    const MEMORY: Field<Bytes> = Field::required("memory", "\"1.5GiB\"", "Memory.");
    const DISK: Field<Bytes> = Field::new("disk", "Disk.");
    const RESERVED: Field<Bytes> = Field::new("reserved", "The part of the memory kept for the operating system.");
}

impl Table for Size {
    const FIELDS: &'static [&'static dyn AnyField] = &[&Self::CPUS, &Self::MEMORY, &Self::DISK, &Self::RESERVED];
}

impl Size {
    fn read(fields: &mut Fields<'_, '_>, findings: &mut Findings) -> Self {
        Self {
            cpus: fields.required(&Self::CPUS, findings).map(|cpus| cpus.0),
            memory: fields.required(&Self::MEMORY, findings),
            disk: fields.or(&Self::DISK, Bytes::mib(8192), findings),
            reserved: fields.or(&Self::RESERVED, Bytes::mib(128), findings),
        }
    }
}

/// `[nodes.<name>]`.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) size: Option<Spanned<String>>,
    pub(crate) count: u16,
    pub(crate) runs: Vec<Spanned<String>>,
    /// Whether something in `runs` could not be read, so that nobody knows who else was meant.
    pub(crate) is_garbled: bool,
}

impl Node {
    const SIZE: Field<Spanned<String>> = Field::required("size", "\"small\"", "One of `[sizes]`.");
    const COUNT: Field<Whole<1, 256>> =
        Field::new("count", "How many alike: with more than one they are called `<name>-1`, `<name>-2` and so on.");
    const RUNS: Field<Vec<Spanned<String>>> = Field::new(
        "runs",
        "Services, databases and \"nats\". A database and \"nats\" stand on one node with `count = 1`.",
    );
}

impl Table for Node {
    const FIELDS: &'static [&'static dyn AnyField] = &[&Self::SIZE, &Self::COUNT, &Self::RUNS];
}

impl Node {
    fn read(fields: &mut Fields<'_, '_>, findings: &mut Findings) -> Self {
        let before = findings.len();
        let runs = fields.list(&Self::RUNS, findings);
        let is_garbled = findings.len() > before;
        Self {
            size: fields.required(&Self::SIZE, findings),
            count: small(fields.or(&Self::COUNT, Whole(1), findings).0),
            runs,
            is_garbled,
        }
    }
}

/// A number whose range was checked to be below 2¹⁶ when it was read.
fn small(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// `[services.<name>]`.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) runtime: Runtime,
    pub(crate) executable: Executable,
    pub(crate) jit: bool,
    /// Replaces what the runtime's template says.
    pub(crate) command: Option<Vec<Spanned<String>>>,
    pub(crate) args: Vec<Spanned<String>>,
    pub(crate) environment: Vec<(Spanned<String>, String)>,
    pub(crate) protocol: Protocol,
    /// None: one for each node that runs it.
    pub(crate) replicas: Option<Spanned<Replicas>>,
    pub(crate) memory: Bytes,
    pub(crate) cpu: Spanned<MilliCpu>,
    pub(crate) port: Spanned<Port>,
    pub(crate) database: Option<Spanned<String>>,
    pub(crate) route: Option<Route>,
    pub(crate) emits: Vec<Spanned<Subject>>,
    pub(crate) consumes: Vec<Spanned<Subject>>,
    pub(crate) calls: Vec<Spanned<String>>,
    pub(crate) secrets: Vec<Spanned<String>>,
    pub(crate) health: Health,
    pub(crate) stop_timeout: Millis,
    pub(crate) watchdog: Option<Millis>,
}

/// The port of whatever declares none.
const SERVICE_PORT: u16 = 8080;
const DATABASE_PORT: u16 = 5432;
const EVENTS_PORT: u16 = 4222;
const PUBLIC_PORT: u16 = 8443;

fn port(
    fields: &mut Fields<'_, '_>,
    field: &Field<Spanned<Port>>,
    default: u16,
    around: &Span,
    findings: &mut Findings,
) -> Spanned<Port> {
    let declared = fields.optional(field, findings);
    // None of the defaults is 0.
    declared.unwrap_or_else(|| Spanned::new(around.clone(), Port::new(default).unwrap_or(Port::MOST)))
}

impl Service {
    const RUNTIME: Field<Runtime> = Field::new("runtime", "How the executable is started. Default: `native`.");
    const PACKAGE: Field<Name> =
        Field::new("package", "Built from source under this name. Default, for `native`: the service's name.");
    const ARTIFACT: Field<String> = Field::new(
        "artifact",
        "A file that exists already, by its path from this file's folder down. Instead of `package`.",
    );
    const FILES: Field<String> = Field::new(
        "files",
        "What goes along with the artifact into an image or onto a machine: the file, a folder around it, or \".\" for everything beside this file. The default is the runtime's.",
    );
    const BASE: Field<String> =
        Field::new("base", "The container image that the artifact's image begins with. The default is the runtime's.");
    const JIT: Field<bool> = Field::new(
        "jit",
        "Whether it makes machine code while it runs, which hardening would otherwise forbid. The default is the runtime's.",
    );
    const COMMAND: Field<Vec<Spanned<String>>> = Field::new(
        "command",
        "The whole command line, when the runtime's is not the right one. `${ARTIFACT}` is the executable, `${PORT}` a variable of the environment.",
    );
    const ARGS: Field<Vec<Spanned<String>>> = Field::new("args", "Appended to the command line.");
    const ENVIRONMENT: Field<Variables> = Field::new("environment", "Further variables, not secret.");
    const PROTOCOL: Field<Protocol> = Field::new(
        "protocol",
        "`mesh`: speaks mutual TLS, verifies internal tokens, tells `$NOTIFY_SOCKET` when it is ready. `plain`: speaks HTTP/1.1 on `$HOST:$PORT`. Default: `mesh` for a native package, otherwise `plain`.",
    );
    const REPLICAS: Field<Spanned<Replicas>> =
        Field::new("replicas", "A number, or `{ min, start, max }`. Default: one for each machine that runs it.");
    const MEMORY: Field<Bytes> =
        Field::new("memory", "The most memory one instance may use. The default is the runtime's.");
    const CPU: Field<Spanned<MilliCpu>> = Field::new("cpu", "The most processor time one instance may use, in cores.");
    const PORT: Field<Spanned<Port>> =
        Field::new("port", "Each further instance on the same machine takes the next port.");
    const DATABASE: Field<Spanned<String>> = Field::new("database", "The one of `[databases]` it owns.");
    const ROUTE: Field<Route> = Field::new("route", "Its place at the gateway.");
    const EMITS: Field<Vec<Spanned<Subject>>> =
        Field::new("emits", "Subjects of the events it emits, beginning with a domain of its own.");
    const CONSUMES: Field<Vec<Spanned<Subject>>> =
        Field::new("consumes", "Subjects of the events it consumes, whole aggregate types.");
    const CALLS: Field<Vec<Spanned<String>>> = Field::new("calls", "Services it calls: they start before it.");
    const SECRETS: Field<Vec<Spanned<String>>> =
        Field::new("secrets", "Those of `[secrets]` it gets as files in `$CREDENTIALS_DIRECTORY`.");
    const HEALTH: Field<Health> = Field::new("health", "How an instance is probed.");
    const STOP_TIMEOUT: Field<Millis> = Field::new("stop_timeout", "From SIGTERM to SIGKILL.");
    const WATCHDOG: Field<Millis> =
        Field::new("watchdog", "The longest silence towards `$NOTIFY_SOCKET` before a restart; only for `mesh`.");
}

impl Table for Service {
    const FIELDS: &'static [&'static dyn AnyField] = &[
        &Self::RUNTIME,
        &Self::PACKAGE,
        &Self::ARTIFACT,
        &Self::FILES,
        &Self::BASE,
        &Self::JIT,
        &Self::COMMAND,
        &Self::ARGS,
        &Self::ENVIRONMENT,
        &Self::PROTOCOL,
        &Self::REPLICAS,
        &Self::MEMORY,
        &Self::CPU,
        &Self::PORT,
        &Self::DATABASE,
        &Self::ROUTE,
        &Self::EMITS,
        &Self::CONSUMES,
        &Self::CALLS,
        &Self::SECRETS,
        &Self::HEALTH,
        &Self::STOP_TIMEOUT,
        &Self::WATCHDOG,
    ];
}

impl Service {
    fn read(name: &Name, fields: &mut Fields<'_, '_>, findings: &mut Findings) -> Self {
        let span = fields.span();
        let runtime = fields.or(&Self::RUNTIME, Runtime::Native, findings);
        let command: Option<Vec<Spanned<String>>> = fields.optional(&Self::COMMAND, findings);
        let executable = executable(name, runtime, command.is_some(), fields, findings);
        let packaged = matches!(executable, Executable::Package(_));
        let default_protocol = if runtime == Runtime::Native && packaged { Protocol::Mesh } else { Protocol::Plain };
        let protocol = fields.or(&Self::PROTOCOL, default_protocol, findings);
        Self {
            runtime,
            executable,
            jit: fields.or(&Self::JIT, Template::of(runtime).jit, findings),
            command,
            args: fields.list(&Self::ARGS, findings),
            environment: environment(fields, findings),
            protocol,
            replicas: fields.optional(&Self::REPLICAS, findings),
            memory: fields.or(&Self::MEMORY, Template::of(runtime).memory, findings),
            cpu: fields.or(&Self::CPU, Spanned::new(span.clone(), MilliCpu::new(1000)), findings),
            port: port(fields, &Self::PORT, SERVICE_PORT, &span, findings),
            database: fields.optional(&Self::DATABASE, findings),
            route: section(fields, &Self::ROUTE, findings, Route::read).flatten(),
            emits: fields.list(&Self::EMITS, findings),
            consumes: fields.list(&Self::CONSUMES, findings),
            calls: fields.list(&Self::CALLS, findings),
            secrets: fields.list(&Self::SECRETS, findings),
            health: section(fields, &Self::HEALTH, findings, |fields, _, findings| {
                Health::read(fields, protocol, findings)
            })
            .unwrap_or_else(|| Health::of(protocol)),
            stop_timeout: fields.or(&Self::STOP_TIMEOUT, Millis::seconds(30), findings),
            watchdog: watchdog(protocol, fields, findings),
        }
    }

    /// Whether it has anything to do with the event bus.
    pub(crate) fn uses_events(&self) -> bool {
        !(self.emits.is_empty() && self.consumes.is_empty())
    }
}

/// What is started: `package`, `artifact`, or the package named like the service.
fn executable(
    name: &Name,
    runtime: Runtime,
    has_command: bool,
    fields: &mut Fields<'_, '_>,
    findings: &mut Findings,
) -> Executable {
    let span = fields.span();
    let implied = Executable::Package(name.clone());
    let around = Around { files: fields.entry(&Service::FILES), base: fields.entry(&Service::BASE) };
    match (fields.entry(&Service::PACKAGE), fields.entry(&Service::ARTIFACT)) {
        (Some((package, _)), Some((artifact, _))) => {
            let finding =
                Finding::new(Rule::ConflictingFields, format!("`services.{name}` has both a package and an artifact"))
                    .at(artifact, "either this")
                    .at(package, "or this")
                    .help("`package` is built from source, `artifact` is a file that exists already");
            findings.push(finding);
            implied
        }
        (Some((_, value)), None) => {
            around.refuse(findings);
            String::read(value, findings)
                .and_then(|text| declared_name(&text, value.span(), findings))
                .map_or(implied, Executable::Package)
        }
        (None, Some((_, value))) => artifact(value, runtime, has_command, findings)
            .and_then(|path| around.read(path, runtime, findings))
            .map_or(implied, Executable::Artifact),
        (None, None) if runtime == Runtime::Native => {
            around.refuse(findings);
            implied
        }
        (None, None) => {
            let template = Template::of(runtime);
            let ending = template.artifacts.first().copied().unwrap_or_default();
            let finding = Finding::new(Rule::MissingField, format!("`services.{name}` does not say what to start"))
                .at(span, "`artifact` is missing")
                .help(format!(
                    "add `artifact = \"build/{name}{ending}\"`, or `package = \"…\"` if the flake builds it"
                ));
            findings.push(finding);
            implied
        }
    }
}

/// What is declared of an artifact besides its path.
struct Around<'v, 't> {
    files: Option<(Span, &'v Value<'t>)>,
    base: Option<(Span, &'v Value<'t>)>,
}

impl Around<'_, '_> {
    fn read(self, path: String, runtime: Runtime, findings: &mut Findings) -> Option<Artifact> {
        let template = Template::of(runtime);
        let files = match self.files {
            Some((_, value)) => files(value, &path, findings),
            None => Some(template.files.of(&path).to_owned()),
        };
        let base = match self.base {
            Some((_, value)) => base(value, findings),
            None => Some(template.base.to_owned()),
        };
        Some(Artifact { path, files: files?, base: base? })
    }

    /// Reports both, where there is no artifact.
    fn refuse(self, findings: &mut Findings) {
        for (name, entry) in [("files", self.files), ("base", self.base)] {
            if let Some((key, _)) = entry {
                let finding = Finding::new(Rule::ConflictingFields, format!("`{name}` goes with an `artifact` alone"))
                    .at(key, "means nothing here")
                    .help("take it away: what is built as a package brings all it needs");
                findings.push(finding);
            }
        }
    }
}

/// What goes along with the artifact at `path`.
fn files(value: &Value<'_>, path: &str, findings: &mut Findings) -> Option<String> {
    let files = String::read(value, findings)?;
    let around = path.strip_prefix(files.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if files == Artifact::EVERYTHING || (lies_below(&files) && around) {
        return Some(files);
    }
    let folder = Files::Folder.of(path);
    let finding = Finding::new(Rule::InvalidValue, format!("`{}` does not hold the artifact", files.escape_debug()))
        .at(value.span(), format!("`{}` must be in it", path.escape_debug()))
        .help(format!("a folder that has it: \"{}\"; or \".\" for everything beside this file", folder.escape_debug()));
    findings.push(finding);
    None
}

/// A reference to a container image: `host/path:tag` or `host/path@digest`.
fn base(value: &Value<'_>, findings: &mut Findings) -> Option<String> {
    let text = String::read(value, findings)?;
    let valid = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':' | '@'));
    if valid {
        return Some(text);
    }
    let finding =
        Finding::new(Rule::InvalidValue, format!("`{}` does not name a container image", text.escape_debug()))
            .at(value.span(), "here")
            .help("such as \"docker.io/library/eclipse-temurin:21-jre\"");
    findings.push(finding);
    None
}

/// Whether a path is one from this file's folder down.
fn lies_below(path: &str) -> bool {
    !path.contains(['\\', '\0', '\n']) && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// A file beside or below `mesh.toml`.
fn artifact(value: &Value<'_>, runtime: Runtime, has_command: bool, findings: &mut Findings) -> Option<String> {
    let path = String::read(value, findings)?;
    if !lies_below(&path) {
        let finding =
            Finding::new(Rule::InvalidValue, format!("`{}` is not a file below this folder", path.escape_debug()))
                .at(value.span(), "here")
                .help("write the path from this file's folder down, without `.` and `..`: \"build/app.jar\"");
        findings.push(finding);
        return None;
    }
    let template = Template::of(runtime);
    if !has_command && !template.artifacts.is_empty() && !template.artifacts.iter().any(|ending| path.ends_with(ending))
    {
        let finding = Finding::new(Rule::InvalidValue, format!("runtime `{}` does not know how to start `{path}`", template.name))
            .at(value.span(), format!("should end in {}", template.artifacts.join(" or ")))
            .help("name such a file, choose another `runtime`, or say how it is started with `command = [\"…\", \"${ARTIFACT}\"]`");
        findings.push(finding);
        return None;
    }
    Some(path)
}

/// `environment = { … }`: any names, texts for values.
struct Variables;

impl Shape for Variables {
    fn schema() -> Json {
        json!({ "type": "object", "additionalProperties": String::schema() })
    }
}

fn environment(fields: &mut Fields<'_, '_>, findings: &mut Findings) -> Vec<(Spanned<String>, String)> {
    let Some((_, value)) = fields.entry(&Service::ENVIRONMENT) else {
        return Vec::new();
    };
    let Some(table) = value.get_ref().as_table() else {
        return wrong_type(value, "a table such as { LOG_LEVEL = \"debug\" }", findings).unwrap_or_default();
    };
    let variables = table.iter().filter_map(|(key, value)| {
        let text = String::read(value, findings)?;
        if text.contains('\0') {
            findings.push(
                Finding::new(Rule::InvalidValue, "an environment variable cannot hold a NUL").at(value.span(), "here"),
            );
            return None;
        }
        Some((Spanned::new(key.span(), key.get_ref().to_string()), text))
    });
    variables.collect()
}

/// Only a service of the mesh pings a watchdog; it does so by default.
fn watchdog(protocol: Protocol, fields: &mut Fields<'_, '_>, findings: &mut Findings) -> Option<Millis> {
    let declared = fields.entry(&Service::WATCHDOG);
    match (protocol, declared) {
        (Protocol::Mesh, None) => Some(Millis::seconds(10)),
        (Protocol::Plain, None) => None,
        (Protocol::Mesh, Some((_, value))) => Millis::read(value, findings),
        (Protocol::Plain, Some((span, _))) => {
            let finding = Finding::new(Rule::ConflictingFields, "a plain service sends no watchdog pings")
                .at(span, "would restart it for ever")
                .help("take it away; the health check notices a plain service that hangs. If this one does ping `$NOTIFY_SOCKET`, say `protocol = \"mesh\"`");
            findings.push(finding);
            None
        }
    }
}

impl Read for Runtime {
    fn read(value: &Value<'_>, findings: &mut Findings) -> Option<Self> {
        choice(value, &Self::ALL.map(|runtime| (Template::of(runtime).name, runtime)), findings)
    }
}

impl Shape for Runtime {
    fn schema() -> Json {
        one_of(Self::ALL.map(|runtime| Template::of(runtime).name))
    }
}

/// What is one of a few words: the words, and what they mean.
trait Words: Sized + 'static {
    const WORDS: &'static [(&'static str, Self)];
}

fn words<T: Words>() -> Json {
    one_of(T::WORDS.iter().map(|(word, _)| *word))
}

impl Words for Protocol {
    const WORDS: &'static [(&'static str, Self)] = &[("mesh", Self::Mesh), ("plain", Self::Plain)];
}

impl Read for Protocol {
    fn read(value: &Value<'_>, findings: &mut Findings) -> Option<Self> {
        choice(value, Self::WORDS, findings)
    }
}

impl Shape for Protocol {
    fn schema() -> Json {
        words::<Self>()
    }
}

impl Words for RouteAuth {
    const WORDS: &'static [(&'static str, Self)] =
        &[("required", Self::Required), ("optional", Self::Optional), ("none", Self::None)];
}

impl Read for RouteAuth {
    fn read(value: &Value<'_>, findings: &mut Findings) -> Option<Self> {
        choice(value, Self::WORDS, findings)
    }
}

impl Shape for RouteAuth {
    fn schema() -> Json {
        words::<Self>()
    }
}

impl Words for TokenType {
    const WORDS: &'static [(&'static str, Self)] = &[("at+jwt", Self::AtJwt), ("JWT", Self::Jwt)];
}

impl Read for TokenType {
    fn read(value: &Value<'_>, findings: &mut Findings) -> Option<Self> {
        choice(value, Self::WORDS, findings)
    }
}

impl Shape for TokenType {
    fn schema() -> Json {
        words::<Self>()
    }
}

impl Read for Algorithm {
    fn read(value: &Value<'_>, findings: &mut Findings) -> Option<Self> {
        let text = value.get_ref().as_str().unwrap_or_default();
        if text.eq_ignore_ascii_case("none") || text.to_ascii_uppercase().starts_with("HS") {
            let finding = Finding::new(Rule::InvalidValue, format!("`{text}` proves nothing here"))
                .at(value.span(), "whoever can verify such a token can make one")
                .help(format!("have the issuer sign with one of {}", Self::ALL.map(Self::as_str).join(", ")));
            findings.push(finding);
            return None;
        }
        choice(value, &Self::ALL.map(|algorithm| (algorithm.as_str(), algorithm)), findings)
    }
}

impl Shape for Algorithm {
    fn schema() -> Json {
        one_of(Self::ALL.map(Self::as_str))
    }
}

/// `replicas = { … }`.
struct Scaling;

type Count = Whole<1, { Replicas::MOST as u32 }>;

impl Scaling {
    const MIN: Field<Count> = Field::new("min", "The fewest it may be scaled to. Default: 1.");
    const START: Field<Count> = Field::new("start", "How many are started at first. Default: `min`.");
    const MAX: Field<Count> = Field::new("max", "The most it may be scaled to. Default: `start`.");
}

impl Table for Scaling {
    const FIELDS: &'static [&'static dyn AnyField] = &[&Self::MIN, &Self::START, &Self::MAX];
}

impl Shape for Replicas {
    fn schema() -> Json {
        json!({ "oneOf": [Count::schema(), Scaling::schema()] })
    }
}

impl Read for Replicas {
    /// A number, or a table of which anything may be left out: `min` is 1, `start` is `min`, `max` is `start`.
    fn read(value: &Value<'_>, findings: &mut Findings) -> Option<Self> {
        let (min, start, max) = match value.get_ref() {
            DeValue::Integer(_) => {
                let count = small(Count::read(value, findings)?.0);
                (count, count, count)
            }
            DeValue::Table(_) => {
                let mut fields = Fields::of(value, value.span(), "replicas", findings)?;
                let mut failed = false;
                let mut number = |field: &Field<Count>, default| match fields.entry(field) {
                    None => default,
                    Some((_, value)) => Count::read(value, findings).map_or_else(
                        || {
                            failed = true;
                            default
                        },
                        |count| small(count.0),
                    ),
                };
                let min = number(&Scaling::MIN, 1);
                let start = number(&Scaling::START, min);
                let max = number(&Scaling::MAX, start);
                fields.close::<Scaling>(findings);
                if failed {
                    return None;
                }
                (min, start, max)
            }
            _ => return wrong_type(value, "a number, or a table such as { min = 1, start = 2, max = 4 },", findings),
        };
        Self::new(min, start, max).or_else(|| {
            let finding =
                Finding::new(Rule::ReplicasOrder, format!("min {min}, start {start}, max {max} are not in this order"))
                    .at(value.span(), "min ≤ start ≤ max must hold")
                    .help("`min` and `max` bound scaling, `start` is how many are started at first");
            findings.push(finding);
            None
        })
    }
}

/// `route = { … }`.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) prefix: Spanned<UrlPath>,
    pub(crate) auth: Spanned<RouteAuth>,
}

impl Route {
    const PREFIX: Field<Spanned<UrlPath>> =
        Field::required("prefix", "\"/items\"", "The path at the gateway, with all below it. It is not stripped.");
    const AUTH: Field<Spanned<RouteAuth>> = Field::new(
        "auth",
        "`required`: no valid token, no entry. `optional`: a token, if any, must be valid. `none`: tokens are not looked at.",
    );
}

impl Table for Route {
    const FIELDS: &'static [&'static dyn AnyField] = &[&Self::PREFIX, &Self::AUTH];
}

impl Route {
    fn read(fields: &mut Fields<'_, '_>, span: Span, findings: &mut Findings) -> Option<Self> {
        let auth = fields.or(&Self::AUTH, Spanned::new(span, RouteAuth::Required), findings);
        let prefix = fields.required(&Self::PREFIX, findings)?;
        Some(Self { prefix, auth })
    }
}

/// `health = { … }`.
#[derive(Debug)]
pub(crate) struct Health {
    pub(crate) path: Option<UrlPath>,
    pub(crate) interval: Millis,
    pub(crate) timeout: Millis,
    pub(crate) unhealthy_after: u8,
    pub(crate) healthy_after: u8,
}

impl Health {
    const PATH: Field<UrlPath> = Field::new(
        "path",
        "GET must answer 2xx. Default: `/readyz` for `mesh`; for `plain` none: accepting a TCP connection is enough.",
    );
    const INTERVAL: Field<Millis> = Field::new("interval", "From one probe to the next.");
    const TIMEOUT: Field<Millis> = Field::new("timeout", "For one probe.");
    const UNHEALTHY_AFTER: Field<Whole<1, 100>> =
        Field::new("unhealthy_after", "So many failures in a row: no traffic.");
    const HEALTHY_AFTER: Field<Whole<1, 100>> =
        Field::new("healthy_after", "So many successes in a row: traffic again.");
}

impl Table for Health {
    const FIELDS: &'static [&'static dyn AnyField] =
        &[&Self::PATH, &Self::INTERVAL, &Self::TIMEOUT, &Self::UNHEALTHY_AFTER, &Self::HEALTHY_AFTER];
}

impl Health {
    fn of(protocol: Protocol) -> Self {
        let path = match protocol {
            Protocol::Mesh => UrlPath::new("/readyz").ok(),
            Protocol::Plain => None,
        };
        Self { path, interval: Millis::seconds(1), timeout: Millis::seconds(1), unhealthy_after: 3, healthy_after: 1 }
    }

    fn read(fields: &mut Fields<'_, '_>, protocol: Protocol, findings: &mut Findings) -> Self {
        let default = Self::of(protocol);
        let times = |times: Whole<1, 100>| u8::try_from(times.0).unwrap_or(u8::MAX);
        Self {
            path: fields.optional(&Self::PATH, findings).or(default.path),
            interval: fields.or(&Self::INTERVAL, default.interval, findings),
            timeout: fields.or(&Self::TIMEOUT, default.timeout, findings),
            unhealthy_after: fields.optional(&Self::UNHEALTHY_AFTER, findings).map_or(default.unhealthy_after, times),
            healthy_after: fields.optional(&Self::HEALTHY_AFTER, findings).map_or(default.healthy_after, times),
        }
    }
}

/// `[databases.<name>]`.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) owner: Option<Spanned<String>>,
    pub(crate) memory: Bytes,
    pub(crate) cpu: Spanned<MilliCpu>,
    pub(crate) port: Spanned<Port>,
}

impl Database {
    const OWNER: Field<Spanned<String>> =
        Field::new("owner", "The service that owns it. Default: the one that has it for `database`.");
    const MEMORY: Field<Bytes> = Field::new("memory", "The most memory it may use.");
    const CPU: Field<Spanned<MilliCpu>> = Field::new("cpu", "The most processor time it may use, in cores.");
    const PORT: Field<Spanned<Port>> = Field::new("port", "Two on one machine need two ports.");
}

impl Table for Database {
    const FIELDS: &'static [&'static dyn AnyField] = &[&Self::OWNER, &Self::MEMORY, &Self::CPU, &Self::PORT];
}

impl Database {
    fn read(fields: &mut Fields<'_, '_>, findings: &mut Findings) -> Self {
        let span = fields.span();
        Self {
            owner: fields.optional(&Self::OWNER, findings),
            memory: fields.or(&Self::MEMORY, Bytes::mib(256), findings),
            cpu: fields.or(&Self::CPU, Spanned::new(span.clone(), MilliCpu::new(1000)), findings),
            port: port(fields, &Self::PORT, DATABASE_PORT, &span, findings),
        }
    }
}

/// `[secrets.<name>]`.
#[derive(Debug)]
pub(crate) struct Secret {
    pub(crate) source: SecretSource,
    pub(crate) optional: bool,
}

/// Where a secret comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SecretSource {
    Generated,
    Provided,
}

impl Secret {
    const SOURCE: Field<SecretSource> = Field::new(
        "source",
        "`provided`: you put the file into the credentials folder. `generated`: made at random. Default: `provided`.",
    );
    const OPTIONAL: Field<bool> = Field::new("optional", "Whether a service starts without it.");
}

impl Words for SecretSource {
    const WORDS: &'static [(&'static str, Self)] = &[("generated", Self::Generated), ("provided", Self::Provided)];
}

impl Read for SecretSource {
    fn read(value: &Value<'_>, findings: &mut Findings) -> Option<Self> {
        choice(value, Self::WORDS, findings)
    }
}

impl Shape for SecretSource {
    fn schema() -> Json {
        words::<Self>()
    }
}

impl Table for Secret {
    const FIELDS: &'static [&'static dyn AnyField] = &[&Self::SOURCE, &Self::OPTIONAL];
}

impl Secret {
    fn read(fields: &mut Fields<'_, '_>, findings: &mut Findings) -> Self {
        Self {
            source: fields.or(&Self::SOURCE, SecretSource::Provided, findings),
            optional: fields.or(&Self::OPTIONAL, false, findings),
        }
    }
}

/// `[events]`.
#[derive(Debug)]
pub(crate) struct Events {
    pub(crate) memory: Bytes,
    pub(crate) cpu: Spanned<MilliCpu>,
    pub(crate) storage: Bytes,
    pub(crate) port: Spanned<Port>,
    pub(crate) span: Span,
}

impl Events {
    const MEMORY: Field<Bytes> = Field::new("memory", "The most memory it may use.");
    const CPU: Field<Spanned<MilliCpu>> = Field::new("cpu", "The most processor time it may use, in cores.");
    const STORAGE: Field<Bytes> = Field::new("storage", "The most disk its streams may use.");
    const PORT: Field<Spanned<Port>> = Field::new("port", "Where it listens.");
}

impl Table for Events {
    const FIELDS: &'static [&'static dyn AnyField] = &[&Self::MEMORY, &Self::CPU, &Self::STORAGE, &Self::PORT];
}

impl Events {
    fn read(fields: &mut Fields<'_, '_>, span: Span, findings: &mut Findings) -> Self {
        Self {
            memory: fields.or(&Self::MEMORY, Bytes::mib(256), findings),
            cpu: fields.or(&Self::CPU, Spanned::new(span.clone(), MilliCpu::new(1000)), findings),
            storage: fields.or(&Self::STORAGE, Bytes::mib(1024), findings),
            port: port(fields, &Self::PORT, EVENTS_PORT, &span, findings),
            span,
        }
    }
}

/// `[gateway]`.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// None: the service named `gateway`.
    pub(crate) service: Option<Spanned<String>>,
    /// None: the mesh's domain.
    pub(crate) host: Option<Domain>,
    pub(crate) port: Port,
    pub(crate) port_span: Option<Span>,
    pub(crate) limits: Limits,
}

impl Gateway {
    const SERVICE: Field<Spanned<String>> =
        Field::new("service", "The service that is the gateway. Default: `gateway`.");
    const HOST: Field<Domain> = Field::new("host", "Its public host name. Default: the mesh's domain.");
    const PORT: Field<Spanned<Port>> = Field::new("port", "Its public port.");
    const LIMITS: Field<Limits> = Field::new("limits", "What one client may cost.");
}

impl Table for Gateway {
    const FIELDS: &'static [&'static dyn AnyField] = &[&Self::SERVICE, &Self::HOST, &Self::PORT, &Self::LIMITS];
}

impl Gateway {
    fn read(root: &mut Fields<'_, '_>, findings: &mut Findings) -> Self {
        let gateway = section(root, &Declaration::GATEWAY, findings, |fields, span, findings| {
            let port = port(fields, &Self::PORT, PUBLIC_PORT, &span, findings);
            Self {
                service: fields.optional(&Self::SERVICE, findings),
                host: fields.optional(&Self::HOST, findings),
                port: *port.get_ref(),
                port_span: Some(port.span()),
                limits: section(fields, &Self::LIMITS, findings, |fields, _, findings| Limits::read(fields, findings))
                    .unwrap_or_default(),
            }
        });
        gateway.unwrap_or_else(|| Self {
            service: None,
            host: None,
            port: Port::new(PUBLIC_PORT).unwrap_or(Port::MOST),
            port_span: None,
            limits: Limits::default(),
        })
    }
}

/// `limits` of `[gateway]`.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) max_body: Bytes,
    pub(crate) max_header: Bytes,
    pub(crate) max_connections: u32,
    pub(crate) max_requests: u32,
    pub(crate) connect_timeout: Millis,
    pub(crate) header_timeout: Millis,
    pub(crate) total_timeout: Millis,
    pub(crate) idle_timeout: Millis,
    pub(crate) retry_budget: u8,
    pub(crate) rate: Option<Rate>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body: Bytes::mib(1),
            max_header: Bytes::new(16 << 10),
            max_connections: 10_000,
            max_requests: 1_000,
            connect_timeout: Millis::seconds(1),
            header_timeout: Millis::seconds(10),
            total_timeout: Millis::seconds(30),
            idle_timeout: Millis::seconds(60),
            retry_budget: 20,
            rate: None,
        }
    }
}

impl Limits {
    const MAX_BODY: Field<Bytes> = Field::new("max_body", "Of a request; above it 413.");
    const MAX_HEADER: Field<Spanned<Bytes>> = Field::new("max_header", "Of a request; above it 431.");
    const MAX_CONNECTIONS: Field<Whole<1, 1_000_000>> = Field::new("max_connections", "Public connections at once.");
    const MAX_REQUESTS: Field<Whole<1, 1_000_000>> =
        Field::new("max_requests", "Requests in flight at once; above it 503.");
    const CONNECT_TIMEOUT: Field<Millis> = Field::new("connect_timeout", "To an instance, TLS included.");
    const HEADER_TIMEOUT: Field<Millis> =
        Field::new("header_timeout", "For a client to send a request's header section.");
    const TOTAL_TIMEOUT: Field<Millis> = Field::new("total_timeout", "From then to the end of the response.");
    const IDLE_TIMEOUT: Field<Millis> = Field::new("idle_timeout", "For a public connection without a request.");
    const RETRY_BUDGET: Field<Whole<0, 100>> =
        Field::new("retry_budget", "Percent of the requests that retries may add.");
    const RATE: Field<Rate> = Field::new("rate", "Requests of one client address. Default: not limited.");
}

impl Table for Limits {
    const FIELDS: &'static [&'static dyn AnyField] = &[
        &Self::MAX_BODY,
        &Self::MAX_HEADER,
        &Self::MAX_CONNECTIONS,
        &Self::MAX_REQUESTS,
        &Self::CONNECT_TIMEOUT,
        &Self::HEADER_TIMEOUT,
        &Self::TOTAL_TIMEOUT,
        &Self::IDLE_TIMEOUT,
        &Self::RETRY_BUDGET,
        &Self::RATE,
    ];
}

impl Limits {
    fn read(fields: &mut Fields<'_, '_>, findings: &mut Findings) -> Self {
        let default = Self::default();
        Self {
            max_body: fields.or(&Self::MAX_BODY, default.max_body, findings),
            max_header: max_header(fields, findings).unwrap_or(default.max_header),
            max_connections: fields.or(&Self::MAX_CONNECTIONS, Whole(default.max_connections), findings).0,
            max_requests: fields.or(&Self::MAX_REQUESTS, Whole(default.max_requests), findings).0,
            connect_timeout: fields.or(&Self::CONNECT_TIMEOUT, default.connect_timeout, findings),
            header_timeout: fields.or(&Self::HEADER_TIMEOUT, default.header_timeout, findings),
            total_timeout: fields.or(&Self::TOTAL_TIMEOUT, default.total_timeout, findings),
            idle_timeout: fields.or(&Self::IDLE_TIMEOUT, default.idle_timeout, findings),
            retry_budget: fields
                .optional(&Self::RETRY_BUDGET, findings)
                .and_then(|percent| u8::try_from(percent.0).ok())
                .unwrap_or(default.retry_budget),
            rate: section(fields, &Self::RATE, findings, |fields, _, findings| Rate::read(fields, findings)).flatten(),
        }
    }
}

/// The largest head that a service surely takes. It takes 64 KiB, counted and on the wire; there HPACK may need 28 bits for a
/// byte, and the gateway's own fields come on top. A head beyond that ends the connection all clients share.
const MOST_HEADER: Bytes = Bytes::new(24 << 10);

fn max_header(fields: &mut Fields<'_, '_>, findings: &mut Findings) -> Option<Bytes> {
    let declared = fields.optional(&Limits::MAX_HEADER, findings)?;
    if *declared.get_ref() > MOST_HEADER {
        let finding = Finding::new(Rule::InvalidValue, "not every service could take so large a header")
            .at(declared.span(), "here")
            .help(format!(
                "at most \"{MOST_HEADER}\": what the gateway lets in must be small enough for whoever is behind it"
            ));
        findings.push(finding);
        return None;
    }
    Some(declared.into_inner())
}

/// `rate = { … }`: requests a second from one client address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) per_second: u32,
    pub(crate) burst: u32,
}

impl Rate {
    const PER_SECOND: Field<Whole<1, 1_000_000>> = Field::required("per_second", "50", "Requests a second.");
    const BURST: Field<Whole<1, 1_000_000>> = Field::new("burst", "So many at once. Default: `per_second`.");
}

impl Table for Rate {
    const FIELDS: &'static [&'static dyn AnyField] = &[&Self::PER_SECOND, &Self::BURST];
}

impl Rate {
    fn read(fields: &mut Fields<'_, '_>, findings: &mut Findings) -> Option<Self> {
        let burst = fields.optional(&Self::BURST, findings);
        let per_second = fields.required(&Self::PER_SECOND, findings)?.0;
        Some(Self { per_second, burst: burst.map_or(per_second, |burst| burst.0) })
    }
}

/// `[auth]`.
#[derive(Debug, Default)]
pub(crate) struct Auth {
    /// A service of the mesh or an https URL; none: the service `identity`.
    pub(crate) issuer: Option<Spanned<String>>,
    /// None: `https://<domain>`.
    pub(crate) audience: Option<String>,
    /// None: `at+jwt`.
    pub(crate) typ: Option<Spanned<TokenType>>,
    pub(crate) algorithms: Option<Spanned<Vec<Algorithm>>>,
    /// None: `roles`.
    pub(crate) roles_claim: Option<String>,
}

impl Auth {
    const ISSUER: Field<Spanned<String>> =
        Field::new("issuer", "A service of the mesh, or the https URL of a provider outside.");
    const AUDIENCE: Field<String> =
        Field::new("audience", "The `aud` a token must carry. Default: `https://<domain>`.");
    const TYP: Field<Spanned<TokenType>> =
        Field::new("typ", "What a token's header must say it is (RFC 9068). Default: `at+jwt`.");
    const ALGORITHMS: Field<Vec<Algorithm>> =
        Field::new("algorithms", "Signatures accepted, whatever a token's header says.");
    const ROLES_CLAIM: Field<String> = Field::new("roles_claim", "The claim that lists the caller's roles.");
}

impl Table for Auth {
    const FIELDS: &'static [&'static dyn AnyField] =
        &[&Self::ISSUER, &Self::AUDIENCE, &Self::TYP, &Self::ALGORITHMS, &Self::ROLES_CLAIM];
}

impl Auth {
    fn read(root: &mut Fields<'_, '_>, findings: &mut Findings) -> Self {
        let auth = section(root, &Declaration::AUTH, findings, |fields, _, findings| Self {
            issuer: fields.optional(&Self::ISSUER, findings),
            audience: filled(fields, &Self::AUDIENCE, findings),
            typ: fields.optional(&Self::TYP, findings),
            algorithms: algorithms(fields, findings),
            roles_claim: filled(fields, &Self::ROLES_CLAIM, findings),
        });
        auth.unwrap_or_default()
    }
}

/// Nothing unless there is one and all are known.
fn algorithms(fields: &mut Fields<'_, '_>, findings: &mut Findings) -> Option<Spanned<Vec<Algorithm>>> {
    let (_, value) = fields.entry(&Auth::ALGORITHMS)?;
    let before = findings.len();
    let algorithms = Spanned::<Vec<Algorithm>>::read(value, findings)?;
    if algorithms.get_ref().is_empty() && findings.len() == before {
        let finding = Finding::new(Rule::InvalidValue, "no algorithm is accepted, and so no token")
            .at(value.span(), "empty")
            .help("list those of the issuer, or leave `algorithms` out");
        findings.push(finding);
    }
    (findings.len() == before).then_some(algorithms)
}

/// A text that says something.
fn filled(fields: &mut Fields<'_, '_>, field: &Field<String>, findings: &mut Findings) -> Option<String> {
    let (_, value) = fields.entry(field)?;
    let text = String::read(value, findings)?;
    if text.trim().is_empty() {
        let finding = Finding::new(Rule::InvalidValue, format!("`{}` is empty", field.name));
        findings.push(finding.at(value.span(), "here"));
        return None;
    }
    Some(text)
}
