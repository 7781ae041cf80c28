//! A gateway in this process, in front of instances that can be killed, with an issuer whose key the tests hold.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use auth::{
    internal::{Minter, Verifier},
    jws::{KeySet, SigningKey},
};
use axum::{Json, Router, body::Bytes, extract::Request, routing};
use berth_http::{
    health::Health,
    server::Server,
    testing::{Instance, TestMesh},
    upstream::UpstreamMetrics,
};
use gateway::{
    AccessLog, Gateway, GatewayMetrics, Means, Reloadable,
    listener::{ALPN, Listener},
};
use jiff::Timestamp;
use mesh::{
    Bytes as Size, Millis, Name, Placement, Plan, Port,
    plan::{Endpoint, JwksFrom},
};
use runtime::{clock::Clock, lifecycle::Lifecycle, settings::Settings, telemetry::Metrics};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json};
use tls::PublicCertificate;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Longer than anything takes that works.
pub(crate) const LONG: Duration = Duration::from_secs(30);
pub(crate) const ISSUER: &str = "https://localhost:8443/identity";

const MESH: &str = r#"
[mesh]
name = "test"
domain = "test.internal"

[sizes]
small = { cpus = 2, memory = "4GiB", disk = "8GiB" }

[nodes.one]
size = "small"
runs = ["gateway", "identity", "items", "open", "legacy"]

[services.gateway]
port = 8080
[services.identity]
port = 8100
route = { prefix = "/identity", auth = "none" }
[services.items]
port = 8200
route = { prefix = "/items" }
[services.open]
port = 8300
route = { prefix = "/open", auth = "optional" }
[services.legacy]
runtime = "java"
artifact = "legacy.jar"
memory = "256MiB"
port = 8400
route = { prefix = "/legacy" }

[gateway]
port = 8443
"#;

/// Everything around a gateway.
pub(crate) struct World {
    pub(crate) mesh: TestMesh,
    pub(crate) issuer: SigningKey,
    pub(crate) items: Instance,
    pub(crate) legacy: Instance,
    identity: Instance,
    pub(crate) plan: Plan,
    /// Verifies as the service `items` does.
    pub(crate) items_verifier: Verifier,
}

/// A gateway that serves.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) reloadable: Reloadable,
    pub(crate) metrics: Metrics,
    roots: Arc<RootCertStore>,
}

impl World {
    /// With these routes behind `/items`.
    pub(crate) fn new(items: Router) -> Self {
        tls::install_provider();
        let mesh = TestMesh::new();
        let (issuer, _) = SigningKey::generate().unwrap();
        let identity = identity(&mesh, &issuer);
        let items = Instance::mesh(&mesh, "items", items);
        let legacy = Instance::plain(Router::new().fallback(echo));

        let (token_key, pem) = SigningKey::generate().unwrap();
        let pem = String::from_utf8(pem_of(&pem)).unwrap();
        std::fs::write(mesh.folder("gateway").join("token-key.pem"), pem).unwrap();
        let public = mesh.authority().issue_public(&["localhost"], &[Ipv4Addr::LOCALHOST.into()]).unwrap();
        std::fs::write(mesh.folder("gateway").join("public-cert.pem"), public.cert_pem).unwrap();
        std::fs::write(mesh.folder("gateway").join("public-key.pem"), &*public.key_pem).unwrap();

        let issuers = [(TestMesh::id("gateway"), KeySet::from_value(json!({ "keys": [token_key.jwk()] })).unwrap())];
        let items_verifier = Verifier::new(&TestMesh::id("items"), issuers.into(), Clock::system());
        let mut plan = mesh::resolve("mesh.toml", MESH, &Placement::Loopback { block: [127, 1, 1], public_port: 8443 })
            .map_err(|diagnostics| format!("{diagnostics:?}"))
            .unwrap();
        assert!(matches!(&plan.auth.jwks, JwksFrom::Service { .. }));
        plan.auth.issuer = ISSUER.to_owned();
        for route in &mut plan.gateway.routes {
            route.health.interval_ms = Millis::new(50);
        }
        let mut world = Self { mesh, issuer, items, legacy, identity, plan, items_verifier };
        let (identity, items, legacy) = (world.identity.address(), world.items.address(), world.legacy.address());
        world.place("identity", &[identity]);
        world.place("items", &[items]);
        world.place("open", &[]);
        world.place("legacy", &[legacy]);
        world
    }

