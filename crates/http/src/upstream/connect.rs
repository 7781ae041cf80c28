//! One connection: TCP, TLS where there is any, and the HTTP handshake.

use std::{net::SocketAddr, sync::Arc};

use http::uri::Authority;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::BoxError;
use super::{Payload, Protocol};

/// What an HTTP/2 stream may have buffered unread. Small, because a response is read as fast as its client reads.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The largest window a connection may have (RFC 9113, §6.9.1).
const MAX_WINDOW: usize = (1 << 31) - 1;

pub(super) type Http1 = http1::SendRequest<Payload>;
pub(super) type Http2 = http2::SendRequest<Payload>;
pub(super) type Http1Connection = http1::Connection<TokioIo<TcpStream>, Payload>;
pub(super) type Http2Connection = http2::Connection<TokioIo<TlsStream<TcpStream>>, Payload, TokioExecutor>;

/// How a service's addresses are spoken to, made once.
pub(super) enum Target {
    Mesh(Arc<Workload>),
    Plain,
}

/// A service of the mesh as a TLS peer.
pub(super) struct Workload {
    connector: TlsConnector,
    name: ServerName<'static>,
    /// What stands for the host in its requests: `<name>.<domain>`.
    pub(super) authority: Authority,
}

impl Target {
    pub(super) fn new(protocol: &Protocol) -> Self {
        let Protocol::Mesh { identity, peer } = protocol else { return Self::Plain };
        let authority = format!("{}.{}", peer.name(), peer.domain());
        Self::Mesh(Arc::new(Workload {
            connector: TlsConnector::from(identity.client_config(peer.clone(), &[b"h2"])),
            name: peer.server_name(),
            // Whatever may stand in a SPIFFE ID may stand in an authority.
            authority: authority.parse().unwrap_or_else(|_| Authority::from_static("localhost")),
        }))
    }
}

impl Workload {
    /// An HTTP/2 connection over mutual TLS. The second part must be polled for the first to work.
    pub(super) async fn connect(
        &self,
        to: SocketAddr,
        max_in_flight: usize,
    ) -> Result<(Http2, Http2Connection), BoxError> {
        let stream = self.connector.connect(self.name.clone(), tcp(to).await?).await?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err("the instance does not speak HTTP/2".into());
        }
        // Room for every stream's window at once: one client that reads slowly must not hold up the others.
        let window = (STREAM_WINDOW as usize).saturating_mul(max_in_flight).min(MAX_WINDOW);
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(u32::try_from(window).unwrap_or(STREAM_WINDOW));
        Ok(builder.handshake(TokioIo::new(stream)).await?)
    }
}

/// An HTTP/1.1 connection in the clear. The second part must be polled for the first to work.
pub(super) async fn plain(to: SocketAddr) -> Result<(Http1, Http1Connection), BoxError> {
    Ok(http1::Builder::new().handshake(TokioIo::new(tcp(to).await?)).await?)
}

/// A TCP connection that sends small writes at once.
pub(super) async fn tcp(to: SocketAddr) -> Result<TcpStream, BoxError> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
