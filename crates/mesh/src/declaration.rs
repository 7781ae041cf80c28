//! The declaration: what a person wrote, typed, with the place of whatever another part of it may disagree with.
//!
//! Every field and its default stands here, and nowhere else but in `docs/mesh-toml.md`. What fields mean together is `resolve`'s business.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostics::{Finding, Findings, Rule, Span};
use crate::name::{Domain, Name};
use crate::path::UrlPath;
use crate::plan::{Algorithm, Executable, Protocol, Replicas, RouteAuth, Runtime, TokenType};
use crate::read::{Entries, Fields, Read, Value, Whole, choice, declared_name, whole, wrong_type};
use crate::runtimes::Template;
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
    pub(crate) fn read(document: &Spanned<DeTable<'_>>, findings: &mut Findings) -> Self {
        let mut root = Fields::new(document.get_ref(), 0..0, "mesh.toml");
        let declaration = Self {
            mesh: Mesh::read(&mut root, findings),
            sizes: Entries::read(&mut root, "sizes", findings, |_, fields, findings| Size::read(fields, findings)),
            nodes: Entries::read(&mut root, "nodes", findings, |_, fields, findings| Node::read(fields, findings)),
            services: Entries::read(&mut root, "services", findings, Service::read),
            databases: Entries::read(&mut root, "databases", findings, |_, fields, findings| {
                Database::read(fields, findings)
            }),
            secrets: Entries::read(&mut root, "secrets", findings, |_, fields, findings| {
                Secret::read(fields, findings)
            }),
            events: section(&mut root, "events", findings, Events::read),
            gateway: Gateway::read(&mut root, findings),
            auth: Auth::read(&mut root, findings),
        };
        root.close(findings);
        declaration
    }
}

