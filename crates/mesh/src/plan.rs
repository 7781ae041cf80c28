//! The plan: the declared mesh with every default applied and every question answered. `mesh.lock.json` is this, as JSON.
//!
//! Whoever runs the mesh reads it and derives nothing anew. Sizes are bytes, processor time is thousandths of a core, spans of time
//! are milliseconds; nothing in it is secret. Reading refuses unknown fields, so that an old reader never half-understands a new plan.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::name::{Domain, Name};
use crate::path::UrlPath;
pub use crate::runtimes::Runtime;
use crate::subject::Subject;
use crate::units::{Bytes, MilliCpu, Millis, Port};

/// The whole mesh, resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The shape of this document.
    pub version: Version,
    /// What the mesh is called.
    pub name: Name,
    /// The nodes' DNS zone and the SPIFFE trust domain.
    pub domain: Domain,
    /// Who issues access tokens, and what they look like.
    pub auth: Auth,
    /// The one way in.
    pub gateway: Gateway,
    /// The machines, in the order they were declared.
    pub nodes: Vec<Node>,
    /// One PostgreSQL per owner.
    pub databases: Vec<Database>,
    /// The event bus, when the mesh has one.
    pub events: Option<Events>,
    /// What runs, in start order: whoever is called stands before whoever calls, the gateway last.
    pub services: Vec<Service>,
}

/// The only version of the plan there is: 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Version;

impl TryFrom<u32> for Version {
    type Error = String;
    fn try_from(version: u32) -> Result<Self, String> {
        match version {
            1 => Ok(Self),
            other => Err(format!("plan version {other} is not understood here, only 1")),
        }
    }
}

impl From<Version> for u32 {
    fn from(_: Version) -> Self {
        1
    }
}

/// How access tokens of the outside world are verified (RFC 9068).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// The `iss` every token must carry: an https URL, compared letter for letter.
    pub issuer: String,
    /// The `aud` every token must carry.
    pub audience: String,
    /// What a token must say it is.
    pub typ: TokenType,
    /// Signature algorithms accepted from this issuer; any other is refused whatever the token's header says (RFC 8725 §3.1).
    pub algorithms: Vec<Algorithm>,
    /// The claim that lists the caller's roles.
    pub roles_claim: String,
    /// Where the issuer's keys come from.
    pub jwks: JwksFrom,
}

/// The `typ` in the header of an issuer's access tokens (RFC 7515 §4.1.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum TokenType {
    /// `at+jwt` and nothing else (RFC 9068 §4): no token made for another purpose passes for an access token.
    #[default]
    #[serde(rename = "at+jwt")]
    AtJwt,
    /// Also `JWT` and none at all, for issuers that do not follow RFC 9068. Their ID tokens say the same, and are told apart
    /// by the audience alone.
    #[serde(rename = "JWT")]
    Jwt,
}

/// Where an issuer's keys come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case", deny_unknown_fields)]
pub enum JwksFrom {
    /// An issuer outside the mesh: `<issuer>/.well-known/openid-configuration` over https names its `jwks_uri`.
    Discovery,
    /// A service of the mesh, asked over mTLS.
    Service {
        /// The service.
        service: Name,
        /// The path of its key set.
        path: UrlPath,
    },
}

/// A JWS signature algorithm (RFC 7518, RFC 8037). Asymmetric ones only: a verifier must not be able to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are those of the RFCs")]
pub enum Algorithm {
    EdDSA,
    ES256,
    ES384,
    PS256,
    PS384,
    PS512,
    RS256,
    RS384,
    RS512,
}

impl Algorithm {
    /// Every one there is.
    pub const ALL: [Self; 9] = [
        Self::EdDSA,
        Self::ES256,
        Self::ES384,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
    ];

    /// The name in a token's header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EdDSA => "EdDSA",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
        }
    }
}

/// The one way in: its public face, its routes, its limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// The service that is the gateway.
    pub service: Name,
    /// What a client outside puts before a path: `https://host[:port]`, no slash at the end.
    pub public_url: String,
    /// The host in it.
    pub public_host: String,
    /// The port the public listener is bound to.
    pub public_port: Port,
    /// In the order of their prefixes. No prefix covers another.
    pub routes: Vec<Route>,
    /// What one client may cost.
    pub limits: Limits,
}

