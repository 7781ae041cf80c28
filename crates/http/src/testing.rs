//! Instances for in-process tests: real sockets, real TLS, a router behind them, and everything that can happen to one.
//!
//! Each listens on an address of its own in 127.0.0.0/8, so that tests run side by side and a killed instance comes back
//! under the address it had.
// Only test code can reach this module, and a test that cannot be set up should stop at once.
#![allow(clippy::expect_used, clippy::missing_panics_doc)]

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use axum::{Router, body::Body};
use http::{Request, Response, StatusCode};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use runtime::credentials::Credentials;
use tls::{Identity, SpiffeId, authority::Authority, peer_id};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::server::Peer;

/// A mesh of its own: an authority, and credentials folders made on demand.
pub struct TestMesh {
    authority: Authority,
    folder: tempfile::TempDir,
}

impl TestMesh {
    /// The trust domain.
    pub const DOMAIN: &str = "test.internal";

    /// A new authority.
    #[must_use]
    pub fn new() -> Self {
        Self {
            authority: Authority::create(Self::DOMAIN).expect("an authority"),
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    /// The authority.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The SPIFFE ID of a workload.
    #[must_use]
    pub fn id(name: &str) -> SpiffeId {
        SpiffeId::new(Self::DOMAIN, name).expect("a valid name")
    }

    /// The credentials folder of a workload.
    #[must_use]
    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.folder.path().join(name);
        if !folder.exists() {
            std::fs::create_dir(&folder).expect("a folder");
            let leaf = self.authority.issue(name).expect("a certificate");
            std::fs::write(folder.join("tls-cert.pem"), &leaf.cert_pem).expect("a file");
            std::fs::write(folder.join("tls-key.pem"), &*leaf.key_pem).expect("a file");
            std::fs::write(folder.join("mesh-ca.pem"), self.authority.ca_pem()).expect("a file");
        }
        folder
    }

    /// The credentials of a workload.
    #[must_use]
    pub fn credentials(&self, name: &str) -> Credentials {
        Credentials::at(self.folder(name))
    }

    /// The identity of a workload.
    #[must_use]
    pub fn identity(&self, name: &str) -> Arc<Identity> {
        Identity::load(&self.credentials(name), Self::DOMAIN).expect("an identity")
    }
}

impl Default for TestMesh {
    fn default() -> Self {
        Self::new()
    }
}

/// A running instance. Dropping it kills it.
pub struct Instance {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// While it runs.
    listening: Option<JoinHandle<()>>,
    end: watch::Sender<End>,
    /// Its connections.
    tasks: TaskTracker,
}

struct Shared {
    tls: Option<TlsAcceptor>,
    router: Router,
    ready: AtomicBool,
    connections: AtomicUsize,
    requests: AtomicUsize,
}

/// How connections end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    NotYet,
    /// As on SIGTERM: what has begun is finished.
    Drained,
    /// As on SIGKILL: the sockets are closed.
    Killed,
}

impl Instance {
    /// A service of the mesh: mutual TLS, HTTP/2 or 1.1.
    pub fn mesh(mesh: &TestMesh, name: &str, router: Router) -> Self {
        let tls = mesh.identity(name).server_config(&[b"h2", b"http/1.1"]);
        Self::start(Some(tls.into()), router)
    }

    /// A foreign program: HTTP/1.1 in the clear.
    pub fn plain(router: Router) -> Self {
        Self::start(None, router)
    }

    fn start(tls: Option<TlsAcceptor>, router: Router) -> Self {
        let address =
            Ipv4Addr::new(127, rand::random_range(1..255), rand::random_range(1..255), rand::random_range(1..255));
        let shared = Shared {
            tls,
            router,
            ready: AtomicBool::new(true),
            connections: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
        };
        let mut instance = Self {
            address: (address, 0).into(),
            shared: Arc::new(shared),
            listening: None,
            end: watch::Sender::new(End::NotYet),
            tasks: TaskTracker::new(),
        };
        instance.listen();
        instance
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What `/readyz` says: 200 or 503.
    pub fn set_ready(&self, ready: bool) {
        self.shared.ready.store(ready, SeqCst);
    }

    /// Connections that were ever made.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(SeqCst)
    }

    /// Requests that ever came, health checks aside.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.shared.requests.load(SeqCst)
    }

    /// As `kill -9`: no more listening, all sockets closed. They are when this returns.
    pub async fn kill(&mut self) {
        self.stop(End::Killed);
        if let Some(listening) = self.listening.take() {
            let _ = listening.await;
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// As SIGTERM: no more listening, connections are told to go away and finish what they have.
    pub fn drain(&mut self) {
        self.stop(End::Drained);
    }

    fn stop(&mut self, how: End) {
        self.end.send_replace(how);
        if let Some(listening) = &self.listening {
            listening.abort();
        }
    }

    /// Listens again after [`kill`](Self::kill) or [`drain`](Self::drain), under the same address.
    pub async fn restart(&mut self) {
        if let Some(listening) = self.listening.take() {
            // Its socket is closed once its task is gone.
            let _ = listening.await;
        }
        self.listen();
    }

    fn listen(&mut self) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("an option");
        socket.bind(self.address).expect("the address is free");
        let listener = socket.listen(1024).expect("a listener");
        self.address = listener.local_addr().expect("an address");
        self.end = watch::Sender::new(End::NotYet);
        self.tasks = TaskTracker::new();
        let accepting = accept(listener, Arc::clone(&self.shared), self.end.subscribe(), self.tasks.clone());
        self.listening = Some(tokio::spawn(accepting));
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.stop(End::Killed);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, end: watch::Receiver<End>, tasks: TaskTracker) {
    while let Ok((stream, _)) = listener.accept().await {
        shared.connections.fetch_add(1, SeqCst);
        let (shared, mut killed) = (Arc::clone(&shared), end.clone());
        let end = end.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = serve(stream, shared, end) => {}
                () = reached(&mut killed, End::Killed) => {}
            }
        });
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>, end: watch::Receiver<End>) {
    let _ = stream.set_nodelay(true);
    match shared.tls.clone() {
        None => talk(stream, shared, None, end).await,
        Some(tls) => {
            let Ok(stream) = tls.accept(stream).await else { return };
            let peer = stream.get_ref().1.peer_certificates().and_then(|chain| peer_id(chain).ok());
            talk(stream, shared, peer.map(Peer), end).await;
        }
    }
}

async fn talk<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: IO,
    shared: Arc<Shared>,
    peer: Option<Peer>,
    mut end: watch::Receiver<End>,
) {
    let service = service_fn(|mut request: Request<Incoming>| {
        let (shared, peer) = (Arc::clone(&shared), peer.clone());
        async move {
            if request.uri().path() == "/readyz" {
                let ready = shared.ready.load(SeqCst);
                let mut answer = Response::new(Body::empty());
                *answer.status_mut() = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                return Ok::<_, Infallible>(answer);
            }
            shared.requests.fetch_add(1, SeqCst);
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            shared.router.clone().oneshot(request.map(Body::new)).await
        }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = connection.as_mut() => {}
        () = reached(&mut end, End::Drained) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

async fn reached(end: &mut watch::Receiver<End>, wanted: End) {
    if end.wait_for(|end| *end == wanted).await.is_err() {
        std::future::pending().await
    }
}