    /// With an echo behind `/items`.
    pub(crate) fn echoing() -> Self {
        Self::new(Router::new().fallback(echo))
    }

    /// Serves these routes behind `/items` as a service does, with the limits of one.
    pub(crate) fn serve_items(&mut self, items: Router) -> Lifecycle {
        let variables = [
            ("BERTH_SERVICE", "items"),
            ("BERTH_INSTANCE", "items-1"),
            ("BERTH_DOMAIN", TestMesh::DOMAIN),
            ("BERTH_LISTEN", "127.0.0.1:0"),
        ];
        let settings = Settings::from_vars(variables).unwrap();
        let identity = self.mesh.identity("items");
        let server = Server::new(&settings, identity, items, Metrics::new(), Health::new()).bind().unwrap();
        let address = server.local_addr().unwrap();
        self.place("items", &[address]);
        let lifecycle = Lifecycle::detached();
        tokio::spawn({
            let lifecycle = lifecycle.clone();
            async move { server.serve(&lifecycle).await }
        });
        lifecycle
    }

    pub(crate) async fn kill_identity(&mut self) {
        self.identity.kill().await;
    }

    /// Another instance at another place.
    pub(crate) fn move_identity(&mut self) {
        self.identity = identity(&self.mesh, &self.issuer);
        let address = self.identity.address();
        self.place("identity", &[address]);
    }

    pub(crate) async fn restart_identity(&mut self) {
        self.identity.restart().await;
    }

    /// Says where the instances of a service are.
    pub(crate) fn place(&mut self, service: &str, addresses: &[SocketAddr]) {
        let endpoint = |address: &SocketAddr| Endpoint {
            instance: Name::new(format!("{service}-1")).unwrap(),
            host: address.ip().to_string(),
            port: Port::new(address.port()).unwrap(),
        };
        let route = self.plan.gateway.routes.iter_mut().find(|route| route.service == *service).unwrap();
        route.upstreams = addresses.iter().map(endpoint).collect();
    }

    pub(crate) fn limit_body(&mut self, bytes: u64) {
        self.plan.gateway.limits.max_body_bytes = Size::new(bytes);
    }

    /// An access token with these claims changed; `null` takes one away.
    pub(crate) fn token(&self, changes: &Value) -> String {
        self.token_of_type("at+jwt", changes)
    }

    /// The same with another `typ` in its header.
    pub(crate) fn token_of_type(&self, typ: &str, changes: &Value) -> String {
        let now = Timestamp::now().as_second();
        let mut claims = json!({
            "iss": ISSUER, "sub": "0193a5b2-0000-7000-8000-000000000001", "aud": self.plan.auth.audience,
            "exp": now + 600, "iat": now, "nbf": now, "jti": "1", "client_id": "shop", "scope": "openid shop",
            "roles": ["customer"], "preferred_username": "alice",
        });
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => claims.as_object_mut().unwrap().remove(name),
                value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
            };
        }
        self.issuer.sign(typ, &claims).unwrap()
    }

    /// Alice's.
    pub(crate) fn alice(&self) -> String {
        self.token(&json!({}))
    }

    /// Starts a gateway.
    pub(crate) async fn start(&self) -> Running {
        self.start_with(AccessLog::nowhere).await
    }

    /// Starts a gateway that writes its access log.
    #[allow(dead_code, reason = "only the example that measures it does")]
    pub(crate) async fn start_logging(&self) -> Running {
        self.start_with(|service, instance, metrics| AccessLog::stdout(service, instance, metrics).unwrap()).await
    }

    async fn start_with(&self, log: impl FnOnce(&str, &str, &GatewayMetrics) -> AccessLog) -> Running {
        let credentials = self.mesh.credentials("gateway");
        let identity = self.mesh.identity("gateway");
        let metrics = Metrics::new();
        let means = Means {
            minter: Arc::new(Minter::load(&credentials, identity.id(), Clock::system()).unwrap()),
            identity,
            refusals: auth::refusals::Refusals::default(),
            clock: Clock::system(),
            metrics: GatewayMetrics::register(&metrics),
            upstream_metrics: UpstreamMetrics::register(&metrics),
            credentials,
        };
        let log = log("gateway", "gateway-1", &means.metrics);
        let gateway = Gateway::start(self.plan.clone(), means.clone(), log).unwrap();
        let certificate = PublicCertificate::load(&means.credentials).unwrap();
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let listener = Listener::new(socket, certificate.server_config(&ALPN).unwrap(), gateway.clone());
        let lifecycle = Lifecycle::detached();
        tokio::spawn({
            let lifecycle = lifecycle.clone();
            async move { listener.serve(&lifecycle).await }
        });
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.mesh.authority().ca_pem().as_bytes()).unwrap()).unwrap();
        let reloadable = Reloadable { plan: self.plan_path(), gateway, certificate, means };
        Running { address, lifecycle, reloadable, metrics, roots: Arc::new(roots) }
    }

    pub(crate) fn plan_path(&self) -> PathBuf {
        self.mesh.folder("gateway").join("plan.json")
    }
}