/// Bounds the gateway puts on requests and connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The largest request body; larger ones get 413.
    pub max_body_bytes: Bytes,
    /// The largest request header section, each field counted with 32 bytes on top (RFC 9113 §6.5.2); larger ones get 431.
    pub max_header_bytes: Bytes,
    /// Public connections held open at once; above it new ones wait in the listener's backlog.
    pub max_connections: u32,
    /// Requests in flight at once; above it 503 with Retry-After.
    pub max_requests: u32,
    /// For a TCP and TLS connection to an instance.
    pub connect_timeout_ms: Millis,
    /// For a client to send the header section of a request.
    pub header_timeout_ms: Millis,
    /// From the end of the request's header section to the end of the response.
    pub total_timeout_ms: Millis,
    /// For a public connection without a request.
    pub idle_timeout_ms: Millis,
    /// Retries may add at most this share to the requests, in percent.
    pub retry_budget_percent: u8,
    /// Requests a second from one client address; none: no such bound.
    pub rate_per_second: Option<u32>,
    /// Requests one client address may send at once before the rate applies.
    pub rate_burst: Option<u32>,
}

/// A path prefix at the gateway and the instances behind it. The prefix is not stripped: the service serves its own prefix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Matches itself and whatever lies below it, on the normalised path, by whole segments.
    pub prefix: UrlPath,
    /// The service behind it.
    pub service: Name,
    /// Whether a caller must show a token.
    pub auth: RouteAuth,
    /// How an instance is spoken to.
    pub protocol: Protocol,
    /// How an instance is probed.
    pub health: Health,
    /// Every instance up to the service's maximum, started or not: active health checks decide which of them get traffic.
    pub upstreams: Vec<Endpoint>,
}

/// Whether a caller must show a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteAuth {
    /// A token is not looked at: everybody is anonymous.
    None,
    /// No token: anonymous. A token: it must be valid.
    Optional,
    /// No valid token: 401.
    Required,
}

/// How a service is spoken to, and what it knows of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Knows the mesh: mTLS with HTTP/2, internal tokens, `READY=1` and watchdog pings to `$NOTIFY_SOCKET`.
    Mesh,
    /// Knows nothing of it: HTTP/1.1 on `$HOST:$PORT`, ready once the health check passes.
    Plain,
}

/// How an instance is asked whether it can take traffic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// GET on this path must answer 2xx. None: accepting a TCP connection is enough.
    pub path: Option<UrlPath>,
    /// From one probe to the next.
    pub interval_ms: Millis,
    /// For one probe.
    pub timeout_ms: Millis,
    /// So many probes failed in a row: no traffic.
    pub unhealthy_after: u8,
    /// So many probes passed in a row: traffic again.
    pub healthy_after: u8,
}

/// Where an instance listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The instance.
    pub instance: Name,
    /// DNS name or IP address.
    pub host: String,
    /// TCP port.
    pub port: Port,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its own name: `items-1`.
    pub name: Name,
    /// The name it was declared under: `items`.
    pub declared: Name,
    /// The named size it has.
    pub size: Name,
    /// Its processor cores, in thousandths.
    pub cpu_millis: MilliCpu,
    /// Its memory.
    pub memory_bytes: Bytes,
    /// The part of the memory kept for the operating system: never given to services.
    pub reserved_bytes: Bytes,
    /// Its disk.
    pub disk_bytes: Bytes,
    /// The DNS name or IP address others reach it by.
    pub host: String,
    /// The service instances on it, started or not.
    pub instances: Vec<Name>,
    /// The databases on it.
    pub databases: Vec<Name>,
    /// Whether the event bus is on it.
    pub events: bool,
}

/// A PostgreSQL server of its own for one owner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// The server's name, also its SPIFFE name: `item-management-db`.
    pub name: Name,
    /// The one service that may connect.
    pub owner: Name,
    /// The database inside the server.
    pub database: Name,
    /// The role the owner connects as.
    pub role: Name,
    /// The node it runs on.
    pub node: Name,
    /// DNS name or IP address.
    pub host: String,
    /// TCP port.
    pub port: Port,
    /// The most memory it may use.
    pub memory_bytes: Bytes,
    /// The most processor time it may use.
    pub cpu_millis: MilliCpu,
    /// The files in its credentials folder.
    pub credentials: Vec<Credential>,
}

/// The event bus: one NATS server with JetStream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    /// The server's name, also its SPIFFE name: `nats`.
    pub server: Name,
    /// The node it runs on.
    pub node: Name,
    /// DNS name or IP address.
    pub host: String,
    /// TCP port.
    pub port: Port,
    /// The most memory it may use.
    pub memory_bytes: Bytes,
    /// The most processor time it may use.
    pub cpu_millis: MilliCpu,
    /// The most disk its streams may use.
    pub storage_bytes: Bytes,
    /// The files in its credentials folder.
    pub credentials: Vec<Credential>,
    /// Who may do what: one user per service that emits or consumes; nobody else may connect.
    pub users: Vec<EventUser>,
    /// One stream per service that emits.
    pub streams: Vec<Stream>,
}

