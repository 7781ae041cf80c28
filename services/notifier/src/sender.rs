//! One post to a subscriber: where to, how long, and what comes back.
//!
//! The name is resolved here, and what it resolved to is what is connected to, if it [may be reached](crate::reach): no later
//! lookup could give another address. No redirect is followed, and of the answer nothing but its status and `Retry-After` is
//! looked at or kept, so that a subscriber learns nothing of what answered.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use url::Url;

use crate::{
    reach::{Blocked, Reach},
    signature::Secret,
};

/// The headers of Standard Webhooks.
pub const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
/// When it was sent, in seconds since 1970.
pub const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
/// Its signature.
pub const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Most bytes of an answer's body that are waited for.
const MAX_ANSWER: usize = 64 * 1024;
/// Most bytes of an answer's head.
const MAX_HEAD: usize = 16 * 1024;
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;

/// Posts messages.
#[derive(Clone)]
pub struct Sender {
    reach: Reach,
    tls: Arc<ClientConfig>,
    limit: Duration,
}

/// A message to a subscriber.
#[derive(Debug)]
pub struct Message<'a> {
    /// Where to.
    pub url: &'a Url,
    /// The same at each attempt, so that the subscriber knows it again.
    pub id: &'a str,
    /// What.
    pub body: String,
    /// What it is signed with.
    pub secret: &'a Secret,
}

/// Why a message was not delivered. The text is for the subscriber.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Its address must not be reached.
    #[error("the URL {0}")]
    Blocked(#[from] Blocked),
    /// Its name has no address.
    #[error("the host's name cannot be resolved")]
    Unresolved,
    /// Nobody listens there.
    #[error("no connection to the host")]
    Unconnected,
    /// The certificate is not good, or it is no TLS.
    #[error("TLS: {0}")]
    Tls(String),
    /// What came back is no HTTP.
    #[error("no HTTP answer: {0}")]
    Http(String),
    /// It took too long.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The answer says that it does not have it.
    #[error("answered {status}")]
    Status {
        /// The status; no redirect is followed.
        status: StatusCode,
        /// When it asks to be tried again.
        retry_after: Option<Duration>,
    },
}

impl Failure {
    /// The status, where there was an answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(status.as_u16()),
            _ => None,
        }
    }

    /// When the subscriber asks to be tried again.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the subscriber wants no further message, ever.
    #[must_use]
    pub fn is_farewell(&self) -> bool {
        self.status() == Some(StatusCode::GONE.as_u16())
    }
}

impl Sender {
    /// Trusts the certificates that the system trusts. `limit` bounds one post, from the lookup of the name to the end of the answer.
    #[must_use]
    pub fn new(reach: Reach, limit: Duration) -> Self {
        let mut roots = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        for error in &system.errors {
            tracing::warn!(%error, "a certificate of the system cannot be used");
        }
        roots.add_parsable_certificates(system.certs);
        if roots.is_empty() {
            tracing::warn!("the system trusts no certificates: nothing can be delivered over TLS");
        }
        Self::trusting(roots, reach, limit)
    }

    /// Trusts these certificates.
    #[must_use]
    pub fn trusting(roots: RootCertStore, reach: Reach, limit: Duration) -> Self {
        let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Self { reach, tls: Arc::new(tls), limit }
    }

    /// Where it may go.
    #[must_use]
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Posts a message, signed; gives the status of the answer that it was taken.
    ///
    /// # Errors
    /// [`Failure`] says why it was not.
    pub async fn post(&self, message: Message<'_>) -> Result<StatusCode, Failure> {
        timeout(self.limit, self.attempt(message)).await.unwrap_or(Err(Failure::Timeout(self.limit)))
    }

    async fn attempt(&self, message: Message<'_>) -> Result<StatusCode, Failure> {
        let url = message.url;
        let encrypted = url.scheme() == "https";
        let stream = self.connect(url, encrypted).await?;
        let request = request(message)?;
        if !encrypted {
            return exchange(stream, request).await;
        }
        let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(|error| Failure::Tls(error.to_string()))?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector.connect(name, stream).await.map_err(|error| Failure::Tls(error.to_string()))?;
        exchange(stream, request).await
    }

    async fn connect(&self, url: &Url, encrypted: bool) -> Result<TcpStream, Failure> {
        let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = url.port_or_known_default().unwrap_or_default();
        let found: Vec<SocketAddr> = lookup_host((host, port)).await.map_err(|_| Failure::Unresolved)?.collect();
        let mut failure = Failure::Unresolved;
        for address in found.into_iter().take(MAX_ADDRESSES) {
            match self.reach.check(address.ip(), encrypted) {
                Err(blocked) => failure = blocked.into(),
                Ok(()) => match TcpStream::connect(address).await {
                    Ok(stream) => return Ok(stream),
                    Err(_) => failure = Failure::Unconnected,
                },
            }
        }
        Err(failure)
    }
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("reach", &self.reach).field("limit", &self.limit).finish_non_exhaustive()
    }
}

fn request(message: Message<'_>) -> Result<Request<Full<Bytes>>, Failure> {
    let Message { url, id, body, secret } = message;
    let now = Timestamp::now();
    let host = match (url.host_str().unwrap_or_default(), url.port()) {
        (host, Some(port)) => format!("{host}:{port}"),
        (host, None) => host.to_owned(),
    };
    let path = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    let mut signature =
        HeaderValue::try_from(secret.sign(id, now, &body)).map_err(|error| Failure::Http(error.to_string()))?;
    signature.set_sensitive(true);
    Request::post(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("berth-notifier/", env!("CARGO_PKG_VERSION")))
        .header(header::CONTENT_TYPE, outbox::CONTENT_TYPE)
        .header(header::CONNECTION, "close")
        .header(WEBHOOK_ID, id)
        .header(WEBHOOK_TIMESTAMP, now.as_second())
        .header(WEBHOOK_SIGNATURE, signature)
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| Failure::Http(error.to_string()))
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<StatusCode, Failure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let failed = |error: hyper::Error| Failure::Http(error.to_string());
    let handshake = http1::Builder::new().max_buf_size(MAX_HEAD).max_headers(64).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(failed)?;
    let connection = Connection(tokio::spawn(connection));
    let answer = sender.send_request(request).await.map_err(failed)?;
    let (head, body) = answer.into_parts();
    // Read to its end, if that is near: a subscriber who is cut off in the middle may take it for a failure.
    let _ = Limited::new(body, MAX_ANSWER).collect().await;
    drop(connection);
    if head.status.is_success() {
        return Ok(head.status);
    }
    let seconds = head.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Err(Failure::Status { status: head.status, retry_after: seconds.map(Duration::from_secs) })
}

/// A connection that ends with this value.
struct Connection(tokio::task::JoinHandle<hyper::Result<()>>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}