fn identity(mesh: &TestMesh, issuer: &SigningKey) -> Instance {
    let keys = json!({ "keys": [issuer.jwk()] });
    let router = Router::new()
        .route("/identity/.well-known/jwks.json", routing::get(async || Json(keys)))
        .route("/identity/echo", routing::any(echo));
    Instance::mesh(mesh, "identity", router)
}

fn pem_of(pkcs8: &[u8]) -> Vec<u8> {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(pkcs8);
    format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n").into_bytes()
}

/// Tells what arrived.
pub(crate) async fn echo(request: Request) -> Json<Value> {
    let (head, body) = request.into_parts();
    let headers: serde_json::Map<String, Value> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), Value::from(String::from_utf8_lossy(value.as_bytes()))))
        .collect();
    let body: Bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    Json(json!({
        "method": head.method.as_str(),
        "target": head.uri.path_and_query().map(ToString::to_string),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    }))
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Expects a problem document.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, slug: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(self.json().get("type").unwrap(), &format!("urn:berth:problem:{slug}"));
        assert_eq!(self.json().get("status").unwrap(), &status);
    }
}

/// A client's TLS connection.
pub(crate) type Connection = TlsStream<TcpStream>;

impl Running {
    pub(crate) async fn connect_as(&self, alpn: &[u8], versions: &[&'static SupportedProtocolVersion]) -> Connection {
        let mut config = ClientConfig::builder_with_protocol_versions(versions)
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await.unwrap()
    }

    pub(crate) async fn connect(&self) -> Connection {
        self.connect_as(b"http/1.1", &[&version::TLS13]).await
    }

    /// Waits until this line stands in the metrics.
    pub(crate) async fn until_counted(&self, line: &str) {
        let counting = async {
            while !self.metrics.encode().contains(line) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, counting).await.unwrap();
    }

    /// Sends these bytes on a connection of their own, and reads all that comes back.
    pub(crate) async fn raw(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut connection = self.connect().await;
        connection.write_all(bytes.as_ref()).await.unwrap();
        read_all(&mut connection).await
    }

    /// The first answer to these bytes.
    pub(crate) async fn ask_raw(&self, bytes: impl AsRef<[u8]>) -> Answer {
        parse(&self.raw(bytes).await)
    }

    /// A request with a body, if there is one, and these further header lines.
    pub(crate) async fn ask(&self, method: &str, target: &str, headers: &[&str], body: &str) -> Answer {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        for header in headers {
            head.push_str(&format!("{header}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        self.ask_raw(format!("{head}\r\n{body}")).await
    }

    /// GET with this token.
    pub(crate) async fn get(&self, target: &str, token: &str) -> Answer {
        self.ask("GET", target, &[&bearer(token)], "").await
    }
}

pub(crate) fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

/// Until the other side closes; whether it does so politely is its business.
pub(crate) async fn read_all(connection: &mut Connection) -> String {
    let mut bytes = Vec::new();
    let reading = tokio::time::timeout(LONG, connection.read_to_end(&mut bytes)).await;
    assert!(reading.is_ok(), "the connection stays open after {:?}", String::from_utf8_lossy(&bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Up to the end of one answer whose length is given.
pub(crate) async fn read_one(connection: &mut Connection) -> Answer {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let answer = parse(&text);
            let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
            if body.len() >= length || head.starts_with("HTTP/1.1 204") {
                return answer;
            }
        }
        let byte = tokio::time::timeout(LONG, connection.read_u8()).await.unwrap();
        bytes.push(byte.unwrap_or_else(|error| panic!("{error} after {:?}", String::from_utf8_lossy(&bytes))));
    }
}

pub(crate) fn parse(text: &str) -> Answer {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}