/// What one service may do on the event bus; whatever is not listed is denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventUser {
    /// The service.
    pub service: Name,
    /// Subjects it may publish to: its events, the JetStream API calls it needs, acknowledgements.
    pub publish: Vec<String>,
    /// Subjects it may subscribe to: its own inbox.
    pub subscribe: Vec<String>,
}

/// A JetStream stream: all that one service emits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// Named like the service that emits.
    pub name: Name,
    /// What it holds.
    pub subjects: Vec<Subject>,
    /// Who reads it.
    pub consumers: Vec<Consumer>,
}

/// A durable pull consumer of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consumer {
    /// Named like the service that consumes.
    pub name: Name,
    /// What it takes of the stream. One: created with `filter_subject`. Several: with `filter_subjects`.
    pub filters: Vec<Subject>,
}

/// Something that runs, in one or more copies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name, also its SPIFFE name.
    pub name: Name,
    /// How its executable is started.
    pub runtime: Runtime,
    /// What is started.
    pub executable: Executable,
    /// The command line. `${ARTIFACT}` stands for the executable's path, `${NAME}` for one of its folders
    /// ([`COMMAND_VARIABLES`]) or a variable of the instance's environment.
    pub command: Vec<String>,
    /// Whether it makes machine code while it runs, so that memory cannot be kept from being both written and executed.
    pub jit: bool,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// How many copies.
    pub replicas: Replicas,
    /// The most memory one copy may use.
    pub memory_bytes: Bytes,
    /// The most processor time one copy may use.
    pub cpu_millis: MilliCpu,
    /// The database it owns.
    pub database: Option<Name>,
    /// Its prefix at the gateway.
    pub route: Option<UrlPath>,
    /// What it emits.
    pub emits: Vec<Subject>,
    /// What it consumes.
    pub consumes: Vec<Subject>,
    /// The services it calls.
    pub calls: Vec<Name>,
    /// Who may call it with an internal token: the gateway if it has a route, and every service that declares it in `calls`.
    pub callers: Vec<Name>,
    /// The files in its credentials folder.
    pub credentials: Vec<Credential>,
    /// How an instance is probed.
    pub health: Health,
    /// From SIGTERM to SIGKILL.
    pub stop_timeout_ms: Millis,
    /// The longest silence towards `$NOTIFY_SOCKET` before a restart; none: not watched so.
    pub watchdog_ms: Option<Millis>,
    /// What must be ready before it is started: databases, the event bus, the services it calls.
    pub after: Vec<Name>,
    /// Every copy up to the maximum.
    pub instances: Vec<Instance>,
}

/// What is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Executable {
    /// Built from source under this name: a binary of the workspace, a package of the flake.
    Package(Name),
    /// A file that exists already.
    Artifact(Artifact),
}

/// A file that exists already, and how it gets to where it is started. Paths are relative to `mesh.toml`, with `/` between their parts;
/// wherever it is started, what lay beside `mesh.toml` lies beside the working folder's files in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// The file.
    pub path: String,
    /// What goes along with it into an image or onto a machine: the file itself, a folder around it, or [`Artifact::EVERYTHING`].
    pub files: String,
    /// The container image that an image of it begins with.
    pub base: String,
}

impl Artifact {
    /// The [`files`](Self::files) that are everything beside `mesh.toml`.
    pub const EVERYTHING: &'static str = ".";
}

/// How many copies: `1 <= min <= start <= max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedReplicas")]
pub struct Replicas {
    min: u16,
    start: u16,
    max: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UncheckedReplicas {
    min: u16,
    start: u16,
    max: u16,
}

impl TryFrom<UncheckedReplicas> for Replicas {
    type Error = String;
    fn try_from(UncheckedReplicas { min, start, max }: UncheckedReplicas) -> Result<Self, String> {
        Self::new(min, start, max).ok_or_else(|| {
            format!("replicas must be 1 <= min <= start <= max <= {}, not {min}, {start}, {max}", Self::MOST)
        })
    }
}

impl Replicas {
    /// More copies than this of one service are taken for a slip of the pen.
    pub const MOST: u16 = 256;

    /// Nothing unless `1 <= min <= start <= max <= MOST`.
    pub fn new(min: u16, start: u16, max: u16) -> Option<Self> {
        (1 <= min && min <= start && start <= max && max <= Self::MOST).then_some(Self { min, start, max })
    }

    /// The fewest it may be scaled to.
    pub const fn min(self) -> u16 {
        self.min
    }

    /// How many are started at first.
    pub const fn start(self) -> u16 {
        self.start
    }