/// Reads the table `[<field>]` by `body`, if it is there.
fn section<T>(
    parent: &mut Fields<'_, '_>,
    field: &'static str,
    findings: &mut Findings,
    body: impl FnOnce(&mut Fields<'_, '_>, Span, &mut Findings) -> T,
) -> Option<T> {
    let (span, value) = parent.entry(field)?;
    let mut fields = Fields::of(value, span.clone(), field, findings)?;
    let read = body(&mut fields, span, findings);
    fields.close(findings);
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
    fn read(root: &mut Fields<'_, '_>, findings: &mut Findings) -> Self {
        let mesh = section(root, "mesh", findings, |fields, span, findings| {
            let name: Option<Name> = fields.required("name", "\"eshop\"", findings);
            let domain = match fields.entry("domain") {
                Some((_, value)) => Domain::read(value, findings),
                None => name.as_ref().and_then(|name| Domain::new(format!("{name}.internal")).ok()),
            };
            Self { name, domain, span }
        });
        mesh.unwrap_or_else(|| {
            if root.entry("mesh").is_none() {
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
    fn read(fields: &mut Fields<'_, '_>, findings: &mut Findings) -> Self {
        Self {
            cpus: fields.required::<Whole<1, 1024>>("cpus", "1", findings).map(|cpus| cpus.0),
            memory: fields.required("memory", "\"1.5GiB\"", findings),
            disk: fields.or("disk", Bytes::mib(8192), findings),
            reserved: fields.or("reserved", Bytes::mib(128), findings),
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
    fn read(fields: &mut Fields<'_, '_>, findings: &mut Findings) -> Self {
        let before = findings.len();
        let runs = fields.list("runs", findings);
        let is_garbled = findings.len() > before;
        Self {
            size: fields.required("size", "\"small\"", findings),
            count: small(fields.or::<Whole<1, 256>>("count", Whole(1), findings).0),
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

fn port(fields: &mut Fields<'_, '_>, default: u16, around: &Span, findings: &mut Findings) -> Spanned<Port> {
    let declared = fields.optional("port", findings);
    // None of the defaults is 0.
    declared.unwrap_or_else(|| Spanned::new(around.clone(), Port::new(default).unwrap_or(Port::MOST)))
}

impl Service {
    fn read(name: &Name, fields: &mut Fields<'_, '_>, findings: &mut Findings) -> Self {
        let span = fields.span();
        let runtime = fields.or("runtime", Runtime::Native, findings);
        let command: Option<Vec<Spanned<String>>> = fields.optional("command", findings);
        let executable = executable(name, runtime, command.is_some(), fields, findings);
        let packaged = matches!(executable, Executable::Package(_));
        let default_protocol = if runtime == Runtime::Native && packaged { Protocol::Mesh } else { Protocol::Plain };
        let protocol = fields.or("protocol", default_protocol, findings);
        Self {
            runtime,
            executable,
            command,
            args: fields.list("args", findings),
            environment: environment(fields, findings),
            protocol,
            replicas: fields.optional("replicas", findings),
            memory: fields.or("memory", Template::of(runtime).memory, findings),
            cpu: fields.or("cpu", Spanned::new(span.clone(), MilliCpu::new(1000)), findings),
            port: port(fields, SERVICE_PORT, &span, findings),
            database: fields.optional("database", findings),
            route: section(fields, "route", findings, Route::read).flatten(),
            emits: fields.list("emits", findings),
            consumes: fields.list("consumes", findings),
            calls: fields.list("calls", findings),
            secrets: fields.list("secrets", findings),
            health: section(fields, "health", findings, |fields, _, findings| Health::read(fields, protocol, findings))
                .unwrap_or_else(|| Health::of(protocol)),
            stop_timeout: fields.or("stop_timeout", Millis::seconds(30), findings),
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
    match (fields.entry("package"), fields.entry("artifact")) {
        (Some((package, _)), Some((artifact, _))) => {
            let finding =
                Finding::new(Rule::ConflictingFields, format!("`services.{name}` has both a package and an artifact"))
                    .at(artifact, "either this")
                    .at(package, "or this")
                    .help("`package` is built from source, `artifact` is a file that exists already");
            findings.push(finding);
            implied
        }
        (Some((_, value)), None) => String::read(value, findings)
            .and_then(|text| declared_name(&text, value.span(), findings))
            .map_or(implied, Executable::Package),
        (None, Some((_, value))) => {
            artifact(value, runtime, has_command, findings).map_or(implied, Executable::Artifact)
        }
        (None, None) if runtime == Runtime::Native => implied,
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

/// A file beside or below `mesh.toml`.
fn artifact(value: &Value<'_>, runtime: Runtime, has_command: bool, findings: &mut Findings) -> Option<String> {
    let path = String::read(value, findings)?;
    let inside = !path.is_empty()
        && !path.contains(['\\', '\0', '\n'])
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if !inside {
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

fn environment(fields: &mut Fields<'_, '_>, findings: &mut Findings) -> Vec<(Spanned<String>, String)> {
    let Some((_, value)) = fields.entry("environment") else {
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
    let declared = fields.entry("watchdog");
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

impl Read for Protocol {
    fn read(value: &Value<'_>, findings: &mut Findings) -> Option<Self> {
        choice(value, &[("mesh", Self::Mesh), ("plain", Self::Plain)], findings)
    }
}

impl Read for RouteAuth {
    fn read(value: &Value<'_>, findings: &mut Findings) -> Option<Self> {
        choice(value, &[("required", Self::Required), ("optional", Self::Optional), ("none", Self::None)], findings)
    }
}

impl Read for TokenType {
    fn read(value: &Value<'_>, findings: &mut Findings) -> Option<Self> {
        choice(value, &[("at+jwt", Self::AtJwt), ("JWT", Self::Jwt)], findings)
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

impl Read for Replicas {
    /// A number, or a table of which anything may be left out: `min` is 1, `start` is `min`, `max` is `start`.
    fn read(value: &Value<'_>, findings: &mut Findings) -> Option<Self> {
        let range = 1..=u32::from(Self::MOST);
        let (min, start, max) = match value.get_ref() {
            DeValue::Integer(_) => {
                let count = small(whole(value, range, findings)?);
                (count, count, count)
            }
            DeValue::Table(_) => {
                let mut fields = Fields::of(value, value.span(), "replicas", findings)?;
                let mut failed = false;
                let mut number = |field, default| match fields.entry(field) {
                    None => default,
                    Some((_, value)) => whole(value, range.clone(), findings).map_or_else(
                        || {
                            failed = true;
                            default
                        },
                        small,
                    ),
                };
                let min = number("min", 1);
                let start = number("start", min);
                let max = number("max", start);
                fields.close(findings);
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
    fn read(fields: &mut Fields<'_, '_>, span: Span, findings: &mut Findings) -> Option<Self> {
        let auth = fields.or("auth", Spanned::new(span, RouteAuth::Required), findings);
        let prefix = fields.required("prefix", "\"/items\"", findings)?;
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
            path: fields.optional("path", findings).or(default.path),
            interval: fields.or("interval", default.interval, findings),
            timeout: fields.or("timeout", default.timeout, findings),
            unhealthy_after: fields.optional("unhealthy_after", findings).map_or(default.unhealthy_after, times),
            healthy_after: fields.optional("healthy_after", findings).map_or(default.healthy_after, times),
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
    fn read(fields: &mut Fields<'_, '_>, findings: &mut Findings) -> Self {
        let span = fields.span();
        Self {
            owner: fields.optional("owner", findings),
            memory: fields.or("memory", Bytes::mib(256), findings),
            cpu: fields.or("cpu", Spanned::new(span.clone(), MilliCpu::new(1000)), findings),
            port: port(fields, DATABASE_PORT, &span, findings),
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
    fn read(fields: &mut Fields<'_, '_>, findings: &mut Findings) -> Self {
        let source = match fields.entry("source") {
            Some((_, value)) => {
                choice(value, &[("generated", SecretSource::Generated), ("provided", SecretSource::Provided)], findings)
            }
            None => None,
        };
        Self { source: source.unwrap_or(SecretSource::Provided), optional: fields.or("optional", false, findings) }
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
    fn read(fields: &mut Fields<'_, '_>, span: Span, findings: &mut Findings) -> Self {
        Self {
            memory: fields.or("memory", Bytes::mib(256), findings),
            cpu: fields.or("cpu", Spanned::new(span.clone(), MilliCpu::new(1000)), findings),
            storage: fields.or("storage", Bytes::mib(1024), findings),
            port: port(fields, EVENTS_PORT, &span, findings),
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
    fn read(root: &mut Fields<'_, '_>, findings: &mut Findings) -> Self {
        let gateway = section(root, "gateway", findings, |fields, span, findings| {
            let port = port(fields, PUBLIC_PORT, &span, findings);
            Self {
                service: fields.optional("service", findings),
                host: fields.optional("host", findings),
                port: *port.get_ref(),
                port_span: Some(port.span()),
                limits: section(fields, "limits", findings, |fields, _, findings| Limits::read(fields, findings))
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
    fn read(fields: &mut Fields<'_, '_>, findings: &mut Findings) -> Self {
        let default = Self::default();
        Self {
            max_body: fields.or("max_body", default.max_body, findings),
            max_header: max_header(fields, findings).unwrap_or(default.max_header),
            max_connections: fields.or("max_connections", Whole::<1, 1_000_000>(default.max_connections), findings).0,
            max_requests: fields.or("max_requests", Whole::<1, 1_000_000>(default.max_requests), findings).0,
            connect_timeout: fields.or("connect_timeout", default.connect_timeout, findings),
            header_timeout: fields.or("header_timeout", default.header_timeout, findings),
            total_timeout: fields.or("total_timeout", default.total_timeout, findings),
            idle_timeout: fields.or("idle_timeout", default.idle_timeout, findings),
            retry_budget: fields
                .optional::<Whole<0, 100>>("retry_budget", findings)
                .and_then(|percent| u8::try_from(percent.0).ok())
                .unwrap_or(default.retry_budget),
            rate: section(fields, "rate", findings, |fields, _, findings| Rate::read(fields, findings)).flatten(),
        }
    }
}

/// The largest head that a service surely takes. It takes 64 KiB, counted and on the wire; there HPACK may need 28 bits for a
/// byte, and the gateway's own fields come on top. A head beyond that ends the connection all clients share.
const MOST_HEADER: Bytes = Bytes::new(24 << 10);

fn max_header(fields: &mut Fields<'_, '_>, findings: &mut Findings) -> Option<Bytes> {
    let declared: Spanned<Bytes> = fields.optional("max_header", findings)?;
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
    fn read(fields: &mut Fields<'_, '_>, findings: &mut Findings) -> Option<Self> {
        let burst = fields.optional::<Whole<1, 1_000_000>>("burst", findings);
        let per_second = fields.required::<Whole<1, 1_000_000>>("per_second", "50", findings)?.0;
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
    fn read(root: &mut Fields<'_, '_>, findings: &mut Findings) -> Self {
        let auth = section(root, "auth", findings, |fields, _, findings| Self {
            issuer: fields.optional("issuer", findings),
            audience: filled(fields, "audience", findings),
            typ: fields.optional("typ", findings),
            algorithms: algorithms(fields, findings),
            roles_claim: filled(fields, "roles_claim", findings),
        });
        auth.unwrap_or_default()
    }
}

/// Nothing unless there is one and all are known.
fn algorithms(fields: &mut Fields<'_, '_>, findings: &mut Findings) -> Option<Spanned<Vec<Algorithm>>> {
    let (_, value) = fields.entry("algorithms")?;
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
fn filled(fields: &mut Fields<'_, '_>, field: &'static str, findings: &mut Findings) -> Option<String> {
    let text: Spanned<String> = fields.optional(field, findings)?;
    if text.get_ref().trim().is_empty() {
        findings.push(Finding::new(Rule::InvalidValue, format!("`{field}` is empty")).at(text.span(), "here"));
        return None;
    }
    Some(text.into_inner())
}
