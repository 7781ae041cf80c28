//! A mesh of one: an authority, a server on a port of the system's choice, and clients with identities.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use berth_http::{
    health::Health,
    server::{Limits, Server},
};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use runtime::{credentials::Credentials, lifecycle::Lifecycle, settings::Settings, telemetry::Metrics};
use serde_json::Value;
use tempfile::TempDir;
use tls::{Identity, SpiffeId, authority::Authority};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

pub(crate) const DOMAIN: &str = "eshop.internal";
pub(crate) const SERVICE: &str = "item-management";

pub(crate) type Connection = TlsStream<TcpStream>;

pub(crate) struct Mesh {
    authority: Authority,
    folders: Vec<TempDir>,
}

impl Mesh {
    pub(crate) fn new() -> Self {
        Self { authority: Authority::create(DOMAIN).unwrap(), folders: Vec::new() }
    }

    pub(crate) fn identity(&mut self, name: &str) -> Arc<Identity> {
        let (folder, leaf) = (tempfile::tempdir().unwrap(), self.authority.issue(name).unwrap());
        fs::write(folder.path().join("tls-cert.pem"), leaf.cert_pem.as_bytes()).unwrap();
        fs::write(folder.path().join("tls-key.pem"), leaf.key_pem.as_bytes()).unwrap();
        fs::write(folder.path().join("mesh-ca.pem"), self.authority.ca_pem()).unwrap();
        let identity = Identity::load(&Credentials::at(folder.path()), DOMAIN).unwrap();
        self.folders.push(folder);
        identity
    }
}

pub(crate) fn settings(listen: SocketAddr) -> Settings {
    let listen = listen.to_string();
    let vars = [
        ("BERTH_SERVICE", SERVICE),
        ("BERTH_INSTANCE", "item-management-1"),
        ("BERTH_DOMAIN", DOMAIN),
        ("BERTH_LISTEN", &listen),
    ];
    Settings::from_vars(vars).unwrap()
}

/// A server that runs until the test drains it or ends.
pub(crate) struct Running {
    pub(crate) mesh: Mesh,
    pub(crate) address: SocketAddr,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
    pub(crate) identity: Arc<Identity>,
    pub(crate) gateway: Arc<Identity>,
    pub(crate) serving: JoinHandle<()>,
}

pub(crate) fn limits() -> Limits {
    Limits::default()
}

pub(crate) fn start(router: Router, limits: Limits) -> Running {
    let mut mesh = Mesh::new();
    let (identity, gateway) = (mesh.identity(SERVICE), mesh.identity("gateway"));
    let (lifecycle, metrics, health) = (Lifecycle::detached(), Metrics::new(), Health::new());
    let any = settings("127.0.0.1:0".parse().unwrap());
    let server = Server::new(&any, Arc::clone(&identity), router, metrics.clone(), health.clone())
        .limits(limits)
        .bind()
        .unwrap();
    let address = server.local_addr().unwrap();
    let serving = tokio::spawn({
        let lifecycle = lifecycle.clone();
        async move { server.serve(&lifecycle).await }
    });
    Running { mesh, address, lifecycle, metrics, health, identity, gateway, serving }
}

impl Running {
    pub(crate) async fn connect(&self, alpn: &[u8]) -> Connection {
        self.try_connect(&self.gateway, alpn).await.unwrap()
    }

    pub(crate) async fn try_connect(&self, identity: &Identity, alpn: &[u8]) -> std::io::Result<Connection> {
        let expected = SpiffeId::new(DOMAIN, SERVICE).unwrap();
        let name = expected.server_name();
        let connector = TlsConnector::from(identity.client_config(expected, &[alpn]));
        connector.connect(name, TcpStream::connect(self.address).await?).await
    }

    pub(crate) async fn http1(&self) -> http1::SendRequest<Body> {
        let (sender, connection) = http1::handshake(TokioIo::new(self.connect(b"http/1.1").await)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    pub(crate) async fn http2(&self) -> http2::SendRequest<Body> {
        let io = TokioIo::new(self.connect(b"h2").await);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// One request on a connection of its own, over HTTP/1.1.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        Answer::of(self.http1().await.send_request(with_host(request)).await.unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    /// The same request over both protocols.
    pub(crate) async fn over_both(&self, request: impl Fn() -> Request<Body>) -> [Answer; 2] {
        let second = self.http2().await.send_request(absolute(request())).await.unwrap();
        [self.send(request()).await, Answer::of(second).await]
    }

    /// Bytes in, bytes out until the server closes.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut connection = self.connect(b"http/1.1").await;
        connection.write_all(bytes).await.unwrap();
        read_to_close(&mut connection).await
    }

    pub(crate) fn metric(&self, line: &str) -> Option<f64> {
        let text = self.metrics.encode();
        let line = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' ').map(str::to_owned))?;
        line.parse().ok()
    }

    pub(crate) async fn until(&self, condition: impl Fn(&Self) -> bool) {
        tokio::time::timeout(Duration::from_secs(30), async {
            while !condition(self) {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the condition came true");
    }
}

/// A close without `close_notify` counts as the end too.
pub(crate) async fn read_to_close(connection: &mut Connection) -> String {
    let mut answer = Vec::new();
    let _ = connection.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

pub(crate) fn with_host(mut request: Request<Body>) -> Request<Body> {
    request.headers_mut().insert("host", SERVICE.parse().unwrap());
    request
}

pub(crate) fn absolute(mut request: Request<Body>) -> Request<Body> {
    *request.uri_mut() = format!("https://{SERVICE}{}", request.uri()).parse().unwrap();
    request
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response<Bytes>,
}

impl Answer {
    pub(crate) async fn of(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        Self { response: Response::from_parts(parts, body.collect().await.unwrap().to_bytes()) }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(self.response.body()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(self.response.body()).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks that this is a well-formed problem document of the given kind, and returns it.
    pub(crate) fn problem(&self, slug: &str) -> Value {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let document = self.json();
        assert_eq!(document["type"], format!("urn:berth:problem:{slug}"), "{self:?}");
        assert_eq!(document["status"], self.status().as_u16(), "{self:?}");
        assert!(document["instance"].as_str().unwrap().starts_with("urn:berth:trace:"), "{self:?}");
        document
    }
}
