//! Asking a running instance whether it is ready, from a command line: the health check of a container.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use runtime::settings::Settings;
use serde_json::Value;
use tls::Identity;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

/// A probe that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// More than this is no answer of ours.
const MAX_ANSWER: usize = 64 * 1024;

/// Asks the instance at `BERTH_LISTEN` for `/readyz`, over mutual TLS with the service's own identity: what
/// `<service> healthcheck` does.
///
/// # Errors
/// When it is not there, not ours, or not ready; the text says which.
pub async fn probe(settings: &Settings, identity: &Identity) -> Result<(), ProbeError> {
    timeout(TIMEOUT, ask(settings, identity)).await.map_err(|_| ProbeError::Timeout)?
}

async fn ask(settings: &Settings, identity: &Identity) -> Result<(), ProbeError> {
    let stream = TcpStream::connect(reachable(settings.listen)).await.map_err(ProbeError::Connect)?;
    let connector = TlsConnector::from(identity.client_config(identity.id().clone(), &[b"http/1.1"]));
    let stream = connector.connect(identity.id().server_name(), stream).await.map_err(ProbeError::Handshake)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get("/readyz").header(header::HOST, identity.id().name()).body(Empty::<Bytes>::new());
    let response = sender.send_request(request.map_err(io::Error::other).map_err(ProbeError::Connect)?).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map(http_body_util::Collected::to_bytes);
    connection.abort();
    if status == StatusCode::OK {
        return Ok(());
    }
    let document: Value = body.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let detail = document.get("detail").and_then(Value::as_str).unwrap_or("no reason given").to_owned();
    Err(ProbeError::NotReady { status, detail })
}

/// A socket on all addresses is reached over loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Why an instance did not pass.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Nobody listens there.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// Who listens is not this service, or does not accept its certificate.
    #[error("the TLS handshake failed: {0}")]
    Handshake(#[source] io::Error),
    /// The connection broke off.
    #[error("no answer: {0}")]
    Http(#[from] hyper::Error),
    /// It did not answer within 5 seconds.
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// It answered, and is not ready.
    #[error("{status}: {detail}")]
    NotReady {
        /// The status of its answer.
        status: StatusCode,
        /// What it says is missing.
        detail: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_address_is_reached_over_loopback() {
        for (listen, reached) in
            [("0.0.0.0:80", "127.0.0.1:80"), ("[::]:80", "[::1]:80"), ("127.1.2.3:80", "127.1.2.3:80")]
        {
            assert_eq!(reachable(listen.parse().unwrap()), reached.parse().unwrap());
        }
    }
}