    /// The most it may be scaled to, without any change of the plan.
    pub const fn max(self) -> u16 {
        self.max
    }
}

/// One running copy of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// `item-management-1`.
    pub name: Name,
    /// From 1.
    pub index: u16,
    /// The node it runs on.
    pub node: Name,
    /// DNS name or IP address others reach it by.
    pub host: String,
    /// The port it listens on.
    pub port: Port,
    /// Whether it is started at first, or only when scaled up to.
    pub start: bool,
    /// Its environment, complete but for [`RUNNER_VARIABLES`]; nothing in it is secret.
    pub environment: BTreeMap<String, String>,
}

/// Variables that only the runner can set, besides an instance's `environment`: where it put the plan (for the gateway), what systemd's
/// protocol passes, and the log filter.
pub const RUNNER_VARIABLES: [&str; 9] = [
    "BERTH_PLAN",
    "CREDENTIALS_DIRECTORY",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "RUST_LOG",
    "STATE_DIRECTORY",
    "WATCHDOG_USEC",
];

/// What a [`Service::command`] may name besides its instance's environment. The runner knows them for every process: where it put the
/// executable, and the process's two folders.
pub const COMMAND_VARIABLES: [&str; 3] = ["ARTIFACT", "CREDENTIALS_DIRECTORY", "STATE_DIRECTORY"];

/// A file in a credentials folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// The file's name.
    pub name: String,
    /// What it is, and thereby who makes it.
    pub kind: CredentialKind,
    /// Whether the service runs without it.
    pub optional: bool,
}

/// What a credential is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    /// The leaf certificate with the SPIFFE ID, PEM.
    MeshCertificate,
    /// Its private key, PKCS#8 PEM.
    MeshKey,
    /// The certificates of the mesh's authorities, PEM.
    MeshCa,
    /// The password of the database's role, text.
    DatabasePassword,
    /// An nkey user seed for the event bus, text.
    EventsSeed,
    /// The public nkey of every user of the event bus, JSON.
    EventUsers,
    /// The Ed25519 key internal tokens are signed with, PKCS#8 PEM.
    TokenKey,
    /// The public token keys of every caller, JSON.
    TokenIssuers,
    /// The certificate of the public listener, PEM.
    PublicCertificate,
    /// Its private key, PKCS#8 PEM.
    PublicKey,
    /// Further roots to reach an external issuer by, PEM.
    IssuerRoots,
    /// The key that encrypts the issuer's keys in its database: 32 bytes in base64.
    KeyEncryptionKey,
    /// Users and clients of the issuer at first start, JSON.
    Bootstrap,
    /// A secret of the mesh, made at random: 32 bytes in base64url.
    Generated,
    /// A secret of the mesh, put there by its operator.
    Provided,
}

/// Why a text is not a plan.
#[derive(Debug, thiserror::Error)]
#[error("not a plan this version of berth understands: {0}; write it anew with `berth lock`")]
pub struct LockError(#[from] serde_json::Error);

impl Plan {
    /// As `mesh.lock.json` has it: indented, in the same order always, with a newline at the end.
    pub fn to_json(&self) -> String {
        // A plan is made of maps with text keys, so that this cannot fail.
        let mut json = serde_json::to_string_pretty(self).unwrap_or_default();
        json.push('\n');
        json
    }

    /// Reads what [`Plan::to_json`] wrote.
    pub fn from_json(text: &str) -> Result<Self, LockError> {
        Ok(serde_json::from_str(text)?)
    }

    /// The service of that name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == *name)
    }

    /// The database of that name.
    pub fn database(&self, name: &str) -> Option<&Database> {
        self.databases.iter().find(|database| database.name == *name)
    }

    /// Every instance of every service, in start order, with its service.
    pub fn instances(&self) -> impl Iterator<Item = (&Service, &Instance)> {
        self.services.iter().flat_map(|service| service.instances.iter().map(move |instance| (service, instance)))
    }
}

impl Service {
    /// The command line of `instance` with every `${…}` replaced. `runner` knows the values of [`COMMAND_VARIABLES`]; a variable
    /// nobody knows is an error that names it.
    pub fn command_line(
        &self,
        instance: &Instance,
        runner: impl Fn(&str) -> Option<String>,
    ) -> Result<Vec<String>, UnknownVariable> {
        let lookup = |name: &str| instance.environment.get(name).cloned().or_else(|| runner(name));
        self.command.iter().map(|word| crate::command::expand(word, lookup)).collect()
    }
}

/// A `${NAME}` in a command line that nobody has a value for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`${{{0}}}` in the command line has no value")]
pub struct UnknownVariable(pub String);
